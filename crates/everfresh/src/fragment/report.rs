//! Tera's errors, with the lines of templates as their authors wrote them. Pure.
//!
//! Tera quotes the line in which an error is, and underlines a part of it:
//!
//! ```text
//! error: Variable `nam` is not defined
//!  --> row.html:1:81
//!   |
//! 1 | {{ [0, none, "row", id] | __fragment }}{% if … %}{{ nam }}{% endfilter %}{% endif %}
//!   |                                                     ^^^
//! ```
//!
//! In a template with `{% cache %}` that is a line of the lowered form, which no author knows.

use std::{collections::HashMap, sync::Arc};

use tera::{Error, ErrorKind};

/// One template with `{% cache %}`.
#[derive(Debug)]
struct Written {
    source: String,
    /// The forms that Tera knows.
    lowered: [String; 2],
}

/// The templates with `{% cache %}`, by name. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub(super) struct WrittenTemplates(Arc<HashMap<String, Written>>);

impl WrittenTemplates {
    /// Takes the names and sources of templates, and the forms that Tera knows.
    pub(super) fn new<'a>(
        templates: impl Iterator<Item = (&'a str, &'a str, [&'a str; 2])>,
    ) -> Self {
        let is_lowered = |(_, source, lowered): &(&str, &str, [&str; 2])| lowered[0] != *source;
        let written = templates.filter(is_lowered).map(|(name, source, lowered)| {
            let lowered = lowered.map(str::to_owned);
            (name.to_owned(), Written { source: source.to_owned(), lowered })
        });
        Self(Arc::new(written.collect()))
    }

    /// Replaces the lines that an error quotes.
    pub(super) fn restore(&self, error: Error) -> Error {
        let quotes =
            matches!(error.kind(), ErrorKind::RenderingError(_) | ErrorKind::SyntaxError(_));
        if !quotes || self.0.is_empty() {
            return error;
        }
        Error::message(self.restore_text(&error.to_string()))
    }

    fn restore_text(&self, text: &str) -> String {
        let mut restored: Vec<String> = Vec::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            // The frame of a quotation: an empty line, the line itself, and its underline.
            let quotation: Vec<_> = lines.clone().take(3).collect();
            let quotation = match (self.place(line), &quotation[..]) {
                (Some((place, written, number)), [frame, quoted, underline]) => {
                    written.quote(place, frame, number, quoted, underline)
                }
                _ => None,
            };
            match quotation {
                Some(quotation) => {
                    restored.extend(quotation);
                    lines.nth(2);
                }
                None => restored.push(line.to_owned()),
            }
        }
        restored.join("\n")
    }

    /// Splits ` --> NAME:LINE:COLUMN`, with any text before it: returns it without the column, the template,
    /// and the number of the line.
    fn place<'t>(&self, line: &'t str) -> Option<(&'t str, &Written, usize)> {
        let (place, _column) = line.rsplit_once(':')?;
        let (start, number) = place.rsplit_once(':')?;
        // A name may contain blanks, so the longest one that is known is meant.
        let mut names = start.match_indices(' ').map(|(at, _)| &start[at + 1..]);
        let written = names.find_map(|name| self.0.get(name))?;
        Some((place, written, number.parse().ok()?))
    }
}

impl Written {
    /// Quotes a line as it was written, given Tera's quotation of it, and underlines the same part, or
    /// nothing if that part is not in the written line. Returns `None` if this is not a quotation, or the line
    /// was not lowered.
    fn quote(
        &self,
        place: &str,
        frame: &str,
        number: usize,
        quoted: &str,
        underline: &str,
    ) -> Option<Vec<String>> {
        let written = self.source.lines().nth(number.checked_sub(1)?)?;
        let margin = format!("{number} | ");
        let lowered = quoted.strip_prefix(&margin)?;
        let is_known = |form: &String| form.lines().nth(number - 1) == Some(lowered);
        if lowered == written || !self.lowered.iter().any(is_known) {
            return None;
        }
        let quoted = format!("{margin}{written}");
        let (margin, marks) = underline.split_at_checked(margin.len())?;
        let start = marks.chars().take_while(|mark| *mark != '^').count();
        let width = marks.chars().filter(|mark| *mark == '^').count();
        let part: String = lowered.chars().skip(start).take(width).collect();
        let lowered_before: Vec<_> = lowered.chars().take(start).collect();
        let lowered_after = || lowered.chars().skip(start + width);
        // Of several places, the one with the most equal text around it.
        let places = written.match_indices(&part).map(|(at, part)| {
            let (before, after) = (&written[..at], &written[at + part.len()..]);
            let equal = common(before.chars().rev(), lowered_before.iter().rev().copied())
                + common(after.chars(), lowered_after());
            (equal, before)
        });
        Some(match places.max_by_key(|(equal, _)| *equal) {
            Some((_, before)) => {
                let indent: String =
                    before.chars().map(|c| if c == '\t' { c } else { ' ' }).collect();
                let column = before.chars().count() + 1;
                let underline = format!("{margin}{indent}{}", "^".repeat(width));
                vec![format!("{place}:{column}"), frame.to_owned(), quoted, underline]
            }
            None => vec![place.to_owned(), frame.to_owned(), quoted],
        })
    }
}

/// The number of characters that two texts have in common at their beginning.
fn common(one: impl Iterator<Item = char>, other: impl Iterator<Item = char>) -> usize {
    one.zip(other).take_while(|(one, other)| one == other).count()
}
