//! Finds the code in a template, as Tera's lexer does. Pure.
//!
//! The scan skips text, comments and `{% raw %}` sections. It ends early at code that Tera would
//! reject, because Tera reports that error itself when the template is added.

/// A piece of code: `{{ … }}` or `{% … %}`.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Code<'a> {
    /// The offset of the opening delimiter, in bytes.
    pub(super) start: usize,
    /// The offset behind the closing delimiter, in bytes.
    pub(super) end: usize,
    /// Whether it is `{% … %}`.
    pub(super) is_tag: bool,
    /// Whether it begins with `{%-` or `{{-`, which removes the white space before it.
    pub(super) trims_before: bool,
    /// Whether it ends with `-%}` or `-}}`, which removes the white space after it.
    pub(super) trims_after: bool,
    pub(super) tokens: Vec<Token<'a>>,
}

/// An identifier or number, a string with its quotes, or any other single character.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    /// Its offset in the template, in bytes.
    pub(super) at: usize,
}

impl<'a> Token<'a> {
    /// The offset behind it, in bytes.
    pub(super) fn end(&self) -> usize {
        self.at + self.text.len()
    }

    /// Returns the content of a string literal without escapes, and `None` for anything else.
    pub(super) fn as_string(&self) -> Option<&'a str> {
        let quote = self.text.chars().next().filter(|c| QUOTES.contains(c))?;
        self.text.strip_prefix(quote)?.strip_suffix(quote).filter(|text| !text.contains('\\'))
    }

    pub(super) fn is_number(&self) -> bool {
        self.text.starts_with(|c: char| c.is_ascii_digit())
    }

    pub(super) fn is_identifier(&self) -> bool {
        self.text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
    }
}

/// The characters that Tera's strings begin and end with.
const QUOTES: [char; 3] = ['"', '\'', '`'];

impl<'a> Code<'a> {
    /// Returns the text of the token at this index, or an empty text if there are fewer tokens.
    pub(super) fn text(&self, index: usize) -> &'a str {
        self.tokens.get(index).map_or("", |token| token.text)
    }
}

/// Returns all code of a template, and whether the scan reached the template's end.
pub(super) fn scan(source: &str) -> (Vec<Code<'_>>, bool) {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = next_delimiter(source, at) {
        let rest = &source[start..];
        let end = if let Some(comment) = rest.strip_prefix("{#") {
            comment.find("#}").map(|end| start + 2 + end + 2)
        } else if let Some(section) = raw_start(rest) {
            raw_end(rest, section).map(|end| start + end)
        } else {
            code(source, start).map(|code| {
                let end = code.end;
                found.push(code);
                end
            })
        };
        match end {
            Some(end) => at = end,
            None => return (found, false),
        }
    }
    (found, true)
}

/// Returns the offset of the next `{{`, `{%` or `{#`.
fn next_delimiter(source: &str, from: usize) -> Option<usize> {
    let braces = source[from..].match_indices('{');
    braces
        .map(|(at, _)| from + at)
        .find(|at| matches!(source.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#')))
}

/// Returns the length of the `{% raw %}` that `rest` begins with, or `None` if it begins with
/// other code.
fn raw_start(rest: &str) -> Option<usize> {
    Some(2 + bare_tag(rest.strip_prefix("{%")?, "raw")?)
}

/// Returns the offset behind the next `{% endraw %}`.
fn raw_end(rest: &str, mut at: usize) -> Option<usize> {
    loop {
        at += rest[at..].find("{%")? + 2;
        if let Some(length) = bare_tag(&rest[at..], "endraw") {
            return Some(at + length);
        }
    }
}

/// Returns the length of the rest of a tag, delimiter included, if the tag consists of `name`.
fn bare_tag(inside: &str, name: &str) -> Option<usize> {
    let blank = |c: char| c.is_ascii_whitespace();
    let inner = inside.strip_prefix('-').unwrap_or(inside).trim_start_matches(blank);
    let after_name = inner.strip_prefix(name)?.trim_start_matches(blank);
    let after = after_name.strip_prefix('-').unwrap_or(after_name).strip_prefix("%}")?;
    Some(inside.len() - after.len())
}

/// Returns the code that begins at `start`, or `None` if it does not end.
fn code(source: &str, start: usize) -> Option<Code<'_>> {
    let is_tag = source[start..].starts_with("{%");
    let closing = if is_tag { "%}" } else { "}}" };
    let mut at = start + 2;
    let trims_before = source[at..].starts_with('-');
    if trims_before {
        at += 1;
    }
    let mut tokens = Vec::new();
    loop {
        let blanks = &source[at..];
        let rest = blanks.trim_start_matches(|c: char| c.is_ascii_whitespace());
        at += blanks.len() - rest.len();
        let without_minus = rest.strip_prefix('-').unwrap_or(rest);
        if without_minus.starts_with(closing) {
            let trims_after = without_minus.len() < rest.len();
            let end = source.len() - without_minus.len() + closing.len();
            return Some(Code { start, end, is_tag, trims_before, trims_after, tokens });
        }
        let token = Token { text: &rest[..token_length(rest)?], at };
        at = token.end();
        tokens.push(token);
    }
}

/// Returns the length of the token that `rest` begins with, or `None` at the template's end and
/// for a string without an end.
fn token_length(rest: &str) -> Option<usize> {
    let first = rest.chars().next()?;
    if QUOTES.contains(&first) {
        return string_length(rest, first);
    }
    let in_identifier = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if in_identifier(first) {
        return Some(rest.find(|c| !in_identifier(c)).unwrap_or(rest.len()));
    }
    Some(first.len_utf8())
}

fn string_length(rest: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if is_escaped {
            is_escaped = false;
        } else if c == '\\' {
            is_escaped = true;
        } else if c == quote {
            return Some(at + c.len_utf8());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(source: &str) -> Vec<Vec<&str>> {
        scan(source).0.iter().map(|code| code.tokens.iter().map(|t| t.text).collect()).collect()
    }

    #[test]
    fn text_comments_and_raw_sections_are_not_code() {
        let source = "{ a } {# {{ x }} #}{% raw %}{% cache %}{%- endraw -%}{{ y }}{% if z %}";
        assert_eq!(tokens(source), [vec!["y"], vec!["if", "z"]]);
    }

    #[test]
    fn delimiters_and_quotes_inside_strings_are_text() {
        assert_eq!(
            tokens(r#"{% x "%}\"" '}}' `{%` %}{{ "}}" }}"#),
            [vec!["x", r#""%}\"""#, "'}}'", "`{%`"], vec![r#""}}""#]]
        );
    }

    #[test]
    fn white_space_control_differs_from_a_minus_sign() {
        let (found, _) = scan("{%- if a -1 -%}{{- a - }}");
        assert_eq!(found.len(), 2);
        assert!(found[0].trims_before && found[0].trims_after);
        assert!(found[1].trims_before && !found[1].trims_after);
        assert_eq!(found[0].tokens.last().map(|token| token.text), Some("1"));
    }

    #[test]
    fn code_without_an_end_ends_the_scan() {
        for source in ["{# a", "{{ a", "{% a '", "{% raw %}{% endra %}", "{%", "{{ a %} {% b "] {
            assert!(!scan(source).1, "{source}");
        }
        assert!(scan("a } b { c").1);
    }
}
