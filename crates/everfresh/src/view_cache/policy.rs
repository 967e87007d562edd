//! What may be kept, and under which key. Pure.

use std::{
    collections::BTreeSet,
    fmt::{self, Write},
    time::Duration,
};

use actix_web::http::{
    StatusCode,
    header::{self, HeaderMap, HeaderName},
};

use crate::cache::key::append_escaped;

/// Why a request is not answered from the cache, or its response not kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refusal {
    Spelling,
    Authorization,
    BypassCookie,
    Unless,
    NoKey,
    Head,
    Status(StatusCode),
    SetCookie,
    CacheControl,
    VariesByAnything,
    Encoded,
    Stream,
    Filter,
    Lifetime,
    TooLarge,
    OtherVary,
    Uncacheable,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spelling => "its URL is not spelled as usual",
            Self::Authorization => "the request carries Authorization",
            Self::BypassCookie => "the request carries a bypass cookie",
            Self::Unless => "the request meets the condition of `unless`",
            Self::NoKey => "the key function gives no key",
            Self::Head => "only GET fills an entry",
            Self::Status(status) => return write!(f, "its status is {}", status.as_u16()),
            Self::SetCookie => "it sets a cookie",
            Self::CacheControl => "its Cache-Control forbids it",
            Self::VariesByAnything => "its Vary is *",
            Self::Encoded => "it is encoded already",
            Self::Stream => "it is a stream",
            Self::Filter => "the response filter refuses it",
            Self::Lifetime => "its lifetime is zero",
            Self::TooLarge => "it is too large",
            Self::Uncacheable => "its page was not kept a moment ago",
            Self::OtherVary => "it varies by more than the responses before it",
        })
    }
}

/// Whether a request may be answered from the cache.
pub(super) fn admits_request(
    headers: &HeaderMap,
    bypass_cookies: &[String],
) -> Result<(), Refusal> {
    if headers.contains_key(header::AUTHORIZATION) {
        return Err(Refusal::Authorization);
    }
    if bypass_cookies.iter().any(|name| has_cookie(headers, name)) {
        return Err(Refusal::BypassCookie);
    }
    Ok(())
}

fn has_cookie(headers: &HeaderMap, name: &str) -> bool {
    let values = headers.get_all(header::COOKIE).filter_map(|value| value.to_str().ok());
    let mut cookies = values.flat_map(|value| value.split(';'));
    cookies.any(|cookie| cookie.split('=').next().is_some_and(|found| found.trim() == name))
}

/// Whether a response may be kept; its body is not looked at.
pub(super) fn admits_response(status: StatusCode, headers: &HeaderMap) -> Result<(), Refusal> {
    if status != StatusCode::OK {
        return Err(Refusal::Status(status));
    }
    if headers.contains_key(header::SET_COOKIE) {
        return Err(Refusal::SetCookie);
    }
    let forbids = |name: &str| ["private", "no-store", "no-cache", UNREADABLE].contains(&name);
    if directives(headers).any(|(name, _)| forbids(&name)) {
        return Err(Refusal::CacheControl);
    }
    // A date, which says less than max-age, and mostly that the time is over.
    if headers.contains_key(header::EXPIRES) && max_age(headers).is_none() {
        return Err(Refusal::CacheControl);
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Refusal::Encoded);
    }
    Ok(())
}

/// How long its Cache-Control lets a response be kept: `s-maxage`, else `max-age`. What is no number
/// is over already (RFC 9111, section 4.2.1).
pub(super) fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let seconds = |wanted: &str| {
        let mut found = directives(headers).filter(|(name, _)| name == wanted);
        found.next().map(|(_, value)| value.trim_matches('"').parse().unwrap_or(0))
    };
    seconds("s-maxage").or_else(|| seconds("max-age")).map(Duration::from_secs)
}

/// Stands for what cannot be read: it may say anything.
const UNREADABLE: &str = "*";

/// The items of a header's list, over all its lines.
fn items(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).map(|value| value.to_str().unwrap_or(UNREADABLE));
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// The directives of Cache-Control (RFC 9111, section 5.2), in lower case, with their values.
fn directives(headers: &HeaderMap) -> impl Iterator<Item = (String, &str)> {
    items(headers, header::CACHE_CONTROL).map(|directive| {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        (name.trim().to_ascii_lowercase(), value.trim())
    })
}

