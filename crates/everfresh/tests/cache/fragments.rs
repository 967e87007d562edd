//! Tests of `{% cache %}` in templates.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use super::values::not_kept::{collect_warnings, warnings_of};
use everfresh::{Cache, Lifetime, Templates, TemplatesError, fragment_key};
use memcached_client::Protocol;
use serde::Serialize;
use tera::{Context, Kwargs, State, Tera, Value};
use test_support::{
    counting_proxy::CountingProxy,
    memcached::{Kind, Memcached},
    wait::eventually,
};

/// Records the values that pass through the filter `trace`, in the order of rendering.
#[derive(Clone, Default)]
struct Trace(Arc<Mutex<Vec<String>>>);

impl Trace {
    fn tera(&self) -> Tera {
        let (mut tera, trace) = (Tera::default(), Arc::clone(&self.0));
        tera.register_filter("trace", move |value: Value, _: Kwargs, _: &State| {
            trace.lock().unwrap().push(value.to_string());
            value
        });
        tera
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[derive(Clone, Serialize)]
struct Row {
    id: u64,
    name: String,
}

fn rows(number: u64) -> Vec<Row> {
    (1..=number).map(|id| Row { id, name: format!("row {id}") }).collect()
}

fn context(name: &str, value: &impl Serialize) -> Context {
    let mut context = Context::new();
    context.insert(name.to_owned(), value);
    context
}

fn one(source: &str) -> Templates {
    Templates::new(Tera::default(), [("page.html", source)]).unwrap()
}

fn memory() -> Cache {
    Cache::memory(1 << 22).build()
}

async fn on_every_backend(check: impl AsyncFn(&Cache)) {
    let server = Memcached::start(Kind::Plain);
    check(&memory()).await;
    check(&Cache::memcached(server.client(Protocol::Binary)).build()).await;
    check(&Cache::memcached(server.client(Protocol::Text)).prefix("text:").build()).await;
    check(&Cache::memcached(server.client(Protocol::Meta)).prefix("meta:").build()).await;
}

const LIST: &str = "<ul>{% for row in rows %}\
    {% cache none, \"row\", row.id, of=row %}<li>{{ row.name | trace }}</li>{% endcache %}\
    {% endfor %}</ul>";

fn list(rows: &[Row]) -> String {
    let items: Vec<_> = rows.iter().map(|row| format!("<li>{}</li>", row.name)).collect();
    format!("<ul>{}</ul>", items.concat())
}

/// Waits until fragments are stored, for which no page waits.
async fn all_are_stored(cache: &Cache, number: u64) {
    eventually("fragments are stored", async || cache.stats()["cache"].fills == number).await;
}

#[tokio::test]
async fn two_hundred_rows_from_the_cache_take_one_round_trip() {
    let proxy = CountingProxy::start();
    let cache = Cache::memcached(proxy.client()).near(0).build();
    let templates = Templates::new(Trace::default().tera(), [("page.html", LIST)]).unwrap();
    let rows = rows(200);
    let context = context("rows", &rows);

    let cold = templates.render(&cache, "page.html", &context).await.unwrap();
    assert_eq!(cold, list(&rows));
    let (hits, misses) = (proxy.server().stat("get_hits"), proxy.server().stat("get_misses"));
    assert_eq!((hits, misses), (0, 200));
    all_are_stored(&cache, 200).await;
    proxy.round_trips();

    let warm = templates.render(&cache, "page.html", &context).await.unwrap();
    assert_eq!(warm, cold);
    assert_eq!(proxy.round_trips(), 1);
    assert_eq!(proxy.server().stat("get_hits"), 200);
}

#[tokio::test]
async fn a_fragment_that_its_value_proves_is_fetched_once_for_each_process() {
    let proxy = CountingProxy::start();
    let cache = || Cache::memcached(proxy.client()).build();
    let (one, other) = (cache(), cache());
    let templates = Templates::new(Trace::default().tera(), [("page.html", LIST)]).unwrap();
    let mut rows = rows(3);
    let render = async |cache: &Cache, rows: &[Row]| {
        let page = templates.render(cache, "page.html", &context("rows", &rows)).await.unwrap();
        assert_eq!(page, list(rows));
        proxy.round_trips()
    };
    render(&one, &rows).await;
    all_are_stored(&one, 3).await;
    proxy.round_trips();
    assert_eq!(render(&one, &rows).await, 0, "kept when it was rendered");
    assert_eq!(proxy.server().stat("get_hits"), 0);
    render(&other, &rows).await;
    assert_eq!(proxy.server().stat("get_hits"), 3);
    assert_eq!(render(&other, &rows).await, 0, "kept when it was fetched");
    assert_eq!(one.stats()["cache"].hits, 3, "a kept fragment counts as a hit");

    rows[1].name = "other".to_owned();
    render(&one, &rows).await;
    assert_eq!(proxy.server().stat("get_hits"), 4, "only the changed row is asked for");

    assert!(one.clear().await);
    assert!(render(&one, &rows).await > 0, "a cleared cache keeps nothing");
}

#[tokio::test]
async fn a_row_that_has_changed_is_rendered_with_the_list_around_it_without_a_lookup() {
    let proxy = CountingProxy::start();
    let cache = Cache::memcached(proxy.client()).build();
    let source = format!("{{% cache none, \"list\", of=rows %}}{LIST}{{% endcache %}}");
    let trace = Trace::default();
    let templates = Templates::new(trace.tera(), [("page.html", &source)]).unwrap();
    let mut rows = rows(10);
    let render = async |rows: &[Row]| {
        let page = templates.render(&cache, "page.html", &context("rows", &rows)).await.unwrap();
        assert_eq!(page, list(rows));
        trace.take()
    };
    render(&rows).await;
    all_are_stored(&cache, 10).await;
    rows[4].name = "other".to_owned();
    proxy.round_trips();
    assert_eq!(render(&rows).await, ["other"]);
    all_are_stored(&cache, 11).await;
    assert_eq!(proxy.round_trips(), 1, "the store of the row");
}

#[tokio::test]
async fn a_fragment_of_fragments_that_are_kept_is_put_together_in_each_process() {
    let server = Memcached::start(Kind::Plain);
    let cache = || Cache::memcached(server.client(Protocol::Binary)).build();
    let source = format!("{{% cache none, \"list\", of=rows %}}{LIST}{{% endcache %}}");
    let trace = Trace::default();
    let process = || {
        let templates = Templates::new(trace.tera(), [("page.html", &source)]).unwrap();
        (templates, cache())
    };
    let rows = rows(10);
    let (one, other) = (process(), process());
    let render = async |(templates, cache): &(Templates, Cache)| {
        let page = templates.render(cache, "page.html", &context("rows", &rows)).await.unwrap();
        assert_eq!(page, list(&rows));
        trace.take()
    };
    render(&one).await;
    all_are_stored(&one.1, 10).await;
    assert_eq!(render(&other).await, ["row 1", "row 2"], "the others are fetched");
    // The two rows, and not the list.
    all_are_stored(&other.1, 2).await;
    assert_eq!(server.stat("get_hits"), 8);
}

#[tokio::test]
async fn a_fragment_with_more_text_of_its_own_than_of_others_is_fetched() {
    let server = Memcached::start(Kind::Plain);
    let cache = || Cache::memcached(server.client(Protocol::Binary)).build();
    let text = "the text of the list itself, ".repeat(10);
    let source = format!("{{% cache none, \"list\", of=rows %}}{text}{LIST}{{% endcache %}}");
    let templates = Templates::new(Trace::default().tera(), [("page.html", &source)]).unwrap();
    let rows = rows(3);
    let (one, other) = (cache(), cache());
    for cache in [&one, &other] {
        let page = templates.render(cache, "page.html", &context("rows", &rows)).await.unwrap();
        assert_eq!(page, text.clone() + &list(&rows));
        all_are_stored(&one, 4).await;
    }
    assert_eq!(server.stat("get_hits"), 1);
}

#[tokio::test]
async fn a_fragment_with_a_lifetime_or_without_a_value_is_not_kept_in_the_process() {
    let proxy = CountingProxy::start();
    for (arguments, default) in [
        ("60, \"a\", of=n", None),
        ("none, \"b\", n", None),
        ("\"default\", \"c\", of=n", Some(Duration::from_secs(60))),
    ] {
        let mut cache = Cache::memcached(proxy.client());
        if let Some(default) = default {
            cache = cache.default_lifetime(default);
        }
        let cache = cache.build();
        let source = format!("{{% cache {arguments} %}}{{{{ n }}}}{{% endcache %}}");
        let templates = one(&source);
        for _ in 0..2 {
            templates.render(&cache, "page.html", &context("n", &7)).await.unwrap();
        }
        proxy.round_trips();
        templates.render(&cache, "page.html", &context("n", &7)).await.unwrap();
        assert_eq!(proxy.round_trips(), 1, "{arguments}");
    }
}

#[tokio::test]
async fn a_body_is_not_rendered_on_a_hit() {
    on_every_backend(async |cache: &Cache| {
        let trace = Trace::default();
        let templates = Templates::new(trace.tera(), [("page.html", LIST)]).unwrap();
        let mut rows = rows(3);
        templates.render(cache, "page.html", &context("rows", &rows)).await.unwrap();
        assert_eq!(trace.take(), ["row 1", "row 2", "row 3"]);

        let page = templates.render(cache, "page.html", &context("rows", &rows)).await.unwrap();
        assert_eq!((page, trace.take()), (list(&rows), vec![]));

        rows[1].name = "other".to_owned();
        let page = templates.render(cache, "page.html", &context("rows", &rows)).await.unwrap();
        assert_eq!((page, trace.take()), (list(&rows), vec!["other".to_owned()]));
    })
    .await;
}

#[derive(Clone, Serialize)]
struct Doll {
    outer: u32,
    middle: u32,
    inner: [u32; 2],
}

#[tokio::test]
async fn a_change_renders_only_the_fragments_that_depend_on_it() {
    let source = "{% cache none, \"outer\", of=doll %}[{{ doll.outer | trace }}\
        {% cache none, \"middle\", of=[doll.middle, ...doll.inner] %}({{ doll.middle | trace }}\
        {% for n in doll.inner %}\
        {% cache none, \"inner\", n %}<{{ n | trace }}>{% endcache %}\
        {% endfor %}){% endcache %}]{% endcache %}";
    on_every_backend(async |cache: &Cache| {
        let trace = Trace::default();
        let templates = Templates::new(trace.tera(), [("page.html", source)]).unwrap();
        let render = async |doll: &Doll| {
            let doll = context("doll", doll);
            let page = templates.render(cache, "page.html", &doll).await.unwrap();
            let mut rendered = trace.take();
            rendered.sort();
            rendered.dedup();
            (page, rendered.join(" "))
        };
        let shown = |page: &str, rendered: &str| (page.to_owned(), rendered.to_owned());

        let mut doll = Doll { outer: 1, middle: 2, inner: [3, 4] };
        assert_eq!(render(&doll).await, shown("[1(2<3><4>)]", "1 2 3 4"));
        assert_eq!(render(&doll).await, shown("[1(2<3><4>)]", ""));
        doll.outer = 5;
        assert_eq!(render(&doll).await, shown("[5(2<3><4>)]", "5"));
        doll.middle = 6;
        assert_eq!(render(&doll).await, shown("[5(6<3><4>)]", "5 6"));
        doll.inner = [3, 7];
        assert_eq!(render(&doll).await, shown("[5(6<3><7>)]", "5 6 7"));
        assert_eq!(render(&doll).await, shown("[5(6<3><7>)]", ""));
    })
    .await;
}

#[tokio::test]
async fn an_outer_fragment_is_stored_with_its_inner_fragments() {
    let cache = memory();
    let templates = one("{% cache none, \"outer\", n %}{{ n }}\
        {% cache none, \"inner\" %}<b>{% endcache %}{% endcache %}");
    for n in [1, 2, 2, 1] {
        let page = templates.render(&cache, "page.html", &context("n", &n)).await.unwrap();
        assert_eq!(page, format!("{n}<b>"));
    }
}

#[tokio::test]
async fn deleting_a_fragments_key_deletes_only_that_fragment() {
    let server = Memcached::start(Kind::Plain);
    let on_server = Cache::memcached(server.client(Protocol::Binary));
    for cache in [Cache::memory(1 << 20), on_server] {
        let cache = cache.near(0).build();
        let trace = Trace::default();
        let templates = Templates::new(trace.tera(), [("page.html", LIST)]).unwrap();
        let context = context("rows", &rows(3));
        templates.render(&cache, "page.html", &context).await.unwrap();
        trace.take();
        assert!(cache.delete(&fragment_key("row", [2])).await);
        templates.render(&cache, "page.html", &context).await.unwrap();
        assert_eq!(trace.take(), ["row 2"]);
    }
}

#[tokio::test]
async fn a_reused_id_shows_the_new_data() {
    let cache = memory();
    let templates = Templates::new(Trace::default().tera(), [("page.html", LIST)]).unwrap();
    for name in ["first", "second"] {
        let rows = [Row { id: 1, name: name.to_owned() }];
        let page = templates.render(&cache, "page.html", &context("rows", &rows)).await.unwrap();
        assert_eq!(page, list(&rows));
    }
}

#[tokio::test]
async fn content_is_escaped_once_and_only_with_autoescaping() {
    let cache = memory();
    let sources = [
        ("part.html", "{% cache none, \"name\" %}<b>{{ name }}</b>{% endcache %}"),
        ("page.html", "{% include \"part.html\" %}"),
        ("mail.txt", "{% include \"part.html\" %}"),
    ];
    let templates = Templates::new(Tera::default(), sources).unwrap();
    let context = context("name", &"<&>");
    for _ in 0..2 {
        let mail = templates.render(&cache, "mail.txt", &context).await.unwrap();
        assert_eq!(mail, "<b><&></b>");
        let page = templates.render(&cache, "page.html", &context).await.unwrap();
        assert_eq!(page, "<b>&lt;&amp;&gt;</b>");
    }
}

#[tokio::test]
async fn fragments_are_right_if_their_output_is_changed_before_it_is_shown() {
    let component = "{% component shout() %}{{ body | upper }}{% endcomponent shout %}\
        {% component row(n) %}{% cache none, \"n\", n %} a{{ n }} {% endcache %}{% endcomponent row %}";
    let fragment = "{% cache none, \"f\" %} ab {% endcache %}";
    let sources = [
        ("components.html", component.to_owned()),
        ("part.html", fragment.to_owned()),
        ("filter.html", format!("{{% filter trim %}}{fragment}{{% endfilter %}}")),
        (
            "include.html",
            "{% filter length %}{% include \"part.html\" %}{% endfilter %}".to_owned(),
        ),
        (
            "set.html",
            format!("{{% set x %}}{fragment}{{% endset %}}{{{{ x | length }}}}{{{{ x }}}}"),
        ),
        ("body.html", format!("{{% <shout> %}}{fragment}{{% </shout> %}}")),
        ("inline.html", "{{ <row n={1} /> }}{{ <row n={2} /> | trim }}".to_owned()),
        (
            "tested.html",
            "{% set x = <row n={1} /> %}{% if x is containing(pat=\"a1\") %}yes{% endif %}"
                .to_owned(),
        ),
        ("base.html", format!("{{% block a %}}{fragment}{{% endblock %}}")),
        (
            "super.html",
            "{% extends \"base.html\" %}{% block a %}{{ super() | trim }}.{% endblock %}"
                .to_owned(),
        ),
    ];
    let expected = [
        ("filter.html", "ab"),
        ("include.html", "4"),
        ("set.html", "4 ab "),
        ("body.html", " AB "),
        ("inline.html", " a1 a2"),
        ("tested.html", "yes"),
        ("super.html", "ab."),
    ];
    for (name, expected) in expected {
        let needed = sources.iter().filter(|(source, _)| {
            *source == name || ["components.html", "part.html", "base.html"].contains(source)
        });
        let templates = Templates::new(Tera::default(), needed.cloned()).unwrap();
        let cache = memory();
        for state in ["cold", "warm"] {
            let page = templates.render(&cache, name, &Context::new()).await.unwrap();
            assert_eq!(page, expected, "{name}, {state}");
        }
        assert!(cache.stats()["cache"].hits > 0, "{name}");
    }
}

#[tokio::test]
async fn fragments_in_blocks_includes_and_components_are_cached() {
    let trace = Trace::default();
    let sources = [
        (
            "base.html",
            "<{% block a %}{% cache none, \"base\" %}{{ 1 | trace }}{% endcache %}{% endblock %}>",
        ),
        ("part.html", "{% cache none, \"part\", n %}{{ n | trace }}{% endcache %}"),
        (
            "components.html",
            "{% component c(n) %}{% cache none, \"c\", n %}{{ n | trace }}{% endcache %}{% endcomponent c %}",
        ),
        (
            "page.html",
            "{% extends \"base.html\" %}{% block a %}{{ super() }}\
             {% for n in [2, 3] %}{% include \"part.html\" %}{{ <c n={n} /> }}{% endfor %}{% endblock %}",
        ),
    ];
    let templates = Templates::new(trace.tera(), sources).unwrap();
    let cache = memory();
    let render = async || templates.render(&cache, "page.html", &Context::new()).await.unwrap();
    assert_eq!((render().await, trace.take().len()), ("<12233>".to_owned(), 5));
    assert_eq!((render().await, trace.take().len()), ("<12233>".to_owned(), 0));
}

#[tokio::test]
async fn an_entry_of_changed_templates_is_not_served() {
    let sources = [
        ("base.html", "<{% block a %}{% endblock %}>"),
        (
            "page.html",
            "{% extends \"base.html\" %}{% block a %}{% cache none, \"x\" %}\
            {% include \"part.html\" %}{{ <c /> }}{% endcache %}{% endblock %}",
        ),
        ("part.html", "part"),
        ("components.html", "{% component c() %}component{% endcomponent c %}"),
        ("unrelated.html", "unrelated"),
    ];
    let hits_after_change_of = async |changed: &str| {
        let cache = memory();
        let before = Templates::new(Tera::default(), sources).unwrap();
        before.render(&cache, "page.html", &Context::new()).await.unwrap();
        let after = sources.map(|(name, source)| {
            (name, if name == changed { source.to_owned() + " " } else { source.to_owned() })
        });
        let after = Templates::new(Tera::default(), after).unwrap();
        after.render(&cache, "page.html", &Context::new()).await.unwrap();
        cache.stats()["cache"].hits
    };
    assert_eq!(hits_after_change_of("no template").await, 1);
    assert_eq!(hits_after_change_of("unrelated.html").await, 1);
    for name in ["base.html", "page.html", "part.html", "components.html"] {
        assert_eq!(hits_after_change_of(name).await, 0, "{name}");
    }
}

#[tokio::test]
async fn an_entry_of_another_version_is_not_served() {
    let cache = memory();
    let source = "{% cache none, \"x\" %}x{% endcache %}";
    for (version, hits) in [("1", 0), ("1", 1), ("2", 1), ("2", 2)] {
        let templates = one(source).versioned_by(version);
        templates.render(&cache, "page.html", &Context::new()).await.unwrap();
        assert_eq!(cache.stats()["cache"].hits, hits);
    }
    let digests =
        [&[][..], &["1"], &["2"], &["1", "1"], &["1", "2"], &["2", "1"]].map(|versions| {
            versions
                .iter()
                .fold(one(source), |templates, version| templates.versioned_by(version))
                .digest()
        });
    let different: std::collections::HashSet<_> = digests.iter().collect();
    assert_eq!(different.len(), digests.len());
}

#[tokio::test]
async fn a_timeout_is_seconds_none_default_or_del() {
    let templates = one("{% cache timeout, \"x\" %}x{% endcache %}");
    let hits = async |timeout: Value| {
        let cache = memory();
        for _ in 0..2 {
            let context = context("timeout", &timeout);
            templates.render(&cache, "page.html", &context).await.unwrap();
        }
        cache.stats()["cache"].hits
    };
    for stored in [Value::from(300), Value::from(9.5), Value::none(), Value::from("default")] {
        assert_eq!(hits(stored.clone()).await, 1, "{stored:?}");
    }
    for not_stored in [Value::from(0), Value::from("del")] {
        assert_eq!(hits(not_stored.clone()).await, 0, "{not_stored:?}");
    }
    for wrong in [Value::from(-1), Value::from("300"), Value::from(f64::NAN), Value::from(true)] {
        let context = context("timeout", &wrong);
        let error = templates.render(&memory(), "page.html", &context).await.unwrap_err();
        let text = error.to_string();
        let expected =
            format!("\"page.html\", line 1: `{wrong}` is not a timeout for `{{% cache %}}`; use");
        assert!(text.contains(&expected), "{text}");
    }
}

#[tokio::test]
async fn the_timeout_del_deletes_the_entry_and_renders_the_body() {
    on_every_backend(async |cache: &Cache| {
        let templates = one("{% cache timeout, \"x\" %}{{ n }}{% endcache %}");
        let mut pages = Vec::new();
        for (timeout, n) in [("default", 1), ("default", 2), ("del", 3), ("default", 4)] {
            let mut context = context("timeout", &timeout);
            context.insert("n", &n);
            pages.push(templates.render(cache, "page.html", &context).await.unwrap());
        }
        assert_eq!(pages, ["1", "1", "3", "4"]);
    })
    .await;
}

#[tokio::test]
async fn an_error_about_an_undefined_value_names_template_and_line() {
    for (arguments, expected) in [
        ("none, x", "NAME of `{% cache %}` is undefined"),
        ("none, \"n\", 1, x", "VARY value 2 of `{% cache %}` is undefined"),
        ("none, \"n\", of=x", "the value of argument `of` of `{% cache %}` is undefined"),
    ] {
        let templates = one(&format!("\n\n{{% cache {arguments} %}}{{% endcache %}}"));
        let error = templates.render(&memory(), "page.html", &Context::new()).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("\"page.html\", line 3: {expected}")), "{text}");
    }
}

