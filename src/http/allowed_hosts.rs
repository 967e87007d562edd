//! Refuses requests for other hosts than those of `ALLOWED_HOSTS`.
//!
//! Without such a list, a page of another site can resolve its own name to the app's address (DNS
//! rebinding) and read a list on 127.0.0.1 or an intranet: for the browser both are the same site. An
//! address as the host cannot be rebound.

use actix_web::{
    Error, ResponseError,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        Version,
        header::{self, HeaderMap},
    },
    middleware::Next,
    web::Data,
};

use super::{error_pages::AppError, route::RouteTable};
use crate::config::AllowedHosts;

/// Returns whether a request is for an allowed host. HTTP/1.1 requires one `Host` (RFC 9112,
/// section 3.2), and so do we with HTTP/1.0; an absolute URL must name an allowed host, too.
pub(crate) fn allow(hosts: &AllowedHosts, req: &ServiceRequest) -> bool {
    let authority = req.uri().authority();
    let is_http2 = req.version() >= Version::HTTP_2;
    let from_url = authority.is_none_or(|authority| hosts.allows(authority.as_str()));
    let from_header = one_host(req.headers()).is_some_and(|host| hosts.allows(host));
    from_url && (from_header || (is_http2 && authority.is_some()))
}

fn one_host(headers: &HeaderMap) -> Option<&str> {
    let mut hosts = headers.get_all(header::HOST);
    let host = hosts.next()?.to_str().ok()?;
    hosts.next().is_none().then_some(host)
}

/// A middleware that answers requests for other hosts with 421 (RFC 9110, section 15.5.20). Probes name
/// the machine as they know it, and show nothing.
pub(crate) async fn refuse_other_hosts<B: MessageBody>(
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let hosts = req.app_data::<Data<AllowedHosts>>();
    let routes = req.app_data::<Data<RouteTable>>();
    let is_probe = routes.is_some_and(|routes| routes.is_probe(req.path()));
    if is_probe || hosts.is_none_or(|hosts| allow(hosts, &req)) {
        return next.call(req).await.map(ServiceResponse::map_into_left_body);
    }
    Ok(req.into_response(AppError::WrongHost.error_response()).map_into_right_body())
}
