//! Placeholders: short texts that stand in a rendered page where fragments belong.

use tera::Value;

/// The character that every placeholder begins with, a control character that is rare in pages.
const START: char = '\u{1}';
/// The random part of a placeholder, in hexadecimal digits.
const SECRET_DIGITS: usize = 12;
/// The number at the end of a placeholder, in hexadecimal digits.
const NUMBER_DIGITS: usize = 8;

/// Creates and replaces the placeholders of one page.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Placeholders {
    /// [`START`] and random digits, with which all placeholders of this page begin. Because the
    /// digits cannot be guessed, a visitor's text cannot contain a valid placeholder.
    prefix: String,
}

impl Placeholders {
    pub(super) fn new() -> Self {
        Self { prefix: format!("{START}{:0SECRET_DIGITS$x}", rand::random::<u64>() >> 16) }
    }

    /// Uses a known prefix instead of a random one.
    #[cfg(test)]
    pub(super) fn with_prefix(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// Returns the placeholder with this number. It is short enough for Tera to store it without
    /// an allocation.
    pub(super) fn numbered(&mut self, number: usize) -> Value {
        let prefix_length = self.prefix.len();
        for digit in (0..NUMBER_DIGITS).rev() {
            self.prefix.push(char::from(b"0123456789abcdef"[number >> (4 * digit) & 15]));
        }
        let placeholder = Value::safe_string(&self.prefix);
        self.prefix.truncate(prefix_length);
        placeholder
    }

    /// Replaces each placeholder in `text` by the item of `contents` with its number. Returns the
    /// new text and the numbers in their order, or `None` if a placeholder is damaged or has no
    /// content. `capacity` is the expected length of the new text.
    pub(super) fn replace(
        &self,
        text: &str,
        capacity: usize,
        contents: &[&str],
    ) -> Option<(String, Vec<usize>)> {
        let mut replaced = String::with_capacity(capacity);
        let mut numbers = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(START) {
            let (before, from_start) = rest.split_at(at);
            replaced.push_str(before);
            if let Some(after_prefix) = from_start.strip_prefix(&self.prefix) {
                let (digits, after) = after_prefix.split_at_checked(NUMBER_DIGITS)?;
                let number = usize::from_str_radix(digits, 16).ok()?;
                replaced.push_str(contents.get(number)?);
                numbers.push(number);
                rest = after;
            } else {
                // The character is part of the page's own text.
                replaced.push(START);
                rest = &from_start[START.len_utf8()..];
            }
        }
        replaced.push_str(rest);
        Some((replaced, numbers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_page_has_its_own_placeholders() {
        assert_ne!(Placeholders::new(), Placeholders::new());
    }
}
