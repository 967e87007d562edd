//! The id of a request, for logs and error pages.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use actix_web::{HttpMessage, HttpRequest, web::Data};

use crate::config::TrustedProxies;

/// Identifies a request: an id of its own, or that of a trusted proxy. Not a secret.
#[derive(Clone, Debug)]
pub(crate) enum RequestId {
    Own(u64),
    Proxy(Box<str>),
}

impl RequestId {
    fn new() -> Self {
        static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self::Own(SEED.hash_one(NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// Returns the id of `req`, which is made at the first call.
    pub(crate) fn of(req: &HttpRequest) -> Self {
        if let Some(id) = req.extensions().get::<Self>() {
            return id.clone();
        }
        let proxies = req.app_data::<Data<TrustedProxies>>();
        let given = proxies.and_then(|proxies| proxies.request_id(req));
        let id = given.map_or_else(Self::new, |id| Self::Proxy(id.into()));
        req.extensions_mut().insert(id.clone());
        id
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(number) => write!(f, "{number:016x}"),
            Self::Proxy(id) => f.write_str(id),
        }
    }
}
