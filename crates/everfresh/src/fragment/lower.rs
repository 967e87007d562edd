//! Rewrites `{% cache %}` in terms of Tera's own tags. Pure.
//!
//! Tera has no custom tags. So before a template is added,
//!
//! ```text
//! {% cache 300, "row", task.id, of=task %}BODY{% endcache %}
//! ```
//!
//! becomes the following, with as many line breaks, so that the lines in Tera's errors stay right:
//!
//! ```text
//! {{ [SITE, 300, "row", task.id, task] | __fragment }}
//! {% if __fragment_missed() %}{% filter __fragment_store %}BODY{% endfilter %}{% endif %}
//! ```
//!
//! SITE is the number of the tag. For caches without storage there is a second form,
//! `{% if true %}BODY{% endif %}`. A template without the tag is not changed.

use std::{borrow::Cow, collections::BTreeSet};

use super::{
    arguments::TagArguments,
    scan::{Code, Token, scan},
};

/// The filter that returns a fragment or its placeholder. See [`renderer`](super::renderer).
pub(super) const LOOKUP: &str = "__fragment";
/// The function that returns whether the body must be rendered.
pub(super) const MISSED: &str = "__fragment_missed";
/// The filter that receives the rendered body.
pub(super) const STORE: &str = "__fragment_store";

/// A template without `{% cache %}`, and the facts about it that the rewriting has found.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct LoweredTemplate<'a> {
    pub(super) source: Cow<'a, str>,
    /// The form for caches without storage.
    pub(super) plain: Cow<'a, str>,
    /// The `{% cache %}` tags, in their order.
    pub(super) tags: Vec<CacheTag>,
    /// The templates that this one includes or extends. The empty name stands for a template
    /// that is not named by a string literal.
    pub(super) references: BTreeSet<String>,
    pub(super) components: Components,
    /// Whether output that may contain fragments becomes a value before it is shown, as in
    /// `{% filter %}`. Then placeholders cannot be replaced afterwards.
    pub(super) captures: bool,
    /// The lines of fragments that show a CSRF token, and do not name it among their arguments.
    pub(super) csrf_tokens: BTreeSet<usize>,
}

/// One `{% cache %}`.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct CacheTag {
    pub(super) line: usize,
    /// Whether its last argument is `of=VALUE`.
    pub(super) has_fingerprint: bool,
}

/// A template's use of Tera's components.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Components {
    pub(super) defined: bool,
    pub(super) used: bool,
    /// Whether the output of a component is used as a value, not only shown.
    pub(super) captured: bool,
}

/// An error in the use of `{% cache %}`.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct TagError {
    pub(super) line: usize,
    pub(super) message: String,
}

/// Rewrites a template. `first_site` is the number of its first `{% cache %}`.
pub(super) fn lower(source: &str, first_site: usize) -> Result<LoweredTemplate<'_>, TagError> {
    let (code, is_complete) = scan(source);
    let mut lowering = Lowering::new(source, first_site);
    for code in &code {
        lowering.note_csrf_token(code);
        if code.is_tag { lowering.tag(code)? } else { lowering.expression(&code.tokens) }
    }
    // In an incomplete template the end of a fragment may be missing for a reason that Tera
    // explains better.
    if is_complete {
        lowering.check_all_closed()?;
    }
    Ok(lowering.finish())
}

/// A tag that has not been closed yet.
#[derive(Debug)]
struct OpenTag {
    /// The first token of the tag that ends it.
    end: &'static str,
    kind: TagKind,
    /// Its offset in the template, in bytes.
    at: usize,
    names_csrf_token: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum TagKind {
    Cache,
    For,
    /// A tag that turns its content into a value, like `{% filter %}`.
    Capture,
    Other,
}

/// The state of rewriting one template.
struct Lowering<'a> {
    source: &'a str,
    output: String,
    plain: String,
    /// The part of `source` that has been copied to the outputs, in bytes.
    copied: usize,
    first_site: usize,
    /// The tags around the current position, the innermost last.
    open: Vec<OpenTag>,
    lowered: LoweredTemplate<'a>,
}

