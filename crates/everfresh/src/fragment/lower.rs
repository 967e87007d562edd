//! Puts `{% cache %}` into Tera's own language. Pure.
//!
//! Tera has no tags of others' making. So before a template is added,
//!
//! ```text
//! {% cache 300, "row", task.id, of=task %}BODY{% endcache %}
//! ```
//!
//! becomes, all in the same lines so that the positions of errors stay true,
//!
//! ```text
//! {{ [SITE, 300, "row", task.id, task] | __fragment }}
//! {% if __fragment_missed() %}{% filter __fragment_store %}BODY{% endfilter %}{% endif %}
//! ```
//!
//! where SITE is the number of the tag. Where nothing is kept it becomes `{% if true %}BODY{% endif %}`.
//! A template without the tag stays as it is.

use std::{borrow::Cow, collections::BTreeSet};

use super::scan::{Code, Token, scan};

/// The names that lowered templates call. What they do is in `pass`.
pub(super) const LOOKUP: &str = "__fragment";
pub(super) const MISSED: &str = "__fragment_missed";
pub(super) const STORE: &str = "__fragment_store";

/// A template without the tag, and what has been learned on the way.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Lowered<'a> {
    pub(super) source: Cow<'a, str>,
    /// The same for where nothing is kept.
    pub(super) plain: Cow<'a, str>,
    /// The tags, in their order.
    pub(super) tags: Vec<Tag>,
    /// The templates that this one includes or extends.
    pub(super) references: BTreeSet<String>,
    pub(super) components: Components,
    /// Whether a part of it that may hold fragments is kept as a value before it is shown.
    pub(super) captures: bool,
}

/// One `{% cache %}`.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Tag {
    pub(super) line: usize,
    /// Whether its last argument is `of=`.
    pub(super) has_fingerprint: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Components {
    pub(super) defined: bool,
    pub(super) used: bool,
    /// Whether one is used as a value rather than shown.
    pub(super) captured: bool,
}

/// What is wrong with a tag.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) message: String,
}

/// `first_site` is the number of the template's first tag.
pub(super) fn lower(source: &str, first_site: usize) -> Result<Lowered<'_>, Fault> {
    let (code, is_whole) = scan(source);
    let mut lowering = Lowering::new(source, first_site);
    for code in &code {
        if code.is_tag { lowering.tag(code)? } else { lowering.expression(&code.tokens) }
    }
    if is_whole {
        lowering.all_closed()?;
    }
    Ok(lowering.finish())
}

/// What has been opened and not closed.
#[derive(Debug)]
struct Open {
    /// The word that closes it.
    end: &'static str,
    kind: Kind,
    at: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Cache,
    For,
    /// Its content becomes a value.
    Capture,
    Other,
}

struct Lowering<'a> {
    source: &'a str,
    output: String,
    plain: String,
    /// How much of the source has been put out.
    done: usize,
    first_site: usize,
    open: Vec<Open>,
    lowered: Lowered<'a>,
}

impl<'a> Lowering<'a> {
    fn new(source: &'a str, first_site: usize) -> Self {
        let lowered = Lowered {
            source: Cow::Borrowed(source),
            plain: Cow::Borrowed(source),
            tags: Vec::new(),
            references: BTreeSet::new(),
            components: Components::default(),
            captures: false,
        };
        let (output, plain) = (String::new(), String::new());
        Self { source, output, plain, done: 0, first_site, open: Vec::new(), lowered }
    }

    fn tag(&mut self, code: &Code<'a>) -> Result<(), Fault> {
        match code.word(0) {
            "cache" => self.cache(code)?,
            "endcache" => self.end_cache(code)?,
            "set" | "set_global" => self.set(code)?,
            "block" => {
                self.refuse_in_body(code, "block")?;
                self.may_hold_fragments();
                self.open("endblock", Kind::Other, code);
            }
            "include" | "extends" => {
                self.may_hold_fragments();
                let name = code.tokens.get(1).and_then(Token::as_string);
                // One that cannot be told is no template's name: it stands for all.
                self.lowered.references.insert(name.unwrap_or_default().to_owned());
            }
            "for" => self.open("endfor", Kind::For, code),
            "else" => self.leave_loop(),
            "break" | "continue" if self.innermost_scope() == Some(Kind::Cache) => {
                self.refuse_in_body(code, code.word(0))?;
            }
            "if" => self.open("endif", Kind::Other, code),
            "filter" => self.open("endfilter", Kind::Capture, code),
            "component" => {
                self.lowered.components.defined = true;
                self.open("endcomponent", Kind::Other, code);
            }
            "<" if code.word(1) == "/" => self.close("</"),
            "<" => {
                self.lowered.components.used = true;
                self.may_hold_fragments();
                self.open("</", Kind::Capture, code);
            }
            word => self.close(word),
        }
        // The tag that opens a component's body begins with its name.
        let values = if code.word(0) == "<" { &code.tokens[1..] } else { &code.tokens[..] };
        if has_component(values) {
            self.lowered.components.used = true;
            self.lowered.components.captured = true;
        }
        self.lowered.captures |= calls_super(values);
        Ok(())
    }