#[tokio::test]
async fn an_error_in_a_body_has_the_right_line_number() {
    let templates =
        one("a\n{%- cache none,\n  \"n\",\n  of =\n  1\n-%}\n\n{{ missing }}\n{% endcache %}");
    let error = templates.render(&memory(), "page.html", &Context::new()).await.unwrap_err();
    assert!(error.to_string().contains("page.html:8:"), "{error}");
}

#[test]
fn a_fragment_with_a_csrf_token_is_logged() {
    collect_warnings();
    let source = "{{ csrf_token }}\n{% cache 60, \"form\" %}<input value={{ csrf_token }}>{% endcache %}\n\
                  {% cache 60, \"mine\", csrf_token %}{{ csrf_token }}{% endcache %}";
    Templates::new(Tera::default(), [("token.html", source)]).unwrap();
    let warnings = warnings_of("token.html");
    assert!(warnings.len() == 1 && warnings[0].contains("line 2"), "{warnings:?}");
}

#[tokio::test]
async fn an_error_quotes_the_template_as_it_was_written() {
    let row = "<ul>\n\t{% cache none, \"row\", id %}<li>{{ nam }}</li>{% endcache %}\n</ul>";
    let page = "{% cache none, \"page\" %}{% include \"row 1.html\" %}{% endcache %}";
    let sources = [("row 1.html", row), ("page.html", page)];
    let templates = Templates::new(Tera::default(), sources).unwrap();
    let mut context = Context::new();
    context.insert("id", &1);
    let written = row.lines().nth(1).unwrap();
    let column = written.find("nam ").unwrap();
    let underlined = format!("2 | {written}\n  | \t{}^^^", " ".repeat(column - 1));
    for cache in [memory(), Cache::null().build()] {
        for template in ["row 1.html", "page.html"] {
            let error = templates.render(&cache, template, &context).await.unwrap_err();
            let text = error.to_string();
            assert!(text.contains(&underlined), "{text}");
            assert!(text.contains(&format!("row 1.html:2:{}\n", column + 1)), "{text}");
            assert!(!text.contains("__fragment") && !text.contains("if true"), "{text}");
        }
    }
}

