//! Headers of every response except the redirect to HTTPS, which has no body.

use actix_web::{
    http::header::{self, HeaderName},
    middleware::DefaultHeaders,
};
use sha2::{Digest, Sha256};

/// Allows the site's own stylesheet, images and forms. There is no script, so `connect-src` only serves
/// the browser's own tools (Lighthouse reads `/robots.txt`).
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Two years, as browsers' preload lists require.
const STRICT_TRANSPORT_SECURITY: &str = "max-age=63072000; includeSubDomains";

fn security_headers(production: bool) -> impl Iterator<Item = (HeaderName, &'static str)> {
    let always = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // With `no-referrer`, browsers would send `Origin: null` with the site's own forms.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CROSS_ORIGIN_OPENER_POLICY, "same-origin"),
        (header::CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
    ];
    let secure = (header::STRICT_TRANSPORT_SECURITY, STRICT_TRANSPORT_SECURITY);
    always.into_iter().chain(production.then_some(secure))
}

/// A middleware that adds the security headers that a response lacks. They are cached with pages.
pub(crate) fn security(production: bool) -> DefaultHeaders {
    security_headers(production).fold(DefaultHeaders::new(), DefaultHeaders::add)
}

/// Returns a hash of all security headers.
pub(crate) fn version(production: bool) -> u64 {
    let mut digest = Sha256::new();
    for (name, value) in security_headers(production) {
        digest.update(format!("{name}: {value}\n"));
    }
    digest.finalize()[..8].iter().fold(0, |version, byte| version << 8 | u64::from(*byte))
}

/// A middleware that lets browsers store responses without `Cache-Control` and revalidate them each
/// time. It must be outside the view cache, which does not store pages with this header.
pub(crate) fn caching() -> DefaultHeaders {
    DefaultHeaders::new().add((header::CACHE_CONTROL, "private, no-cache"))
}