    fn expression(&mut self, tokens: &[Token<'a>]) {
        if has_component(tokens) {
            self.may_hold_fragments();
            self.lowered.components.used = true;
            self.lowered.components.captured |= !is_one_component(tokens);
        }
        if calls_super(tokens) {
            self.may_hold_fragments();
            // More than `super()`.
            self.lowered.captures |= tokens.len() > 3;
        }
    }

    /// Called where fragments may come from.
    fn may_hold_fragments(&mut self) {
        self.lowered.captures |= self.open.iter().any(|open| open.kind == Kind::Capture);
    }

    fn open(&mut self, end: &'static str, kind: Kind, code: &Code<'a>) {
        self.open.push(Open { end, kind, at: code.start });
    }

    /// What closes something else than was opened last is left for Tera to complain of.
    fn close(&mut self, word: &str) {
        self.open.pop_if(|open| open.end == word);
    }

    fn set(&mut self, code: &Code<'a>) -> Result<(), Fault> {
        let is_local = code.word(0) == "set" && self.innermost_scope() == Some(Kind::For);
        if !is_local {
            self.refuse_in_body(code, code.word(0))?;
        }
        if code.word(2) != "=" {
            self.open("endset", Kind::Capture, code);
        }
        Ok(())
    }

    /// The loop or the fragment that a variable set here belongs to.
    fn innermost_scope(&self) -> Option<Kind> {
        let mut kinds = self.open.iter().rev().map(|open| open.kind);
        kinds.find(|kind| matches!(kind, Kind::Cache | Kind::For))
    }

    /// What comes behind the `{% else %}` of a loop is no longer in it.
    fn leave_loop(&mut self) {
        if let Some(open) = self.open.last_mut().filter(|open| open.kind == Kind::For) {
            open.kind = Kind::Other;
        }
    }

    fn refuse_in_body(&self, code: &Code<'a>, tag: &str) -> Result<(), Fault> {
        let why = match tag {
            "block" => "another template could change it under the same key",
            "break" | "continue" => "the loop would go on when the fragment comes from the cache",
            _ => "it would not be set when the fragment comes from the cache",
        };
        match self.open.iter().rev().find(|open| open.kind == Kind::Cache) {
            None => Ok(()),
            Some(cache) => Err(self.fault(
                code.start,
                format!(
                    "`{{% {tag} %}}` cannot be in the `{{% cache %}}` of line {}: {why}",
                    self.line(cache.at)
                ),
            )),
        }
    }

    fn cache(&mut self, code: &Code<'a>) -> Result<(), Fault> {
        let arguments = Arguments::parse(&code.tokens[1..])
            .map_err(|message| self.fault(code.start, message))?;
        self.may_hold_fragments();
        let site = self.first_site + self.lowered.tags.len();
        self.lowered
            .tags
            .push(Tag { line: self.line(code.start), has_fingerprint: arguments.of.is_some() });
        let list = arguments.list(self.source);
        let (before, after) = (trim(code.trims_before), trim(code.trims_after));
        let lowered = format!(
            "{{{{{before} [{site}, {list}] | {LOOKUP} }}}}{{% if {MISSED}() %}}{{% filter {STORE} "
        );
        let plain = format!("{{%{before} if true ");
        self.replace(code, &lowered, &plain, &format!("{after}%}}"));
        self.open("endcache", Kind::Cache, code);
        Ok(())
    }

    fn end_cache(&mut self, code: &Code<'a>) -> Result<(), Fault> {
        if code.tokens.len() > 1 {
            return Err(self.fault(code.start, "`{% endcache %}` takes no argument".to_owned()));
        }
        if self.open.pop_if(|open| open.kind == Kind::Cache).is_none() {
            let what = match self.open.last() {
                Some(open) => {
                    format!("comes before the end of what line {} opens", self.line(open.at))
                }
                None => "closes nothing".to_owned(),
            };
            return Err(self.fault(code.start, format!("`{{% endcache %}}` {what}")));
        }
        let (before, after) = (trim(code.trims_before), trim(code.trims_after));
        let lowered = format!("{{%{before} endfilter %}}{{% endif ");
        let plain = format!("{{%{before} endif ");
        self.replace(code, &lowered, &plain, &format!("{after}%}}"));
        Ok(())
    }

    /// Puts `lowered` and `plain` where `code` stands, in as many lines: what they lack comes before
    /// `end`.
    fn replace(&mut self, code: &Code<'a>, lowered: &str, plain: &str, end: &str) {
        let lines = |text: &str| text.matches('\n').count();
        let before = &self.source[self.done..code.start];
        for (output, text) in [(&mut self.output, lowered), (&mut self.plain, plain)] {
            let missing = lines(&self.source[code.start..code.end]).saturating_sub(lines(text));
            output.push_str(before);
            output.push_str(text);
            output.extend(std::iter::repeat_n('\n', missing));
            output.push_str(end);
        }
        self.done = code.end;
    }

    fn all_closed(&self) -> Result<(), Fault> {
        match self.open.iter().rev().find(|open| open.kind == Kind::Cache) {
            None => Ok(()),
            Some(open) => {
                Err(self.fault(open.at, "`{% cache %}` has no `{% endcache %}`".to_owned()))
            }
        }
    }

    fn finish(mut self) -> Lowered<'a> {
        if self.done > 0 {
            let rest = &self.source[self.done..];
            self.lowered.source = Cow::Owned(self.output + rest);
            self.lowered.plain = Cow::Owned(self.plain + rest);
        }
        self.lowered
    }

