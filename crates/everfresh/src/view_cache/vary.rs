//! The request headers that a response varies by, and the keys of its variants. Pure.

use std::{collections::BTreeSet, fmt::Write};

use actix_web::http::header::{self, HeaderMap};

use super::policy::{Refusal, items};
use crate::cache::key::append_escaped;

/// Returns the names in a response's `Vary`, in lower case: the request headers that it depends on.
/// Accept-Encoding is left out, because the cache itself compresses pages.
pub(super) fn vary(headers: &HeaderMap) -> Result<BTreeSet<String>, Refusal> {
    let names = items(headers, header::VARY).map(str::to_ascii_lowercase);
    let names: BTreeSet<_> =
        names.filter(|name| !name.is_empty() && name != "accept-encoding").collect();
    if names.contains("*") { Err(Refusal::VariesByAnything) } else { Ok(names) }
}

/// Returns the part of a variant's key that follows the page's key: the values of the request
/// headers in `names`. Requests with different values get different texts. With HTTP/2 the
/// `authority` of the URL takes the place of `Host`.
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
            // Values are bytes, which may not be UTF-8, so they are escaped byte by byte.
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
    use actix_web::http::header::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    type Values = Vec<Vec<String>>;

    /// The lines of each of two headers.
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
        fn different_values_give_different_variants(one in values(), other in values()) {
            prop_assume!(one != other);
            prop_assert_ne!(variant_of(&one), variant_of(&other));
        }
    }
}
