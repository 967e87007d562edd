//! The keys of pages, and the one spelling of each path that has a key. Pure.

use std::fmt::Write;

use crate::cache::key::append_escaped;

/// A parameter of the query that is part of the key.
pub(super) struct Parameter {
    name: String,
    normalise: Normalise,
}

/// Returns the form of a value in the key; `None` for a value that does not count.
type Normalise = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

impl Parameter {
    pub(super) fn new(
        name: impl Into<String>,
        normalise: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), normalise: Box::new(normalise) }
    }

    /// Creates a parameter with any value.
    pub(super) fn any(name: impl Into<String>) -> Self {
        Self::new(name, |value| Some(value.to_owned()))
    }
}

/// Returns the key of a page, and its query. Both contain only the parameters in `named`, sorted by
/// name.
pub(super) fn key(path: &str, query: &str, named: &[Parameter]) -> (String, String) {
    let mut key = String::with_capacity(path.len() + 8);
    key.push_str("view/");
    key.push_str(&usual_spelling(path));
    if query.is_empty() || named.is_empty() {
        return (key, String::new());
    }
    let mut pairs: Vec<_> = form_urlencoded::parse(query.as_bytes())
        .filter_map(|(name, value)| {
            let parameter = named.iter().find(|parameter| parameter.name == name)?;
            let value = (parameter.normalise)(&value)?;
            Some((name, value))
        })
        .collect();
    pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    if !query.is_empty() {
        // In a path, `?` is percent-encoded, so no other path has this key.
        key.push('?');
        key.push_str(&query);
    }
    (key, query)
}

/// Returns the key of a page for which the app's key function has returned `text`.
pub(super) fn own_key(text: &str) -> String {
    let mut key = "view/".to_owned();
    append_escaped(&mut key, text, Some(b'?'));
    key
}

/// Returns whether a path is in the spelling that browsers send.
pub(super) fn is_usual(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    path.bytes().all(is_plain) || usual_spelling(path) == path
}

/// Returns a path in the spelling that browsers send (the "path percent-encode set" of the URL
/// standard). Only this spelling has an entry: if a page had one under each spelling, deleting it
/// by one of them would leave the others.
pub(super) fn usual_spelling(path: &str) -> String {
    let mut spelled = String::with_capacity(path.len());
    for byte in decoded(path.as_bytes()) {
        match byte {
            b'"' | b'#' | b'<' | b'>' | b'?' | b'`' | b'{' | b'}' | b'%' => {
                push_escape(&mut spelled, byte);
            }
            b'!'..=b'~' => spelled.push(char::from(byte)),
            _ => push_escape(&mut spelled, byte),
        }
    }
    spelled
}

fn push_escape(text: &mut String, byte: u8) {
    // Writing to a String cannot fail.
    let _ = write!(text, "%{byte:02X}");
}

/// Returns the bytes of a path after percent-decoding. A `%` without two digits stands for itself.
fn decoded(mut path: &[u8]) -> impl Iterator<Item = u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    std::iter::from_fn(move || {
        let (first, rest) = path.split_first()?;
        if let (b'%', [high, low, rest @ ..]) = (first, rest)
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            path = rest;
            return Some(high << 4 | low);
        }
        path = rest;
        Some(*first)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn memcached_accepts_every_key(path in any::<String>(), query in any::<String>()) {
            let names = ["a", "b"].map(Parameter::any);
            let (key, _) = key(&path, &format!("a={query}&b=\n"), &names);
            prop_assert!(key.chars().all(|c| c > ' ' && c != '\u{7f}'), "{key:?}");
        }

        #[test]
        fn a_path_has_one_usual_spelling(path in "[a-zA-Z0-9/%?#+\u{e9} .;-]{0,12}") {
            let usual = usual_spelling(&path);
            prop_assert_eq!(usual_spelling(&usual), usual.clone());
            prop_assert!(usual.bytes().all(|byte| byte.is_ascii_graphic()), "{}", usual);
        }

        #[test]
        fn only_named_parameters_are_part_of_the_key(value in "[a-z&=%+ ]{0,5}", other in "[a-z&=%+ ]{0,5}") {
            let names = ["page"].map(Parameter::any);
            let (one, _) = key("/", "page=2", &names);
            let (same, query) = key("/", &format!("x{value}&page=2&y{other}"), &names);
            prop_assume!(!value.contains("page") && !other.contains("page"));
            prop_assert_eq!((one, "page=2"), (same, query.as_str()));
        }
    }
}
