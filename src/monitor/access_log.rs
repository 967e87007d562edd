//! Gives each request an id, and writes one line about it, and counts it, when it has been answered.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use actix_web::{
    Error, HttpMessage, HttpRequest,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
    web::Data,
};

use crate::{
    http::trusted_proxies::TrustedProxies, monitor::history::History, monitor::metrics::Metrics,
};

/// Tells requests apart in logs and error pages: a trusted proxy's, or an own one. Not a secret.
#[derive(Clone, Debug)]
pub(crate) enum RequestId {
    Own(u64),
    Given(Box<str>),
}

impl RequestId {
    fn new() -> Self {
        static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self::Own(SEED.hash_one(NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// The id of `req`, made when somebody first asks for it.
    pub(crate) fn of(req: &HttpRequest) -> Self {
        if let Some(known) = req.extensions().get::<Self>() {
            return known.clone();
        }
        let observers = req.app_data::<Data<Observers>>();
        let given = observers.and_then(|observers| observers.proxies.request_id(req));
        let id = given.map_or_else(Self::new, |id| Self::Given(id.into()));
        req.extensions_mut().insert(id.clone());
        id
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(number) => write!(f, "{number:016x}"),
            Self::Given(id) => f.write_str(id),
        }
    }
}

/// A value of the log that may not be there.
struct OrDash<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for OrDash<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// What is kept of each request.
#[derive(Debug)]
pub(crate) struct Observers {
    pub(crate) proxies: TrustedProxies,
    pub(crate) metrics: Metrics,
    pub(crate) history: History,
}

/// Middleware: `id=… client=… method=… path=… status=… micros=…`, without the query, which may
/// hold anything. No value has a blank in it.
pub(crate) async fn write_line(
    req: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let begun = Instant::now();
    let res = next.call(req).await?;
    let (took, req) = (begun.elapsed(), res.request());
    let observers = req.app_data::<Data<Observers>>();
    if let Some(observers) = observers {
        observers.metrics.answered(req, res.status(), took);
        observers.history.answered(took);
    }
    log::info!(
        target: "tasklist::access",
        "id={} client={} method={} path={} status={} micros={}",
        RequestId::of(req),
        OrDash(observers.and_then(|observers| observers.proxies.client(req))),
        req.method(),
        req.path(),
        res.status().as_u16(),
        took.as_micros(),
    );
    Ok(res)
}