    fn line(&self, at: usize) -> usize {
        1 + self.source[..at].matches('\n').count()
    }

    fn fault(&self, at: usize, message: String) -> Fault {
        Fault { line: self.line(at), message }
    }
}

fn trim(trims: bool) -> &'static str {
    if trims { "-" } else { "" }
}

fn calls_super(tokens: &[Token<'_>]) -> bool {
    tokens.iter().any(|token| token.text == "super")
}

/// Whether there is a `<name … />`, and not just a comparison.
fn has_component(tokens: &[Token<'_>]) -> bool {
    let mut pairs = tokens.windows(2);
    pairs.any(|pair| pair[0].text == "<" && pair[1].is_word())
        && tokens.windows(2).any(|pair| pair[0].text == "/" && pair[1].text == ">")
}

/// Whether an expression is a call of one component and no more.
fn is_one_component(tokens: &[Token<'_>]) -> bool {
    let mut depth = 0;
    let first_end = tokens.windows(2).position(|pair| {
        match pair[0].text {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        depth == 0 && pair[0].text == "/" && pair[1].text == ">"
    });
    tokens.first().is_some_and(|token| token.text == "<")
        && first_end == Some(tokens.len() - 2)
        && !has_component(&tokens[1..])
        && !calls_super(tokens)
}

/// What a tag was given.
struct Arguments<'t, 'a> {
    all: &'t [Token<'a>],
    /// The words `of` and `=`.
    of: Option<&'t [Token<'a>]>,
}

impl<'t, 'a> Arguments<'t, 'a> {
    fn parse(all: &'t [Token<'a>]) -> Result<Self, String> {
        let groups = split_at_commas(all);
        let is_named = |group: &[Token<'_>]| {
            group.len() > 1
                && group[0].is_word()
                && group[1].text == "="
                && group.get(2).is_none_or(|t| t.text != "=")
        };
        let named = groups.iter().position(|group| is_named(group)).unwrap_or(groups.len());
        if groups.iter().any(|group| group.is_empty()) || named < 2 {
            return Err(USAGE.to_owned());
        }
        let of = match &groups[named..] {
            [] => None,
            [group] if group[0].text == "of" && group.len() > 2 => Some(&group[..2]),
            _ => {
                return Err(format!(
                    "the only argument with a name is `of`, and the last: {USAGE}"
                ));
            }
        };
        Ok(Self { all, of })
    }

    /// The arguments as they were written, without the words `of =`.
    fn list(&self, source: &str) -> String {
        let text = |from: usize, to: usize| &source[from..to];
        let (Some(first), Some(last)) = (self.all.first(), self.all.last()) else {
            return String::new();
        };
        match self.of {
            None => text(first.at, last.end()).to_owned(),
            Some(of) => {
                let (name, equals) = (of[0], of[1]);
                [
                    text(first.at, name.at),
                    text(name.end(), equals.at),
                    text(equals.end(), last.end()),
                ]
                .concat()
            }
        }
    }
}

const USAGE: &str =
    "write `{% cache TIMEOUT, NAME, VARY…, of=VALUE %}`; VARY and `of` may be left out";

fn split_at_commas<'t, 'a>(tokens: &'t [Token<'a>]) -> Vec<&'t [Token<'a>]> {
    let mut depth = 0;
    tokens
        .split(|token| {
            match token.text {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                _ => {}
            }
            depth == 0 && token.text == ","
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
        process::Command,
    };

    use proptest::prelude::*;

    use super::*;

    fn lowered(source: &str) -> String {
        lower(source, 7).unwrap().source.into_owned()
    }

    #[test]
    fn the_tag_becomes_a_lookup_and_a_body_that_is_kept() {
        assert_eq!(
            lowered("{% cache 300, \"row\", id, of=task %}x{% endcache %}"),
            "{{ [7, 300, \"row\", id, task] | __fragment }}{% if __fragment_missed() %}\
             {% filter __fragment_store %}x{% endfilter %}{% endif %}"
        );
    }

    #[test]
    fn where_nothing_is_kept_nothing_is_looked_up() {
        let source = "a {%- cache 300, \"row\", id, of=task -%} x {%- endcache -%} b";
        let plain = lower(source, 7).unwrap().plain;
        assert_eq!(plain, "a {%- if true -%} x {%- endif -%} b");
    }

    #[test]
    fn white_space_control_stays_at_the_edges() {
        assert_eq!(
            lowered("a {%- cache 1, \"n\" -%} x {%- endcache -%} b"),
            "a {{- [7, 1, \"n\"] | __fragment }}{% if __fragment_missed() %}\
             {% filter __fragment_store -%} x {%- endfilter %}{% endif -%} b"
        );
    }

    #[test]
    fn lines_stay_where_they_are() {
        let source = "{%\ncache\n1,\n\"n\"\n,of\n=\n2\n%}\nx\n{%\nendcache\n%}\ny";
        let Lowered { source: lowered, plain, .. } = lower(source, 7).unwrap();
        let line_of =
            |text: &str, what: &str| text[..text.find(what).unwrap()].matches('\n').count();
        for what in ["\nx", "\ny"] {
            assert_eq!(line_of(&lowered, what), line_of(source, what));
            assert_eq!(line_of(&plain, what), line_of(source, what));
        }
    }

    #[test]
    fn commas_and_equals_signs_within_values_are_theirs() {
        let source =
            "{% cache 1, \"a,b\", f(x=1, y=2), [1, of], a == b, of=c == d %}{% endcache %}";
        let lowered = lower(source, 0).unwrap();
        assert!(lowered.tags[0].has_fingerprint);
        assert!(lowered.source.contains("[0, 1, \"a,b\", f(x=1, y=2), [1, of], a == b, c == d] |"));
    }

    #[test]
    fn the_tag_in_comments_raw_sections_strings_and_text_is_none() {
        for source in [
            "{# {% cache 1, \"a\" %} #}",
            "{% raw %}{% cache 1, \"a\" %}{% endraw %}",
            "{{ \"{% cache 1, 2 %}\" }}",
            "{ % cache %}",
            "{{ cache }} {% set cache = 1 %}",
        ] {
            let lowered = lower(source, 0).unwrap();
            assert_eq!((&*lowered.source, &*lowered.plain), (source, source));
        }
    }

    /// What the packages of this build's dependencies hold.
    fn folder_of(package: &str) -> PathBuf {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--all-features", "--manifest-path"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let end = format!("/{package}/Cargo.toml");
        let paths = text.split('"').filter(|text| text.ends_with("/Cargo.toml"));
        let found = paths.map(Path::new).find(|path| {
            let folder = path.parent().and_then(Path::file_name).unwrap().to_string_lossy();
            folder.starts_with(&format!("{package}-2.")) || path.ends_with(&end)
        });
        found.and_then(Path::parent).unwrap().to_owned()
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn teras_own_templates_stay_as_they_are() {
        let folder = folder_of("tera");
        let folders = ["src/snapshot_tests", "examples", "benches"];
        let texts = folders
            .iter()
            .flat_map(|name| files(&folder.join(name)))
            .filter(|path| {
                !matches!(path.extension().and_then(|e| e.to_str()), Some("rs" | "snap"))
            })
            .filter_map(|path| fs::read_to_string(path).ok());
        let mut number = 0;
        for text in texts {
            assert_eq!(lower(&text, 0).unwrap().source, Cow::Borrowed(&*text));
            number += 1;
        }
        assert!(number > 100, "{number} templates in {}", folder.display());
    }

    proptest! {
        #[test]
        fn a_template_without_the_tag_stays_as_it_is(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "{{", "}}", "{%", "%}", "{#", "#}", "-", " ", "\n", "\"", "'", "\\", "raw",
                    "endraw", "if x", "endif", "for a in b", "filter f", "set a", "= 1", "cach",
                    "super()", "<c/>", "{", "}", ",", "é",
                ]),
                0..40,
            ),
        ) {
            let source = parts.concat();
            prop_assert_eq!(lower(&source, 0).unwrap().source, Cow::Borrowed(&*source));
        }

        #[test]
        fn no_text_is_too_odd(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "{{", "}}", "{%", "%}", "{#", "#}", "-", " ", "\n", "\"", "`", "\\", "raw",
                    "cache", "endcache", "cache 1, \"a\"", "of", "=", ",", "(", ")", "é", "block b",
                ]),
                0..40,
            ),
        ) {
            let _ = lower(&parts.concat(), 0);
        }
    }
}
