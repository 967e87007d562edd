//! What a visitor is sent.

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

use super::{conditional::is_known, page::Page};

/// What `Cache-Status` says of a page from the cache (RFC 9211): ready in its headers.
pub(super) const HIT: &str = "everfresh; hit";

/// The response for whoever sent `headers`; `at` if the page is from the cache, `status` if it is
/// not simply a hit.
pub(super) async fn sent(
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
        let ready = page.ready(accept_encoding).await;
        let mut res = HttpResponse::with_body(StatusCode::OK, ready.body.clone());
        append_all(res.headers_mut(), &ready.headers);
        res
    };
    if let Some(at) = at {
        res.headers_mut().insert(header::AGE, now().saturating_sub(at).into());
    }
    if let Some(status) = status {
        res.headers_mut().remove(header::CACHE_STATUS);
        mark(res.headers_mut(), status);
    }
    res
}

/// All lines of a header as one.
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

fn not_modified(page: &Page, tag: &HeaderValue) -> HttpResponse<Bytes> {
    let mut res = HttpResponse::with_body(StatusCode::NOT_MODIFIED, Bytes::new());
    append_all(res.headers_mut(), &page.in_not_modified);
    res.headers_mut().insert(header::ETAG, tag.clone());
    res
}

/// Actix uses the maps of responses again: filling one costs less than making a copy.
fn append_all(headers: &mut HeaderMap, more: &HeaderMap) {
    for (name, value) in more {
        headers.append(name.clone(), value.clone());
    }
}

/// Adds what became of the request here (RFC 9211).
pub(super) fn mark(headers: &mut HeaderMap, status: &str) {
    if let Ok(value) = HeaderValue::try_from(format!("everfresh; {status}")) {
        headers.append(header::CACHE_STATUS, value);
    }
}

/// In seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