impl<'a> Lowering<'a> {
    fn new(source: &'a str, first_site: usize) -> Self {
        let lowered = LoweredTemplate {
            source: Cow::Borrowed(source),
            plain: Cow::Borrowed(source),
            tags: Vec::new(),
            references: BTreeSet::new(),
            components: Components::default(),
            captures: false,
            csrf_tokens: BTreeSet::new(),
        };
        let (output, plain) = (String::new(), String::new());
        Self { source, output, plain, copied: 0, first_site, open: Vec::new(), lowered }
    }

    fn tag(&mut self, code: &Code<'a>) -> Result<(), TagError> {
        match code.text(0) {
            "cache" => self.cache(code)?,
            "endcache" => self.end_cache(code)?,
            "set" | "set_global" => self.set(code)?,
            "block" => {
                self.refuse_in_body(code, "block")?;
                // Another template may override the block, with fragments in it.
                self.may_hold_fragments();
                self.open("endblock", TagKind::Other, code);
            }
            "include" | "extends" => {
                self.may_hold_fragments();
                let name = code.tokens.get(1).and_then(Token::as_string);
                // No template has the empty name, so the digest will cover all templates.
                self.lowered.references.insert(name.unwrap_or_default().to_owned());
            }
            "for" => self.open("endfor", TagKind::For, code),
            "else" => self.leave_loop(),
            // A loop inside the body may be left; only a loop around it must not.
            "break" | "continue" if self.innermost_scope() == Some(TagKind::Cache) => {
                self.refuse_in_body(code, code.text(0))?;
            }
            "if" => self.open("endif", TagKind::Other, code),
            "filter" => self.open("endfilter", TagKind::Capture, code),
            "component" => {
                self.lowered.components.defined = true;
                self.open("endcomponent", TagKind::Other, code);
            }
            "<" if code.text(1) == "/" => self.close("</"),
            // `{% <name …> %}` passes its content to the component as the value `body`.
            "<" => {
                self.lowered.components.used = true;
                self.may_hold_fragments();
                self.open("</", TagKind::Capture, code);
            }
            name => self.close(name),
        }

        // The first `<` of `{% <name …> %}` is handled above. In all other places of a tag a
        // component or `super()` is a value.
        let values = if code.text(0) == "<" { &code.tokens[1..] } else { &code.tokens[..] };
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
            // `super()` alone has three tokens and is shown as it is.
            self.lowered.captures |= tokens.len() > 3;
        }
    }

    /// Notes the innermost fragment if this code shows a CSRF token, which is that of one visitor.
    fn note_csrf_token(&mut self, code: &Code<'a>) {
        let mut fragments = self.open.iter().filter(|open| open.kind == TagKind::Cache);
        if names_csrf_token(code)
            && let Some(innermost) = fragments.clone().next_back()
            && !fragments.any(|fragment| fragment.names_csrf_token)
        {
            self.lowered.csrf_tokens.insert(self.line(innermost.at));
        }
    }

    /// Notes that fragments may appear at the current position: inside a capturing tag they
    /// become part of a value.
    fn may_hold_fragments(&mut self) {
        self.lowered.captures |= self.open.iter().any(|open| open.kind == TagKind::Capture);
    }

    fn open(&mut self, end: &'static str, kind: TagKind, code: &Code<'a>) {
        let names_csrf_token = names_csrf_token(code);
        self.open.push(OpenTag { end, kind, at: code.start, names_csrf_token });
    }

    /// Closes the innermost tag if `end` ends it. A mismatch is left for Tera to report.
    fn close(&mut self, end: &str) {
        self.open.pop_if(|open| open.end == end);
    }

    fn set(&mut self, code: &Code<'a>) -> Result<(), TagError> {
        let is_local = code.text(0) == "set" && self.innermost_scope() == Some(TagKind::For);
        if !is_local {
            self.refuse_in_body(code, code.text(0))?;
        }
        // `{% set x %}…{% endset %}`, not `{% set x = … %}`.
        if code.text(2) != "=" {
            self.open("endset", TagKind::Capture, code);
        }
        Ok(())
    }

    /// Returns the innermost loop or fragment, to which a variable that is set here belongs.
    fn innermost_scope(&self) -> Option<TagKind> {
        let mut kinds = self.open.iter().rev().map(|open| open.kind);
        kinds.find(|kind| matches!(kind, TagKind::Cache | TagKind::For))
    }

    /// Handles `{% else %}`: after that of a loop, the loop's scope has ended.
    fn leave_loop(&mut self) {
        if let Some(open) = self.open.last_mut().filter(|open| open.kind == TagKind::For) {
            open.kind = TagKind::Other;
        }
    }

    /// Returns an error if the tag is inside a fragment.
    fn refuse_in_body(&self, code: &Code<'a>, tag: &str) -> Result<(), TagError> {
        let reason = match tag {
            "block" => "another template could override the block under the same key",
            "break" | "continue" => "the loop would go on when the fragment comes from the cache",
            _ => "the variable would not be set when the fragment comes from the cache",
        };
        match self.innermost_cache() {
            None => Ok(()),
            Some(cache) => Err(self.error(
                code.start,
                format!(
                    "`{{% {tag} %}}` is not allowed inside the `{{% cache %}}` of line {}: \
                     {reason}",
                    self.line(cache.at)
                ),
            )),
        }
    }

    fn innermost_cache(&self) -> Option<&OpenTag> {
        self.open.iter().rev().find(|open| open.kind == TagKind::Cache)
    }

    fn cache(&mut self, code: &Code<'a>) -> Result<(), TagError> {
        let arguments = TagArguments::parse(&code.tokens[1..])
            .map_err(|message| self.error(code.start, message))?;
        self.may_hold_fragments();
        let site = self.first_site + self.lowered.tags.len();
        self.lowered.tags.push(CacheTag {
            line: self.line(code.start),
            has_fingerprint: arguments.has_fingerprint(),
        });
        let list = arguments.as_list(self.source);
        // White space control belongs to the outer edges of the lowered tags.
        let (before, after) = (minus_if(code.trims_before), minus_if(code.trims_after));
        let lowered = format!(
            "{{{{{before} [{site}, {list}] | {LOOKUP} }}}}{{% if {MISSED}() %}}{{% filter {STORE} "
        );
        let plain = format!("{{%{before} if true ");
        self.replace(code, &lowered, &plain, &format!("{after}%}}"));
        self.open("endcache", TagKind::Cache, code);
        Ok(())
    }

    fn end_cache(&mut self, code: &Code<'a>) -> Result<(), TagError> {
        if code.tokens.len() > 1 {
            return Err(self.error(code.start, "`{% endcache %}` takes no argument".to_owned()));
        }
        if self.open.pop_if(|open| open.kind == TagKind::Cache).is_none() {
            let problem = match self.open.last() {
                Some(open) => {
                    format!("comes before the end of the tag in line {}", self.line(open.at))
                }
                None => "has no `{% cache %}`".to_owned(),
            };
            return Err(self.error(code.start, format!("`{{% endcache %}}` {problem}")));
        }
        let (before, after) = (minus_if(code.trims_before), minus_if(code.trims_after));
        let lowered = format!("{{%{before} endfilter %}}{{% endif ");
        let plain = format!("{{%{before} endif ");
        self.replace(code, &lowered, &plain, &format!("{after}%}}"));
        Ok(())
    }

    /// Writes `lowered` or `plain`, and then `end`, in place of `code`. Line breaks are added
    /// before `end`, so that all following lines keep their numbers.
    fn replace(&mut self, code: &Code<'a>, lowered: &str, plain: &str, end: &str) {
        let lines = |text: &str| text.matches('\n').count();
        let before = &self.source[self.copied..code.start];
        for (output, text) in [(&mut self.output, lowered), (&mut self.plain, plain)] {
            let missing = lines(&self.source[code.start..code.end]).saturating_sub(lines(text));
            output.push_str(before);
            output.push_str(text);
            output.extend(std::iter::repeat_n('\n', missing));
            output.push_str(end);
        }
        self.copied = code.end;
    }

    fn check_all_closed(&self) -> Result<(), TagError> {
        match self.innermost_cache() {
            None => Ok(()),
            Some(cache) => {
                Err(self.error(cache.at, "`{% cache %}` has no `{% endcache %}`".to_owned()))
            }
        }
    }

    fn finish(mut self) -> LoweredTemplate<'a> {
        // Without `{% cache %}` the source stays borrowed.
        if self.copied > 0 {
            let rest = &self.source[self.copied..];
            self.lowered.source = Cow::Owned(self.output + rest);
            self.lowered.plain = Cow::Owned(self.plain + rest);
        }
        self.lowered
    }

    fn line(&self, at: usize) -> usize {
        1 + self.source[..at].matches('\n').count()
    }

    fn error(&self, at: usize, message: String) -> TagError {
        TagError { line: self.line(at), message }
    }
}

