//! Keys made of parts. Pure.

pub(crate) mod arguments;

use std::fmt::Write;

/// Joins a name and parts to a key. Different lists of parts give different keys, and memcached
/// accepts the key whatever the parts contain.
///
/// ```
/// use everfresh::join_key;
///
/// assert_eq!(join_key("task-fragment", ["7", "de"]), "task-fragment/7/de");
/// assert_ne!(join_key("n", ["a/b"]), join_key("n", ["a", "b"]));
/// ```
#[must_use]
pub fn join_key<P: AsRef<str>>(name: &str, parts: impl IntoIterator<Item = P>) -> String {
    let mut key = String::with_capacity(name.len() + 16);
    append_escaped(&mut key, name, Some(SEPARATOR));
    for part in parts {
        key.push(char::from(SEPARATOR));
        append_escaped(&mut key, part.as_ref(), Some(SEPARATOR));
    }
    key
}

/// Separates the parts of a key.
const SEPARATOR: u8 = b'/';

/// The beginning of a key that is escaped as a whole. No key made by [`join_key`] contains it: there `%` is
/// followed by two digits.
const ESCAPED: &str = "%!";

/// Returns a key as the backend knows it. A key that is empty, or contains blanks or control characters,
/// which memcached does not accept, is escaped, in every backend. Different keys stay different.
pub(crate) fn full_key(prefix: &str, key: &str) -> String {
    let is_valid = |byte: u8| byte > b' ' && byte != 0x7f;
    if !key.is_empty() && key.bytes().all(is_valid) && !key.starts_with(ESCAPED) {
        return [prefix, key].concat();
    }
    let mut full = [prefix, ESCAPED].concat();
    append_escaped(&mut full, key, None);
    full
}

/// Appends a part, with the separator, `%` and characters that no key may contain percent-encoded.
pub(crate) fn append_escaped(key: &mut String, part: &str, separator: Option<u8>) {
    let mut plain = 0;
    for (at, byte) in part.bytes().enumerate() {
        // All escaped characters are single bytes.
        if byte <= b' ' || matches!(byte, 0x7f | b'%') || Some(byte) == separator {
            key.push_str(&part[plain..at]);
            // Writing to a String cannot fail.
            let _ = write!(key, "%{byte:02x}");
            plain = at + 1;
        }
    }
    key.push_str(&part[plain..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn different_parts_give_different_keys(
            one in prop::collection::vec("[aé/% \\n]{0,3}", 1..4),
            other in prop::collection::vec("[aé/% \\n]{0,3}", 1..4),
        ) {
            prop_assume!(one != other);
            prop_assert_ne!(join_key(&one[0], &one[1..]), join_key(&other[0], &other[1..]));
        }

        #[test]
        fn memcached_accepts_every_key(parts in prop::collection::vec(any::<String>(), 0..4)) {
            let key = join_key("name", &parts);
            prop_assert!(key.chars().all(|c| c > ' ' && c != '\u{7f}'), "{key:?}");
        }
    }

    proptest! {
        #[test]
        fn every_key_is_accepted_and_different_keys_stay_different(
            one in "(%!)?[a% \n\u{7f}\u{e9}]{0,4}",
            other in "(%!)?[a% \n\u{7f}\u{e9}]{0,4}",
        ) {
            let (full, full_other) = (full_key("", &one), full_key("", &other));
            prop_assert_eq!(full == full_other, one == other);
            prop_assert!(!full.is_empty() && full.bytes().all(|b| b > b' ' && b != 0x7f), "{}", full);
        }
    }

    #[test]
    fn a_usual_key_is_used_as_it_is() {
        assert_eq!(full_key("app:", "tasks/7%2f"), "app:tasks/7%2f");
    }
}
