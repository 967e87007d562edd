//! Builds responses from pages.

use std::{
    borrow::Cow,
    time::{SystemTime, UNIX_EPOCH},
};

use actix_web::{
    HttpResponse,
    http::{
        StatusCode,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
};
use bytes::Bytes;

use super::page::Page;

/// Builds the response to a request with `headers`. `at` is the time at which a cached page was made;
/// `status` is its `Cache-Status`, unless it is a plain hit.
pub(super) async fn respond(
    headers: &HeaderMap,
    page: &Page,
    at: Option<u64>,
    status: Option<&str>,
) -> HttpResponse<Bytes> {
    let accept_encoding = text(headers, header::ACCEPT_ENCODING);
    let accept_encoding = accept_encoding.as_deref();
    let known = text(headers, header::IF_NONE_MATCH)
        .and_then(|listed| page.etags(accept_encoding).find(|tag| is_listed(&listed, tag)));
    let mut res = if let Some(tag) = known {
        not_modified(page, tag)
    } else {
        let rendition = page.rendition(accept_encoding).await;
        let mut res = HttpResponse::with_body(StatusCode::OK, rendition.body.clone());
        append_all(res.headers_mut(), &rendition.headers);
        res
    };
    if let Some(at) = at {
        res.headers_mut().insert(header::AGE, now().saturating_sub(at).into());
    }
    if let Some(status) = status {
        res.headers_mut().remove(header::CACHE_STATUS);
        append_cache_status(res.headers_mut(), status);
    }
    res
}

/// Returns all lines of a header as one.
fn text(headers: &HeaderMap, name: HeaderName) -> Option<Cow<'_, str>> {
    let mut lines = headers.get_all(name).filter_map(|value| value.to_str().ok());
    let first = lines.next()?;
    let more: Vec<_> = lines.collect();
    Some(if more.is_empty() {
        first.into()
    } else {
        format!("{first}, {}", more.join(", ")).into()
    })
}

fn is_listed(listed: &str, tag: &HeaderValue) -> bool {
    tag.to_str().is_ok_and(|tag| is_known(listed, tag))
}

/// Returns whether an `If-None-Match` header contains `tag` or is `*` (RFC 9110, section 13.1.2). The
/// response is then 304.
fn is_known(if_none_match: &str, tag: &str) -> bool {
    listed(if_none_match).any(|listed| listed == tag || listed == "*")
}

/// Returns the entity tags of a list, with their quotes. The prefix `W/` is removed, because
/// `If-None-Match` uses the weak comparison (RFC 9110, section 8.8.3.2).
fn listed(header: &str) -> impl Iterator<Item = &str> {
    let mut rest = header;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let tag = rest.strip_prefix("W/").unwrap_or(rest);
        let end = match tag.strip_prefix('"') {
            Some(inner) => inner.find('"')? + 2,
            None => tag.find([',', ' ']).unwrap_or(tag.len()),
        };
        let (tag, after) = tag.split_at(end);
        rest = after;
        (!tag.is_empty()).then_some(tag)
    })
}

fn not_modified(page: &Page, tag: &HeaderValue) -> HttpResponse<Bytes> {
    let mut res = HttpResponse::with_body(StatusCode::NOT_MODIFIED, Bytes::new());
    append_all(res.headers_mut(), &page.not_modified_headers);
    res.headers_mut().insert(header::ETAG, tag.clone());
    res
}

/// Fills the response's own map: Actix reuses its allocation, so that costs less than a clone.
fn append_all(headers: &mut HeaderMap, more: &HeaderMap) {
    for (name, value) in more {
        headers.append(name.clone(), value.clone());
    }
}

/// Appends what this cache did with the request (RFC 9211).
pub(super) fn append_cache_status(headers: &mut HeaderMap, status: &str) {
    if let Ok(value) = HeaderValue::try_from(format!("everfresh; {status}")) {
        headers.append(header::CACHE_STATUS, value);
    }
}

/// Returns the time in seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_tag_is_found_whether_weak_or_strong() {
        for (header, known) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", W/\"c\" ,\"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
            ("\"x, \\\"a\"", false),
            ("\"b,a\"", false),
            ("\"a", false),
            ("", false),
        ] {
            assert_eq!(is_known(header, "\"a\""), known, "{header}");
        }
    }
}