fn names_csrf_token(code: &Code<'_>) -> bool {
    let names = code.tokens.iter().filter(|token| token.is_identifier());
    names.map(|token| token.text.to_ascii_lowercase()).any(|name| name.contains("csrf"))
}

fn minus_if(trims: bool) -> &'static str {
    if trims { "-" } else { "" }
}

fn calls_super(tokens: &[Token<'_>]) -> bool {
    tokens.iter().any(|token| token.text == "super")
}

/// Returns whether the tokens contain `<name … />`, and not only the comparison `<`.
fn has_component(tokens: &[Token<'_>]) -> bool {
    let mut pairs = tokens.windows(2);
    pairs.any(|pair| pair[0].text == "<" && pair[1].is_identifier())
        && tokens.windows(2).any(|pair| pair[0].text == "/" && pair[1].text == ">")
}

/// Returns whether an expression consists of one component, so that its output is shown unchanged.
fn is_one_component(tokens: &[Token<'_>]) -> bool {
    // A component in braces is an argument of the outer one.
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
    fn the_tag_becomes_a_lookup_and_a_stored_body() {
        assert_eq!(
            lowered("{% cache 300, \"row\", id, of=task %}x{% endcache %}"),
            "{{ [7, 300, \"row\", id, task] | __fragment }}{% if __fragment_missed() %}\
             {% filter __fragment_store %}x{% endfilter %}{% endif %}"
        );
    }

    #[test]
    fn the_plain_form_contains_no_lookup() {
        let source = "a {%- cache 300, \"row\", id, of=task -%} x {%- endcache -%} b";
        let plain = lower(source, 7).unwrap().plain;
        assert_eq!(plain, "a {%- if true -%} x {%- endif -%} b");
    }

    #[test]
    fn white_space_control_stays_at_the_outer_edges() {
        assert_eq!(
            lowered("a {%- cache 1, \"n\" -%} x {%- endcache -%} b"),
            "a {{- [7, 1, \"n\"] | __fragment }}{% if __fragment_missed() %}\
             {% filter __fragment_store -%} x {%- endfilter %}{% endif -%} b"
        );
    }

    #[test]
    fn lines_keep_their_numbers() {
        let source = "{%\ncache\n1,\n\"n\"\n,of\n=\n2\n%}\nx\n{%\nendcache\n%}\ny";
        let LoweredTemplate { source: lowered, plain, .. } = lower(source, 7).unwrap();
        let line_of =
            |text: &str, part: &str| text[..text.find(part).unwrap()].matches('\n').count();
        for part in ["\nx", "\ny"] {
            assert_eq!(line_of(&lowered, part), line_of(source, part));
            assert_eq!(line_of(&plain, part), line_of(source, part));
        }
    }

    #[test]
    fn commas_and_equals_signs_inside_values_do_not_separate_arguments() {
        let source =
            "{% cache 1, \"a,b\", f(x=1, y=2), [1, of], a == b, of=c == d %}{% endcache %}";
        let lowered = lower(source, 0).unwrap();
        assert!(lowered.tags[0].has_fingerprint);
        assert!(lowered.source.contains("[0, 1, \"a,b\", f(x=1, y=2), [1, of], a == b, c == d] |"));
    }

    #[test]
    fn the_tag_is_ignored_in_comments_raw_sections_strings_and_text() {
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

    /// The folder of a dependency's sources.
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
    fn teras_own_templates_are_not_changed() {
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
        fn a_template_without_the_tag_is_not_changed(
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
        fn no_text_causes_a_panic(
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
