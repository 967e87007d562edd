//! Redirects requests that a trusted proxy received without TLS to HTTPS, in production.

use actix_web::{
    Error, HttpResponse,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::header,
    middleware::Next,
    web::Data,
};

use super::{allowed_hosts, forwarded::Scheme, route::RouteTable};
use crate::config::{AllowedHosts, TrustedProxies};

/// A middleware. The host is that of the request: a forged one redirects only its own sender.
pub(crate) async fn redirect_plain_http<B: MessageBody>(
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    match secure_url(&req) {
        Some(url) => {
            let redirect = HttpResponse::PermanentRedirect()
                .insert_header((header::LOCATION, url))
                .insert_header((header::CACHE_CONTROL, "no-store"))
                // The body of the request is not read.
                .force_close()
                .finish();
            Ok(req.into_response(redirect).map_into_right_body())
        }
        None => Ok(next.call(req).await?.map_into_left_body()),
    }
}

fn secure_url(req: &ServiceRequest) -> Option<String> {
    let proxies = req.app_data::<Data<TrustedProxies>>()?;
    let routes = req.app_data::<Data<RouteTable>>()?;
    let hosts = req.app_data::<Data<AllowedHosts>>()?;
    let is_plain = proxies.scheme(req.request()) == Some(Scheme::Http);
    if !is_plain || routes.is_probe(req.path()) || !allowed_hosts::allow(hosts, req) {
        return None;
    }
    let host = req.headers().get(header::HOST)?.to_str().ok()?;
    let path = req.uri().path_and_query()?.as_str();
    Some(format!("https://{}{path}", host.strip_suffix(":80").unwrap_or(host)))
}
