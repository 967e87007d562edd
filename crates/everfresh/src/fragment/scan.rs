//! Finds the code in a template, as Tera's lexer does. Pure.
//!
//! Text, comments and `{% raw %}` sections are passed over. What Tera would not take ends the scan:
//! Tera itself says why.

/// `{{ … }}` or `{% … %}`.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Code<'a> {
    /// Where its first and behind its last delimiter is, in bytes.
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) is_tag: bool,
    /// Whether its delimiters take away white space: `{%-` and `-%}`.
    pub(super) trims_before: bool,
    pub(super) trims_after: bool,
    pub(super) tokens: Vec<Token<'a>>,
}

/// A word, a string with its quotes, or any other character.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
}

impl<'a> Token<'a> {
    pub(super) fn end(&self) -> usize {
        self.at + self.text.len()
    }

    /// What a string holds, as long as nothing in it is escaped.
    pub(super) fn as_string(&self) -> Option<&'a str> {
        let quote = self.text.chars().next().filter(|c| QUOTES.contains(c))?;
        self.text.strip_prefix(quote)?.strip_suffix(quote).filter(|text| !text.contains('\\'))
    }

    pub(super) fn is_word(&self) -> bool {
        self.text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
    }
}

const QUOTES: [char; 3] = ['"', '\'', '`'];

impl<'a> Code<'a> {
    pub(super) fn word(&self, at: usize) -> &'a str {
        self.tokens.get(at).map_or("", |token| token.text)
    }
}

/// All code of a template, and whether Tera would read it to its end.
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

fn next_delimiter(source: &str, from: usize) -> Option<usize> {
    let openings = source[from..].match_indices('{');
    openings
        .map(|(at, _)| from + at)
        .find(|at| matches!(source.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#')))
}

/// Behind the `{% raw %}` that `rest` begins with.
fn raw_start(rest: &str) -> Option<usize> {
    Some(2 + tag_named(rest.strip_prefix("{%")?, "raw")?)
}

/// Behind the next `{% endraw %}`.
fn raw_end(rest: &str, mut at: usize) -> Option<usize> {
    loop {
        at += rest[at..].find("{%")? + 2;
        if let Some(length) = tag_named(&rest[at..], "endraw") {
            return Some(at + length);
        }
    }
}

/// How long the rest of a tag is that holds just this word.
fn tag_named(inside: &str, name: &str) -> Option<usize> {
    let blank = |c: char| c.is_ascii_whitespace();
    let rest = inside.strip_prefix('-').unwrap_or(inside).trim_start_matches(blank);
    let rest = rest.strip_prefix(name)?.trim_start_matches(blank);
    let rest = rest.strip_prefix('-').unwrap_or(rest).strip_prefix("%}")?;
    Some(inside.len() - rest.len())
}

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
        let rest = &source[at..];
        at += rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_whitespace()).len();
        let rest = &source[at..];
        let unspaced = rest.strip_prefix('-').unwrap_or(rest);
        if unspaced.starts_with(closing) {
            let trims_after = unspaced.len() < rest.len();
            let end = source.len() - unspaced.len() + closing.len();
            return Some(Code { start, end, is_tag, trims_before, trims_after, tokens });
        }
        let token = Token { text: &rest[..token_length(rest)?], at };
        at = token.end();
        tokens.push(token);
    }
}

fn token_length(rest: &str) -> Option<usize> {
    let first = rest.chars().next()?;
    if QUOTES.contains(&first) {
        return string_length(rest, first);
    }
    let in_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if in_word(first) {
        return Some(rest.find(|c| !in_word(c)).unwrap_or(rest.len()));
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

    fn words(source: &str) -> Vec<Vec<&str>> {
        scan(source).0.iter().map(|code| code.tokens.iter().map(|t| t.text).collect()).collect()
    }

    #[test]
    fn code_is_told_from_text_comments_and_raw_sections() {
        let source = "{ a } {# {{ x }} #}{% raw %}{% cache %}{%- endraw -%}{{ y }}{% if z %}";
        assert_eq!(words(source), [vec!["y"], vec!["if", "z"]]);
    }

    #[test]
    fn delimiters_and_quotes_within_strings_are_text() {
        assert_eq!(
            words(r#"{% x "%}\"" '}}' `{%` %}{{ "}}" }}"#),
            [vec!["x", r#""%}\"""#, "'}}'", "`{%`"], vec![r#""}}""#]]
        );
    }

    #[test]
    fn white_space_control_is_told_from_a_minus() {
        let (found, _) = scan("{%- if a -1 -%}{{- a - }}");
        assert_eq!(found.len(), 2);
        assert!(found[0].trims_before && found[0].trims_after);
        assert!(found[1].trims_before && !found[1].trims_after);
        assert_eq!(found[0].tokens.last().map(|token| token.text), Some("1"));
    }

    #[test]
    fn what_does_not_end_ends_the_scan() {
        for source in ["{# a", "{{ a", "{% a '", "{% raw %}{% endra %}", "{%", "{{ a %} {% b "] {
            assert!(!scan(source).1, "{source}");
        }
        assert!(scan("a } b { c").1);
    }
}
