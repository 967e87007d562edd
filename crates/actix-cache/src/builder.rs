//! How a cache is made.

use std::time::Duration;

use crate::{
    backend::{Backend, Memory},
    cache::Cache,
};

/// How a cache is made: what keeps the entries comes first, the rest has defaults.
#[derive(Debug)]
pub struct CacheBuilder {
    backend: Backend,
    prefix: String,
    version: Option<u64>,
    default_lifetime: Option<Duration>,
}

impl CacheBuilder {
    fn new(backend: Backend) -> Self {
        Self { backend, prefix: String::new(), version: None, default_lifetime: None }
    }

    /// Put before every key, as it is. Default: nothing.
    #[must_use]
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..self }
    }

    /// Another version is another cache: what has been stored under others is not seen, and not
    /// invalidated either. While processes of two versions run, each sees its own. Default: none.
    #[must_use]
    pub fn version(self, version: u64) -> Self {
        Self { version: Some(version), ..self }
    }

    /// What [`Lifetime::Default`](crate::Lifetime::Default) stands for. Default: for ever.
    #[must_use]
    pub fn default_lifetime(self, lifetime: Duration) -> Self {
        Self { default_lifetime: Some(lifetime), ..self }
    }

    /// The cache.
    #[must_use]
    pub fn build(self) -> Cache {
        let version = self.version.map(|version| format!("v{version}:")).unwrap_or_default();
        Cache::new(self.backend, self.prefix + &version, self.default_lifetime)
    }
}

impl Cache {
    /// Entries in this process, in so many bytes at most; what has not been used for longest goes
    /// first. A single value may take a quarter of that.
    #[must_use]
    pub fn memory(bytes: usize) -> CacheBuilder {
        CacheBuilder::new(Backend::Memory(Memory::new(bytes)))
    }

    /// Entries in memcached servers.
    #[cfg(feature = "memcached")]
    #[must_use]
    pub fn memcached(client: memcached_client::Client) -> CacheBuilder {
        CacheBuilder::new(Backend::Memcached(crate::backend::Memcached(client)))
    }

    /// No entries: everything is computed each time.
    #[must_use]
    pub fn null() -> CacheBuilder {
        CacheBuilder::new(Backend::Null)
    }

    /// As if the servers could never be reached.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn failing() -> CacheBuilder {
        CacheBuilder::new(Backend::Failing)
    }
}
