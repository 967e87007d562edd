//! Gives each request an id, and writes one line about it when it has been answered.

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
};

/// Tells requests apart in logs and error pages. Not a secret.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestId(u64);

impl RequestId {
    fn new() -> Self {
        static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(SEED.hash_one(NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// The id that [`write_line`] gave to `req`.
    pub(crate) fn of(req: &HttpRequest) -> Option<Self> {
        req.extensions().get().copied()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Middleware: `id=… method=… path=… status=… micros=…`, without the query, which may hold
/// anything.
pub(crate) async fn write_line(
    req: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let begun = Instant::now();
    let id = RequestId::new();
    req.extensions_mut().insert(id);
    let res = next.call(req).await?;
    log::info!(
        target: "tasklist::access",
        "id={id} method={} path={} status={} micros={}",
        res.request().method(),
        res.request().path(),
        res.status().as_u16(),
        begun.elapsed().as_micros(),
    );
    Ok(res)
}
