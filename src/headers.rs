//! Headers that every answer carries, whatever the handler.

use actix_web::{http::header, middleware::DefaultHeaders};

/// Nothing but this site's own stylesheet, images and forms. No script: there is none, so
/// `connect-src` lets nobody connect but the browser's own tools (Lighthouse reads `/robots.txt`).
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Two years, as browsers' preload lists ask for.
const STRICT_TRANSPORT_SECURITY: &str = "max-age=63072000; includeSubDomains";

/// The headers, each only where the answer has none of its name.
pub(crate) fn security(production: bool) -> DefaultHeaders {
    let headers = DefaultHeaders::new()
        .add((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .add((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .add((header::X_FRAME_OPTIONS, "DENY"))
        // Not `no-referrer`: with that, browsers send `Origin: null` with our own forms.
        .add((header::REFERRER_POLICY, "same-origin"))
        .add((header::CROSS_ORIGIN_OPENER_POLICY, "same-origin"))
        .add((header::CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"))
        // May be kept by the visitor's browser, and must be asked about each time.
        .add((header::CACHE_CONTROL, "private, no-cache"));
    if production {
        headers.add((header::STRICT_TRANSPORT_SECURITY, STRICT_TRANSPORT_SECURITY))
    } else {
        headers
    }
}
