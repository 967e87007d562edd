//! The parts of a request that a response varies by, and the keys of its variants. Pure.
//!
//! A part is the name of a request header, in lower case; or `cookie:NAME` for one cookie, or `by:NAME` for
//! a function of the app, which no header can be called.

use std::{collections::BTreeSet, fmt::Write};

use actix_web::{
    HttpRequest,
    http::{
        header::{self, HeaderMap},
        uri::Authority,
    },
};

use super::policy::{Refusal, cookie_values, items};
use crate::cache::key::append_escaped;

/// A function that tells what a page depends on.
pub(super) type VaryBy = Box<dyn Fn(&HttpRequest) -> String + Send + Sync>;

/// The parts of a request that every page varies by.
pub(super) struct Variation {
    /// The names of cookies.
    pub(super) cookies: Vec<String>,
    /// Functions by their names.
    pub(super) functions: Vec<(String, VaryBy)>,
    /// The name of the cookie with the session.
    pub(super) session_cookie: String,
    /// Whether one of the functions depends on the session.
    pub(super) varies_by_session: bool,
}

impl Default for Variation {
    fn default() -> Self {
        Self {
            cookies: Vec::new(),
            functions: Vec::new(),
            // The default of actix-session.
            session_cookie: "id".to_owned(),
            varies_by_session: false,
        }
    }
}

impl Variation {
    /// Returns the parts that a response depends on: those of all pages, and the names in its `Vary`.
    /// Accept-Encoding is left out, because the cache itself compresses pages. Cookies that are named
    /// one by one take the place of `Cookie`, so that foreign cookies make no variants.
    pub(super) fn of_response(&self, headers: &HeaderMap) -> Result<BTreeSet<String>, Refusal> {
        let names = items(headers, header::VARY).map(str::to_ascii_lowercase);
        let mut names: BTreeSet<_> =
            names.filter(|name| !name.is_empty() && name != "accept-encoding").collect();
        if names.contains("*") {
            return Err(Refusal::VariesByAnything);
        }
        if !self.cookies.is_empty() {
            names.remove("cookie");
        }
        names.extend(self.cookies.iter().map(|name| format!("cookie:{name}")));
        names.extend(self.functions.iter().map(|(name, _)| format!("by:{name}")));
        Ok(names)
    }

    /// Returns whether visitors with different sessions get different pages, if these vary by `names`.
    pub(super) fn includes_session(&self, names: &BTreeSet<String>) -> bool {
        let is_session = |name: &String| match name.split_once(':') {
            Some(("cookie", cookie)) => cookie == self.session_cookie,
            Some(_) => false,
            None => name == "cookie",
        };
        self.varies_by_session || names.iter().any(is_session)
    }

    /// Returns the part of a variant's key that follows the page's key: the values of these parts of a
    /// request. Requests with different values get different texts. With HTTP/2 the `authority` of the
    /// URL takes the place of `Host`.
    pub(super) fn variant(&self, req: &HttpRequest, names: &BTreeSet<String>) -> String {
        let mut key = String::new();
        for name in names {
            key.push('/');
            match name.split_once(':') {
                Some(("cookie", cookie)) => {
                    cookie_values(req.headers(), cookie).for_each(|value| append(&mut key, value));
                }
                Some((_, function)) => {
                    // A function that only another version of the app has gives no variant of ours.
                    match self.functions.iter().find(|(name, _)| name == function) {
                        Some((_, function)) => append(&mut key, function(req).as_bytes()),
                        None => key.push('?'),
                    }
                }
                None => {
                    let authority = req.uri().authority().map(Authority::as_str);
                    append_header(&mut key, req.headers(), authority, name);
                }
            }
        }
        key
    }
}

fn append_header(key: &mut String, headers: &HeaderMap, authority: Option<&str>, name: &str) {
    if let Some(authority) = authority.filter(|_| name == "host") {
        append_escaped(key, authority, Some(b'/'));
        key.push('@');
    }
    headers.get_all(name).for_each(|value| append(key, value.as_bytes()));
}

/// Appends a value. Values are bytes, which may not be UTF-8, so they are escaped byte by byte.
fn append(key: &mut String, value: &[u8]) {
    for byte in value {
        match byte {
            b'!'..=b'~' if !b"%/,@?".contains(byte) => key.push(char::from(*byte)),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(key, "%{byte:02x}");
            }
        }
    }
    key.push(',');
}

#[cfg(test)]
mod tests {
    use actix_web::{http::header::HeaderValue, test::TestRequest};
    use proptest::prelude::*;

    use super::*;

    type Values = Vec<Vec<String>>;

    /// The lines of each of two headers.
    fn values() -> impl Strategy<Value = Values> {
        prop::collection::vec(prop::collection::vec("[a/,% \u{e9}]{0,3}", 0..3), 2)
    }

    fn variant_of(values: &Values) -> String {
        let mut req = TestRequest::default();
        let mut names = BTreeSet::new();
        for (at, values) in values.iter().enumerate() {
            let name = format!("x-{at}");
            for value in values {
                let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
                req = req.append_header((&*name, value));
            }
            names.insert(name);
        }
        Variation::default().variant(&req.to_http_request(), &names)
    }

    proptest! {
        #[test]
        fn different_values_give_different_variants(one in values(), other in values()) {
            prop_assume!(one != other);
            prop_assert_ne!(variant_of(&one), variant_of(&other));
        }
    }

    #[test]
    fn a_page_varies_by_a_named_cookie_and_not_by_others() {
        let by_id = Variation { cookies: vec!["id".to_owned()], ..Variation::default() };
        let mut headers = HeaderMap::new();
        headers.insert(header::VARY, HeaderValue::from_static("Cookie, Accept-Language"));
        let names = by_id.of_response(&headers).unwrap();
        assert_eq!(names, BTreeSet::from(["accept-language".to_owned(), "cookie:id".to_owned()]));
        let variant = |cookies: &str| {
            let req = TestRequest::default().append_header(("cookie", cookies));
            by_id.variant(&req.to_http_request(), &names)
        };
        assert_eq!(variant("id=ada; _ga=1"), variant("_ga=2; id=ada"));
        assert_ne!(variant("id=ada"), variant("id=bob"));
        assert_ne!(variant("id=ada"), variant("_ga=ada"));
        assert_ne!(variant("id="), variant("x=1"));
    }

    #[test]
    fn a_page_varies_by_the_result_of_a_function() {
        let path: VaryBy = Box::new(|req| req.path().to_owned());
        let by_path =
            Variation { functions: vec![("path".to_owned(), path)], ..Variation::default() };
        let names = by_path.of_response(&HeaderMap::new()).unwrap();
        let variant = |variation: &Variation, path: &str| {
            variation.variant(&TestRequest::with_uri(path).to_http_request(), &names)
        };
        assert_ne!(variant(&by_path, "/a"), variant(&by_path, "/b"));
        assert_ne!(variant(&by_path, "/%3F"), variant(&Variation::default(), "/%3F"));
    }
}
