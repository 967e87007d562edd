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

/// The status of a page from the cache, and what `Cache-Status` says then.
pub(super) const HIT: &str = "hit";
const MARKED_HIT: &str = "actix-cache; hit";

/// The response for whoever sent `headers`; `at` if the page is from the cache.
pub(super) async fn sent(
    headers: &HeaderMap,
    page: &Page,
    at: Option<u64>,
    status: &str,
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
        *res.headers_mut() = ready.headers.clone();
        res
    };
    if let Some(at) = at {
        res.headers_mut().insert(header::AGE, now().saturating_sub(at).into());
    }
    mark(res.headers_mut(), status);
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
    *res.headers_mut() = page.in_not_modified.clone();
    res.headers_mut().insert(header::ETAG, tag.clone());
    res
}

/// Adds what became of the request here (RFC 9211).
pub(super) fn mark(headers: &mut HeaderMap, status: &str) {
    let value = match status {
        // By far the most frequent.
        HIT => Ok(HeaderValue::from_static(MARKED_HIT)),
        other => HeaderValue::try_from(format!("actix-cache; {other}")),
    };
    if let Ok(value) = value {
        headers.append(header::CACHE_STATUS, value);
    }
}

/// In seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
