//! A page with `{% cache %}` has the same text as without it.

use everfresh::{Cache, Templates};
use proptest::prelude::*;
use tera::{Context, Tera};

/// A piece of a template, with and without `{% cache %}`.
#[derive(Clone, Debug)]
struct Pair {
    cached: String,
    plain: String,
}

impl Pair {
    fn same(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { cached: text.clone(), plain: text }
    }

    fn join(pairs: &[Self]) -> Self {
        Self {
            cached: pairs.iter().map(|pair| pair.cached.as_str()).collect(),
            plain: pairs.iter().map(|pair| pair.plain.as_str()).collect(),
        }
    }

    fn within(&self, before: &str, after: &str) -> Self {
        let wrap = |text: &str| format!("{before}{text}{after}");
        Self { cached: wrap(&self.cached), plain: wrap(&self.plain) }
    }
}

fn leaf() -> impl Strategy<Value = Pair> {
    let texts = [
        "text",
        " ",
        "\n  ",
        "é<&>",
        "{ % }",
        "{{ name }}",
        "{{- name -}}",
        "{{ \"%} {% endcache %}\" }}",
        "{# {% cache 1, \"a\" %} #}",
        "{#- x -#}",
        "{% raw %} {% cache %} {% endraw %}",
        "{%- raw -%} {{ x }} {%- endraw -%}",
        "{{ n }}",
        "{{ '\\'' ~ `\"` }}",
        "\u{1}",
        "\u{1}0123456789ab00000000",
    ];
    prop::sample::select(texts.to_vec()).prop_map(Pair::same)
}

fn delimiters() -> impl Strategy<Value = [&'static str; 4]> {
    let either = |one, other| prop::sample::select(vec![one, other]);
    let [open, close] = [either("{%", "{%-"), either("%}", "-%}")];
    (open.clone(), close.clone(), open, close).prop_map(|(a, b, c, d)| [a, b, c, d])
}

/// A fragment around `body`. Its name is `@`, which [`named`] replaces by a unique one.
fn cache(body: impl Strategy<Value = Pair>) -> impl Strategy<Value = Pair> {
    let arguments = prop::sample::select(vec![
        "",
        ", n",
        ", name, 1 + 2",
        ", of=name",
        ", [n, 1] | length, of=[n]",
        ", ...[n, name]",
    ]);
    (body, delimiters(), arguments, 0..3_u8).prop_map(|(body, [a, b, c, d], arguments, lines)| {
        let lines = "\n".repeat(lines.into());
        Pair {
            cached: format!(
                "{a}{lines} cache none, \"@\", n{arguments} {b}{}{c}{lines} endcache {d}",
                body.cached
            ),
            plain: format!("{a}{lines} if true {b}{}{c}{lines} endif {d}", body.plain),
        }
    })
}

fn template() -> impl Strategy<Value = Pair> {
    leaf().prop_recursive(4, 30, 4, |inner| {
        let several = prop::collection::vec(inner, 0..4).prop_map(|pairs| Pair::join(&pairs));
        let wrappers = prop::sample::select(vec![
            ("{% for n in [n, 5] %}", "{% endfor %}"),
            ("{% if n > 1 -%}", "{%- else -%} no {% endif %}"),
            ("{% filter upper %}", "{% endfilter %}"),
            ("{% filter trim | length %}", "{% endfilter %}"),
            ("{% block @ %}", "{% endblock %}"),
            ("", "{% include \"part.html\" %}"),
        ]);
        prop_oneof![
            3 => cache(several.clone()),
            1 => (several, wrappers).prop_map(|(pair, (before, after))| pair.within(before, after)),
        ]
    })
}

/// Replaces each `@` by a unique name.
fn named(source: &str) -> String {
    let mut parts = source.split('@');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.enumerate().fold(first, |text, (at, part)| format!("{text}f{at}{part}"))
}

fn templates(source: String) -> Result<Templates, everfresh::TemplatesError> {
    let part = "{% cache none, \"part\", n %} part {{ n }}{% endcache %}".to_owned();
    Templates::new(Tera::default(), [("page.html", source), ("part.html", part)])
}

fn check(pair: &Pair) -> Result<(), TestCaseError> {
    // The plain form has names only for blocks. They must be those of the cached form.
    let cached = named(&pair.cached);
    let plain = plain_names(&pair.cached, &pair.plain);
    let templates = match templates(cached.clone()) {
        Ok(templates) => templates,
        // This crate refuses a block inside a fragment, and Tera one inside a loop.
        Err(error) if error.to_string().to_lowercase().contains("block") => {
            return Err(TestCaseError::reject("a block where it is not allowed"));
        }
        Err(error) => return Err(TestCaseError::fail(format!("{error}\n{cached}"))),
    };
    let mut tera = Tera::default();
    let part = "{% if true %} part {{ n }}{% endif %}";
    tera.add_raw_templates([("page.html", plain.as_str()), ("part.html", part)]).unwrap();

    let cache = Cache::memory(1 << 20).build();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for n in [1, 2, 1, 2] {
        let mut context = Context::new();
        context.insert("n", &n);
        context.insert("name", "<name>");
        let expected = tera.render("page.html", &context).unwrap();
        let page = runtime.block_on(templates.render(&cache, "page.html", &context)).unwrap();
        prop_assert_eq!(page, expected, "{}", cached);
    }
    Ok(())
}

