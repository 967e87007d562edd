//! Forms that are safe without a token in the page.

use actix_web::{
    Error, HttpResponse,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::header::{self, HeaderMap},
    middleware::Next,
};

// ANCHOR: same_origin
/// A middleware that refuses forms of other sites.
pub async fn refuse_other_sites<B: MessageBody>(
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    if req.method().is_safe() || is_own(req.headers()) {
        return next.call(req).await.map(ServiceResponse::map_into_left_body);
    }
    let refused = HttpResponse::Forbidden().body("This form is of another site.");
    Ok(req.into_response(refused).map_into_right_body())
}

/// Every browser tells where a request comes from. A client that does not tell is not a browser: it holds no
/// visitor's cookies.
fn is_own(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match (text(header::HeaderName::from_static("sec-fetch-site")), text(header::ORIGIN)) {
        (Some(site), _) => site == "same-origin" || site == "none",
        (None, Some(origin)) => {
            let host = text(header::HOST).unwrap_or_default();
            origin.split_once("://").is_some_and(|(_, authority)| authority == host)
        }
        (None, None) => true,
    }
}
// ANCHOR_END: same_origin