#[test]
fn an_error_in_the_syntax_quotes_the_template_as_it_was_written() {
    let source = "\n{% cache none, \"row\" %}{{ 1 + }}{% endcache %}";
    let error = Templates::new(Tera::default(), [("row.html", source)]).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("row.html:2") && text.contains(&source[1..]), "{text}");
    assert!(!text.contains("__fragment"), "{text}");
}

#[test]
fn an_error_about_a_wrong_tag_names_template_and_line() {
    for (source, expected) in [
        ("\n{% cache %}{% endcache %}", "line 2: write `{% cache TIMEOUT, NAME"),
        ("\n{% cache 1 %}{% endcache %}", "line 2: write `{% cache TIMEOUT, NAME"),
        ("{% cache 1, \"a\",, b %}{% endcache %}", "line 1: write `{% cache TIMEOUT, NAME"),
        ("\n{% cache \"300\", \"a\" %}{% endcache %}", "line 2: `300` is not a timeout for"),
        ("{% cache -5, \"a\" %}{% endcache %}", "line 1: `-5` is not a timeout for"),
        ("{% cache true, \"a\" %}{% endcache %}", "line 1: `true` is not a timeout for"),
        (
            "{% cache 1, \"a\", by=2 %}{% endcache %}",
            "line 1: only the last argument has a name, which is `of`",
        ),
        (
            "{% cache 1, \"a\", of=2, b %}{% endcache %}",
            "line 1: only the last argument has a name, which is `of`",
        ),
        ("\n\n{% cache 1, \"a\" %}", "line 3: `{% cache %}` has no `{% endcache %}`"),
        ("\n{% endcache %}", "line 2: `{% endcache %}` has no `{% cache %}`"),
        (
            "{% cache 1, \"a\" %}\n{% if b %}\n{% endcache %}{% endif %}",
            "line 3: `{% endcache %}` comes before the end of the tag in line 2",
        ),
        (
            "{% cache 1, \"a\" %}\n{% set b = 1 %}{% endcache %}",
            "line 2: `{% set %}` is not allowed inside the `{% cache %}` of line 1",
        ),
        (
            "{% cache 1, \"a\" %}\n{% for x in y %}{% set_global b = 1 %}{% endfor %}{% endcache %}",
            "line 2: `{% set_global %}` is not allowed inside the `{% cache %}` of line 1",
        ),
        (
            "{% cache 1, \"a\" %}{% for x in y %}{% else %}\n{% set b = 1 %}{% endfor %}{% endcache %}",
            "line 2: `{% set %}` is not allowed inside the `{% cache %}` of line 1",
        ),
        (
            "{% for x in y %}{% cache 1, x %}\n{% if x %}{% break %}{% endif %}{% endcache %}{% endfor %}",
            "line 2: `{% break %}` is not allowed inside the `{% cache %}` of line 1",
        ),
        (
            "{% cache 1, \"a\" %}\n{% block b %}{% endblock %}{% endcache %}",
            "line 2: `{% block %}` is not allowed inside the `{% cache %}` of line 1",
        ),
    ] {
        let error = Templates::new(Tera::default(), [("page.html", source)]).unwrap_err();
        assert!(matches!(error, TemplatesError::Tag { .. }), "{source}: {error}");
        let text = error.to_string();
        assert!(text.starts_with(&format!("template \"page.html\", {expected}")), "{text}");
    }
}