/// Whether a response may be sent in another form (RFC 9110, section 7.7).
pub(super) fn may_be_transformed(headers: &HeaderMap) -> bool {
    directives(headers).all(|(name, _)| name != "no-transform")
}

/// The request headers that a response depends on, in lower case. Not Accept-Encoding: the forms
/// of a page are made here.
pub(super) fn vary(headers: &HeaderMap) -> Result<BTreeSet<String>, Refusal> {
    let names = items(headers, header::VARY).map(str::to_ascii_lowercase);
    let names: BTreeSet<_> =
        names.filter(|name| !name.is_empty() && name != "accept-encoding").collect();
    if names.contains("*") { Err(Refusal::VariesByAnything) } else { Ok(names) }
}

/// The key of a page, and the query of which it is made. What is not named stays out of both.
pub(super) fn key(path: &str, query: &str, named: &[String]) -> (String, String) {
    let mut key = String::with_capacity(path.len() + 8);
    key.push_str("view/");
    key.push_str(&usual_spelling(path));
    if query.is_empty() || named.is_empty() {
        return (key, String::new());
    }
    let mut pairs: Vec<_> = form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| named.iter().any(|wanted| wanted == name))
        .collect();
    pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    if !query.is_empty() {
        // No path holds one.
        key.push('?');
        key.push_str(&query);
    }
    (key, query)
}

/// The key for what the app's own function gives.
pub(super) fn own_key(text: &str) -> String {
    let mut key = "view/".to_owned();
    append_escaped(&mut key, text, Some(b'?'));
    key
}

/// Whether a path is spelled as browsers send it.
pub(super) fn is_usual(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    path.bytes().all(is_plain) || usual_spelling(path) == path
}

/// A path as browsers send it (the "path percent-encode set" of the URL standard): only one
/// spelling of a path has a page in the cache, for a page that has several would be forgotten
/// under one.
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

/// What the key of a variant has besides the page's: the values of the headers that it varies by.
/// With HTTP/2 the authority of the URL stands for Host.
pub(super) fn variant(
    headers: &HeaderMap,
    authority: Option<&str>,
    names: &BTreeSet<String>,
) -> String {
    let mut key = String::new();
    for name in names {
        key.push('/');
        if let Some(authority) = authority.filter(|_| name == "host") {
            append_escaped(&mut key, authority, Some(b'/'));
            key.push('@');
        }
        for value in headers.get_all(name.as_str()) {
            // Bytes above 0x7f are no text; as hexadecimal digits they are told apart, too.
            for byte in value.as_bytes() {
                match byte {
                    b'!'..=b'~' if !b"%/,@".contains(byte) => key.push(char::from(*byte)),
                    _ => {
                        // Writing to a String cannot fail.
                        let _ = write!(key, "%{byte:02x}");
                    }
                }
            }
            key.push(',');
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    type Values = Vec<Vec<String>>;

    /// For each of two headers what lines of it there are.
    fn values() -> impl Strategy<Value = Values> {
        prop::collection::vec(prop::collection::vec("[a/,% \u{e9}]{0,3}", 0..3), 2)
    }

    fn variant_of(values: &Values) -> String {
        let mut headers = HeaderMap::new();
        let mut names = BTreeSet::new();
        for (at, values) in values.iter().enumerate() {
            let name = format!("x-{at}");
            for value in values {
                let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
                headers.append(HeaderName::try_from(&*name).unwrap(), value);
            }
            names.insert(name);
        }
        variant(&headers, None, &names)
    }

    proptest! {
        #[test]
        fn no_two_lists_of_values_give_one_variant(one in values(), other in values()) {
            prop_assume!(one != other);
            prop_assert_ne!(variant_of(&one), variant_of(&other));
        }

        #[test]
        fn a_key_holds_nothing_that_memcached_refuses(path in any::<String>(), query in any::<String>()) {
            let names = ["a".to_owned(), "b".to_owned()];
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
        fn only_named_parameters_count(value in "[a-z&=%+ ]{0,5}", other in "[a-z&=%+ ]{0,5}") {
            let names = ["page".to_owned()];
            let (one, _) = key("/", "page=2", &names);
            let (same, query) = key("/", &format!("x{value}&page=2&y{other}"), &names);
            prop_assume!(!value.contains("page") && !other.contains("page"));
            prop_assert_eq!((one, "page=2"), (same, query.as_str()));
        }
    }
}
