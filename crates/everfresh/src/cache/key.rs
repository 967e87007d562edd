//! Keys made of parts. Pure.

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

/// Arguments of a memoized function, as parts of a key.
pub trait KeyParts {
    /// Calls `push` with each part. A type always has the same number of parts.
    fn parts(&self, push: &mut dyn FnMut(&str));
}

impl KeyParts for () {
    fn parts(&self, _push: &mut dyn FnMut(&str)) {}
}

impl KeyParts for str {
    fn parts(&self, push: &mut dyn FnMut(&str)) {
        push(self);
    }
}

impl KeyParts for String {
    fn parts(&self, push: &mut dyn FnMut(&str)) {
        push(self);
    }
}

impl<T: KeyParts + ?Sized> KeyParts for &T {
    fn parts(&self, push: &mut dyn FnMut(&str)) {
        (**self).parts(push);
    }
}

macro_rules! parts_by_display {
    ($($type:ty),+) => {
        $(impl KeyParts for $type {
            fn parts(&self, push: &mut dyn FnMut(&str)) {
                push(&self.to_string());
            }
        })+
    };
}
parts_by_display!(bool, char, i8, i16, i32, i64, i128, isize, u8, u16, u32, u64, u128, usize);

macro_rules! parts_of_tuples {
    ($(($($name:ident)+))+) => {
        $(impl<$($name: KeyParts),+> KeyParts for ($($name,)+) {
            fn parts(&self, push: &mut dyn FnMut(&str)) {
                #[expect(non_snake_case, reason = "a variable per type")]
                let ($($name,)+) = self;
                $($name.parts(push);)+
            }
        })+
    };
}
parts_of_tuples!((A)(A B)(A B C)(A B C D)(A B C D E)(A B C D E F));

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

    #[test]
    fn the_parts_of_arguments_stay_separate() {
        let key = |arguments: &dyn KeyParts| {
            let mut parts = Vec::new();
            arguments.parts(&mut |part| parts.push(part.to_owned()));
            join_key("f", parts)
        };
        assert_eq!(key(&()), "f");
        assert_eq!(key(&(1, "a/b", true)), "f/1/a%2fb/true");
        assert_ne!(key(&("a", "")), key(&("", "a")));
    }
}
