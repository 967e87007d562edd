//! Headers that every answer carries, whatever the handler; but for the redirect to https, which has
//! no body.

use actix_web::{
    http::header::{self, HeaderName},
    middleware::DefaultHeaders,
};
use sha2::{Digest, Sha256};

/// Nothing but this site's own stylesheet, images and forms. No script: there is none, so
/// `connect-src` lets nobody connect but the browser's own tools (Lighthouse reads `/robots.txt`).
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Two years, as browsers' preload lists ask for.
const STRICT_TRANSPORT_SECURITY: &str = "max-age=63072000; includeSubDomains";

fn security_headers(production: bool) -> impl Iterator<Item = (HeaderName, &'static str)> {
    let always = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // Not `no-referrer`: with that, browsers send `Origin: null` with our own forms.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CROSS_ORIGIN_OPENER_POLICY, "same-origin"),
        (header::CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
    ];
    let secure = (header::STRICT_TRANSPORT_SECURITY, STRICT_TRANSPORT_SECURITY);
    always.into_iter().chain(production.then_some(secure))
}

/// Each only where the answer has none of its name. Cached pages are kept with them.
pub(crate) fn security(production: bool) -> DefaultHeaders {
    security_headers(production).fold(DefaultHeaders::new(), DefaultHeaders::add)
}

/// Changes with any of them.
pub(crate) fn version(production: bool) -> u64 {
    let mut digest = Sha256::new();
    for (name, value) in security_headers(production) {
        digest.update(format!("{name}: {value}\n"));
    }
    digest.finalize()[..8].iter().fold(0, |version, byte| version << 8 | u64::from(*byte))
}

/// Where the answer says nothing else: it may be kept by the visitor's browser, and must be asked
/// about each time. The view cache takes what says so itself for a page that is not to be kept.
pub(crate) fn caching() -> DefaultHeaders {
    DefaultHeaders::new().add((header::CACHE_CONTROL, "private, no-cache"))
}
