//! Marks: what stands in a page for fragments that have been asked for, until they are put there.

use tera::Value;

use super::pass::{Filled, Known, Rendered};

/// Begins each mark.
const MARK: char = '\u{1}';
/// Hexadecimal digits of a mark: those that nobody can have known, and its number.
const SECRET_DIGITS: usize = 12;
const NUMBER_DIGITS: usize = 8;

/// The marks of one page.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Marks {
    /// Begins each; nobody can have known it before.
    start: String,
}

impl Marks {
    pub(super) fn new() -> Self {
        Self { start: format!("{MARK}{:0SECRET_DIGITS$x}", rand::random::<u64>() >> 16) }
    }

    /// The mark with this number. It is short enough for Tera to keep it without an allocation.
    pub(super) fn numbered(&mut self, number: usize) -> Value {
        let secret = self.start.len();
        for digit in (0..NUMBER_DIGITS).rev() {
            self.start.push(char::from(b"0123456789abcdef"[number >> (4 * digit) & 15]));
        }
        let mark = Value::safe_string(&self.start);
        self.start.truncate(secret);
        mark
    }

    /// `text` with `contents` for the marks in it, about as long as `length`, and the numbers of
    /// the marks; `None` if one is damaged.
    fn replaced(
        &self,
        text: &str,
        length: usize,
        contents: &[&str],
    ) -> Option<(String, Vec<usize>)> {
        let mut whole = String::with_capacity(length);
        let mut numbers = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(MARK) {
            let (before, from_mark) = rest.split_at(at);
            whole.push_str(before);
            if let Some(after) = from_mark.strip_prefix(&self.start) {
                let (number, after) = after.split_at_checked(NUMBER_DIGITS)?;
                let number = usize::from_str_radix(number, 16).ok()?;
                whole.push_str(contents.get(number)?);
                numbers.push(number);
                rest = after;
            } else {
                whole.push(MARK);
                rest = &from_mark[MARK.len_utf8()..];
            }
        }
        whole.push_str(rest);
        Some((whole, numbers))
    }
}

impl Rendered {
    /// Puts what has been found where the marks are. Does nothing, and says so, if any is missing
    /// or a mark is not where it was put.
    pub(super) fn splice(&mut self, found: &[Known]) -> bool {
        let contents = found.iter().zip(&self.asked);
        let contents: Option<Vec<_>> =
            contents.map(|(known, asked)| known.content(asked.stamp)).collect();
        let Some(contents) = contents else { return false };
        let Ok(page) = &self.page else { return false };
        let length = page.len() + contents.iter().map(|content| content.len()).sum::<usize>();
        let replaced = self.marks.replaced(page, length, &contents);
        let Some((page, numbers)) = replaced else { return false };
        if !numbers.into_iter().eq(0..contents.len()) {
            return false;
        }
        let bodies = self.filled.iter().map(|Filled { body, .. }| {
            // Most hold no others.
            self.marks.replaced(body, body.len(), &contents)
        });
        let Some(bodies) = bodies.collect::<Option<Vec<_>>>() else { return false };
        self.page = Ok(page);
        for (filled, (body, _)) in self.filled.iter_mut().zip(bodies) {
            filled.body = body;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::pass::Asked, *};
    use crate::{backend::frame::Stamp, cache::lifetime::Lifetime};

    const STAMP: Stamp = Stamp { schema: 1, fingerprint: 2 };
    const START: &str = "\u{1}0123456789ab";

    /// A page with these marks, of which two have been asked for; `@` stands for the secret part.
    fn rendered(page: &str) -> Rendered {
        let marks = Marks { start: START.to_owned() };
        let asked = Asked { key: "k".to_owned(), stamp: STAMP, lifetime: Lifetime::Forever };
        Rendered {
            page: Ok(page.replace('@', START)),
            marks,
            asked: vec![asked; 2],
            filled: Vec::new(),
            deleted: Vec::new(),
        }
    }

    fn found() -> [Known; 2] {
        ["one", "two"].map(|content| Known::Found(Some((STAMP, content.into()))))
    }

    #[test]
    fn what_has_been_found_stands_where_its_mark_was() {
        let mut rendered = rendered("é@00000000é@00000001");
        assert!(rendered.splice(&found()));
        assert_eq!(rendered.page.unwrap(), "éoneétwo");
    }

    #[test]
    fn text_that_resembles_a_mark_is_text() {
        let lookalike = "\u{1}\u{1}0123456789ac00000000\u{1}";
        let mut rendered = rendered(&format!("{lookalike}@00000000{lookalike}@00000001\u{1}"));
        assert!(rendered.splice(&found()));
        let expected = format!("{lookalike}one{lookalike}two\u{1}");
        assert_eq!(rendered.page.unwrap(), expected);
    }

    #[test]
    fn a_page_whose_marks_are_not_as_they_were_put_is_left_alone() {
        for page in [
            "@00000000",
            "@00000001@00000000",
            "@00000000@00000000",
            "@00000000@00000001@00000000",
            "@00000000@00000002",
            "@00000000@0000000g",
            "@00000000@0000001",
            "@00000000@0000000é",
            "@00000000@",
        ] {
            let mut rendered = rendered(page);
            let before = rendered.page.as_ref().unwrap().clone();
            assert!(!rendered.splice(&found()), "{page}");
            assert_eq!(rendered.page.unwrap(), before);
        }
    }

    #[test]
    fn what_has_been_rendered_is_kept_with_what_stands_in_it() {
        let filled = |body: &str| Filled {
            asked: Asked { key: "f".to_owned(), stamp: STAMP, lifetime: Lifetime::Forever },
            body: body.replace('@', START),
            took: Duration::ZERO,
        };
        let mut outer = rendered("@00000000@00000001");
        outer.filled = vec![filled("[@00000001]"), filled("plain")];
        assert!(outer.splice(&found()));
        let bodies: Vec<_> = outer.filled.iter().map(|filled| filled.body.as_str()).collect();
        assert_eq!(bodies, ["[two]", "plain"]);

        outer = rendered("@00000000@00000001");
        outer.filled = vec![filled("[@0000")];
        assert!(!outer.splice(&found()));
    }

    #[test]
    fn what_is_missing_or_of_another_stamp_is_not_put_in() {
        let other = Stamp { fingerprint: 3, ..STAMP };
        for known in [Known::Unknown, Known::Found(None), Known::Found(Some((other, "x".into())))] {
            let [one, _] = found();
            assert!(!rendered("@00000000@00000001").splice(&[one, known]));
        }
    }

    #[test]
    fn each_page_has_marks_of_its_own() {
        assert_ne!(Marks::new(), Marks::new());
    }
}