#[test]
fn an_error_from_tera_is_returned_with_its_own_text() {
    let source = "{% cache 1, \"a\" %}\n{% if %}{% endif %}{% endcache %}";
    let error = Templates::new(Tera::default(), [("page.html", source)]).unwrap_err();
    assert!(matches!(error, TemplatesError::Tera(_)));
    assert!(error.to_string().contains("page.html:2:"), "{error}");
}

#[tokio::test]
async fn a_body_may_set_a_variable_inside_its_own_loop() {
    let templates = one("{% cache none, \"x\" %}{% for n in [1, 2] %}\
        {% set m = n * 2 %}{{ m }}{% endfor %}{% endcache %}");
    for _ in 0..2 {
        let page = templates.render(&memory(), "page.html", &Context::new()).await.unwrap();
        assert_eq!(page, "24");
    }
}

#[tokio::test]
async fn without_a_working_backend_pages_are_rendered_and_not_stored() {
    let templates = Templates::new(Trace::default().tera(), [("page.html", LIST)]).unwrap();
    let rows = rows(3);
    for (cache, errors) in [(Cache::failing().build(), 3), (Cache::null().build(), 0)] {
        let page = templates.render(&cache, "page.html", &context("rows", &rows)).await.unwrap();
        assert_eq!(page, list(&rows));
        let stats = cache.stats()["cache"];
        assert_eq!((stats.errors, stats.fills, stats.refused_fills), (errors, 0, 0));
    }
}

