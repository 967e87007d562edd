//! In production, visitors whom a trusted proxy got over plain HTTP are sent to HTTPS.

use actix_web::{
    Error, HttpResponse,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::header,
    middleware::Next,
    web::Data,
};

use crate::monitor::access_log::Observers;

/// Asked by machines, from inside.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// Middleware. The host is the visitor's own word, and the answer is for that visitor only.
pub(crate) async fn insist<B: MessageBody>(
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    match secure_url(&req) {
        Some(url) => {
            let redirect = HttpResponse::PermanentRedirect()
                .insert_header((header::LOCATION, url))
                .insert_header((header::CACHE_CONTROL, "no-store"))
                // A body would not be read.
                .force_close()
                .finish();
            Ok(req.into_response(redirect).map_into_right_body())
        }
        None => Ok(next.call(req).await?.map_into_left_body()),
    }
}

fn secure_url(req: &ServiceRequest) -> Option<String> {
    let observers = req.app_data::<Data<Observers>>()?;
    if !observers.proxies.is_plain(req.request()) || PROBES.contains(&req.path()) {
        return None;
    }
    let host = req.headers().get(header::HOST)?.to_str().ok()?;
    let path = req.uri().path_and_query()?.as_str();
    Some(format!("https://{}{path}", host.strip_suffix(":80").unwrap_or(host)))
}
