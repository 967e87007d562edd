//! Logs and counts each request when it has been answered.

use std::{fmt, time::Instant};

use actix_web::{
    Error,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
    web::Data,
};

use super::metrics::Metrics;
use crate::{
    config::TrustedProxies,
    http::{request_id::RequestId, route::RouteTable},
};

/// An optional value, printed as `-` if it is missing.
struct OrDash<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for OrDash<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// A middleware that logs `id=… client=… method=… path=… status=… micros=…`, without the query, which
/// may hold anything. No value contains a blank.
pub(crate) async fn log_request(
    req: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let begun = Instant::now();
    // The view cache answers HEAD by the handler of GET.
    let method = req.method().clone();
    let res = next.call(req).await?;
    let (duration, req) = (begun.elapsed(), res.request());
    if let (Some(metrics), Some(routes)) =
        (req.app_data::<Data<Metrics>>(), req.app_data::<Data<RouteTable>>())
    {
        metrics.observe(routes.label(&method, req.path()), res.status(), duration);
    }
    let proxies = req.app_data::<Data<TrustedProxies>>();
    log::info!(
        target: "tasklist::access",
        "id={} client={} method={} path={} status={} micros={}",
        RequestId::of(req),
        OrDash(proxies.and_then(|proxies| proxies.client(req))),
        method,
        req.path(),
        res.status().as_u16(),
        duration.as_micros(),
    );
    Ok(res)
}