#[tokio::test]
async fn a_page_has_the_same_text_with_and_without_a_cache() {
    for source in [
        "a {%- cache none, \"x\" -%} b {%- endcache -%} c",
        "{% for n in [1, 2] %}{% cache none, \"x\", n %} {{ n }}{% if n > 1 %}!{% endif %}\n{% endcache %}{% endfor %}",
        "{% cache none, \"x\" %}{% cache none, \"y\" %}<{{ \"<\" }}{% endcache %}{% endcache %}",
        "{% filter upper %}{% cache none, \"x\" %}{{ \"a\" }}b{% endcache %}{% endfilter %}",
        "{% cache \"del\", \"x\" %}a{% endcache %}{% cache 0, \"y\" %}b{% endcache %}",
    ] {
        let templates = one(source);
        let (without, with) = (Cache::null().build(), memory());
        let plain = templates.render(&without, "page.html", &Context::new()).await.unwrap();
        for _ in 0..2 {
            let page = templates.render(&with, "page.html", &Context::new()).await.unwrap();
            assert_eq!(page, plain, "{source}");
        }
    }
}

#[tokio::test]
async fn an_entry_that_is_not_a_fragment_is_replaced() {
    on_every_backend(async |cache: &Cache| {
        let templates = one("{% cache none, \"x\" %}x{% endcache %}");
        cache.set("x", &"another value", Lifetime::Forever).await;
        for _ in 0..2 {
            let page = templates.render(cache, "page.html", &Context::new()).await.unwrap();
            assert_eq!(page, "x");
        }
        assert_eq!(cache.stats()["cache"].hits, 1);
    })
    .await;
}