/// Gives the blocks of the plain form the names that they have in the cached form.
fn plain_names(cached: &str, plain: &str) -> String {
    let blocks: Vec<_> = named(cached)
        .split("{% block ")
        .skip(1)
        .map(|rest| rest.split(' ').next().unwrap_or_default().to_owned())
        .collect();
    let mut parts = plain.split('@');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.zip(blocks).fold(first, |text, (part, name)| format!("{text}{name}{part}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, max_global_rejects: 5000, ..ProptestConfig::default() })]

    #[test]
    fn the_tag_does_not_change_a_byte_of_a_page(pair in template()) {
        check(&pair)?;
    }
}

/// Replaces each `{% cache … %}` by `{% if true %}`.
fn without_tag(source: &str) -> String {
    let mut parts = source.split("{% cache");
    let first = parts.next().unwrap_or_default().to_owned();
    let plain = parts.fold(first, |text, part| {
        let (_, rest) = part.split_once("%}").unwrap();
        text + "{% if true %}" + rest
    });
    plain.replace("{% endcache %}", "{% endif %}")
}

const COMPONENTS: &str = "{% component inner() %}{% cache none, \"i\" %}ab{% endcache %}\
    {% endcomponent inner %}\
    {% component outer(a) %}{{ a }}{{ a | length }}{% endcomponent outer %}\
    {% component wrap(a) %}{{ a }}{{ a | length }}:{{ body }}{% endcomponent wrap %}\
    {% component five() %}{% cache none, \"5\" %}5{% endcache %}{% endcomponent five %}";

const BASE: &str = "{% block a %}{% cache none, \"f\" %}5{% endcache %}{% endblock %}";

#[tokio::test]
async fn the_tag_does_not_change_a_page_whose_output_becomes_a_value() {
    let in_block =
        |body: &str| format!("{{% extends \"base.html\" %}}{{% block a %}}{body}{{% endblock %}}");
    let fragment = "{% cache none, \"f\" %}5{% endcache %}";
    let pages = [
        format!("{{% set x %}}{fragment}{{% endset %}}{{{{ x | int + 1 }}}}"),
        format!("{{% filter int %}}{fragment}{{% endfilter %}}"),
        "{{ <five/> | int + 1 }}{{ <inner/> }}".to_owned(),
        in_block("{{ super() }}{{ super() | length }}"),
        in_block("{% set s = super() %}{{ s }}:{{ s | length }}"),
        in_block("{% set s = super() %}{% if s == \"5\" %}<b>{{ s }}</b>{% else %}{{ s }}{% endif %}"),
        in_block("{% set s = super() %}{{ s }} {{ s is containing(pat=\"5\") }}"),
        in_block("{% if super() == \"5\" %}yes{% else %}no{% endif %}"),
        in_block("{% <wrap a={super()}> %}x{% </wrap> %}"),
        in_block("{% cache none, \"z\", super() %}q{% endcache %}"),
        in_block("{{ <outer a={super()} /> }}"),
        "{{ <outer a={<inner/>} /> }}".to_owned(),
        "{% <wrap a={<inner/>}> %}x{% </wrap> %}".to_owned(),
        "{{ [<inner/> for x in [1, 2]] | join(sep=\"-\") | length }}".to_owned(),
        "{{ <inner/> if 1 < 2 else \"z\" }}".to_owned(),
        "{% cache none, \"z\", <inner/> %}q{% endcache %}".to_owned(),
        "{% cache none, \"e\" %}{% for x in [1, 2, 3] %}{% if x == 2 %}{% break %}{% endif %}{{ x }}\
         {% endfor %}{% endcache %}"
            .to_owned(),
        "{% if 1 == 2 %}a{% elif 1 == 1 %}{% cache none, \"x\" %}b{% endcache %}{% else %}c{% endif %}"
            .to_owned(),
    ];
    for page in pages {
        let sources = [("base.html", BASE), ("components.html", COMPONENTS), ("page.html", &page)];
        let mut tera = Tera::default();
        tera.add_raw_templates(sources.map(|(name, source)| (name, without_tag(source)))).unwrap();
        let expected = tera.render("page.html", &Context::new()).unwrap();
        let templates = Templates::new(Tera::default(), sources).unwrap();
        let cache = Cache::memory(1 << 20).build();
        for state in ["cold", "warm", "warm"] {
            let rendered = templates.render(&cache, "page.html", &Context::new()).await;
            assert_eq!(rendered.unwrap(), expected, "{state}: {page}");
        }
    }
}