#[tokio::test]
async fn a_page_whose_keys_differ_in_each_run_is_finished() {
    let mut tera = Tera::default();
    let count = Mutex::new(0);
    tera.register_function("next", move |_: Kwargs, _: &State| {
        let mut count = count.lock().unwrap();
        *count += 1;
        *count
    });
    let source = "{% filter trim %}{% cache none, \"x\", next() %} x {% endcache %}{% endfilter %}";
    let templates = Templates::new(tera, [("page.html", source)]).unwrap();
    let page = templates.render(&memory(), "page.html", &Context::new()).await.unwrap();
    assert_eq!(page, "x");
}

#[tokio::test]
async fn none_and_the_empty_text_have_different_keys() {
    let cache = memory();
    let templates = one("{% cache none, \"x\", v %}{{ v is none }}{% endcache %}");
    for (value, expected) in [(Value::none(), "true"), (Value::from(""), "false")] {
        let page = templates.render(&cache, "page.html", &context("v", &value)).await.unwrap();
        assert_eq!(page, expected);
    }
    assert_ne!(fragment_key("x", [None::<u64>]), fragment_key("x", [""]));
}

#[derive(Serialize)]
struct Page {
    rows: Vec<Row>,
}

#[tokio::test]
async fn a_serialized_struct_is_rendered_like_a_context() {
    let templates = Templates::new(Trace::default().tera(), [("page.html", LIST)]).unwrap();
    let page = Page { rows: rows(3) };
    let render = async |cache: &Cache| templates.render_serialized(cache, "page.html", &page).await;
    assert_eq!(render(&Cache::null().build()).await.unwrap(), list(&page.rows));
    on_every_backend(async |cache: &Cache| {
        for _ in 0..2 {
            assert_eq!(render(cache).await.unwrap(), list(&page.rows));
        }
        assert_eq!(cache.stats()["cache"].hits, 3);
    })
    .await;
}

#[tokio::test]
async fn serializing_a_value_without_fields_is_an_error() {
    for cache in [Cache::null().build(), memory()] {
        assert!(
            one("{% cache none, \"x\" %}x{% endcache %}")
                .render_serialized(&cache, "page.html", &7)
                .await
                .is_err()
        );
    }
}

#[tokio::test]
async fn each_fragment_of_a_page_is_counted() {
    on_every_backend(async |cache: &Cache| {
        let templates = Templates::new(Trace::default().tera(), [("page.html", LIST)]).unwrap();
        templates.render(cache, "page.html", &context("rows", &rows(2))).await.unwrap();
        let second = cache.layer("second");
        templates.render(&second, "page.html", &context("rows", &rows(3))).await.unwrap();
        eventually("it is stored", async || cache.stats()["second"].fills == 1).await;
        let stats = cache.stats()["second"];
        assert_eq!((stats.hits, stats.misses), (2, 1));
        assert_eq!(stats.bytes_read, 2 * "<li>row 1</li>".len() as u64);
    })
    .await;
}

#[tokio::test]
async fn a_page_without_fragments_sends_no_request_to_the_server() {
    let server = Memcached::start(Kind::Plain);
    let cache = Cache::memcached(server.client(Protocol::Binary)).build();
    one("plain").render(&cache, "page.html", &Context::new()).await.unwrap();
    assert_eq!(server.stat("get_misses"), 0);
}

#[test]
fn a_tera_that_already_has_templates_is_refused() {
    let mut tera = Tera::default();
    tera.add_raw_template("early.html", "x").unwrap();
    let error = Templates::new(tera, [("page.html", "y")]).unwrap_err();
    assert!(error.to_string().contains("Tera already has \"early.html\""), "{error}");
}

#[tokio::test]
async fn a_safe_text_and_an_equal_unsafe_text_are_different_data() {
    let cache = memory();
    let templates = one("{% cache none, \"x\", of=v %}{{ v }}{% endcache %}");
    let mut shown = Vec::new();
    for value in [Value::safe_string("<b>"), Value::from("<b>")] {
        let mut context = Context::new();
        context.insert_value("v", value);
        shown.push(templates.render(&cache, "page.html", &context).await.unwrap());
    }
    assert_eq!(shown, ["<b>", "&lt;b&gt;"]);
}
