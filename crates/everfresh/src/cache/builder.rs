//! How a cache is made.

use std::{fmt, time::Duration};

use crate::{
    backend::frame::Secret,
    backend::{Backend, Memory},
    cache::Cache,
};

/// How a cache is made: what keeps the entries comes first, the rest has defaults.
pub struct CacheBuilder {
    backend: MakeBackend,
    prefix: String,
    version: Option<u64>,
    secret: Secret,
    default_lifetime: Option<Duration>,
}

/// Given what stands before every key.
type MakeBackend = Box<dyn FnOnce(&str) -> Backend + Send>;

impl CacheBuilder {
    fn new(backend: impl FnOnce(&str) -> Backend + Send + 'static) -> Self {
        let backend = Box::new(backend);
        Self {
            backend,
            prefix: String::new(),
            version: None,
            secret: Secret::default(),
            default_lifetime: None,
        }
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

    /// Seals entries with a MAC (SipHash-2-4): who can write to the servers but does not know this
    /// key can delete entries, and bring back older ones, but neither make one nor move one to
    /// another key. All processes must have the same. What was sealed with the `previous` key is
    /// still read. Default: none, and the seal is but a checksum.
    #[must_use]
    pub fn secret(self, key: [u8; 16], previous: Option<[u8; 16]>) -> Self {
        Self { secret: Secret::new(key, previous), ..self }
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
        let prefix = self.prefix + &version;
        let backend = (self.backend)(&prefix);
        let secret = if backend.is_shared() { self.secret } else { Secret::unneeded() };
        Cache::new(backend, prefix, secret, self.default_lifetime)
    }
}

impl Cache {
    /// Entries in this process, in so many bytes at most; what has not been used for longest goes
    /// first. A single value may take a quarter of that.
    #[must_use]
    pub fn memory(bytes: usize) -> CacheBuilder {
        CacheBuilder::new(move |_| Backend::Memory(Memory::new(bytes)))
    }

    /// Entries in memcached servers.
    #[cfg(feature = "memcached")]
    #[must_use]
    pub fn memcached(client: memcached_client::Client) -> CacheBuilder {
        CacheBuilder::new(move |_| Backend::Memcached(crate::backend::Memcached(client)))
    }

    /// Entries in memcached servers. One that could not be reached is used again only when what is
    /// left in the ledger has been deleted from it: else it would serve for a moment, until the
    /// [`replay`](crate::replay()), what was written over meanwhile. While the ledger cannot be
    /// read, such a server stays out.
    #[cfg(feature = "memcached")]
    #[must_use]
    pub fn memcached_with_ledger(
        config: memcached_client::Config,
        ledger: impl crate::Ledger + 'static,
    ) -> CacheBuilder {
        let ledger = std::sync::Arc::new(ledger);
        CacheBuilder::new(move |prefix| {
            let prefix = prefix.to_owned();
            let client = memcached_client::Client::with_hook(config, move |client| {
                let (ledger, prefix) = (std::sync::Arc::clone(&ledger), prefix.clone());
                async move { crate::freshness::invalidation::catch_up(&client, &prefix, &*ledger).await }
            });
            Backend::Memcached(crate::backend::Memcached(client))
        })
    }

    /// No entries: everything is computed each time.
    #[must_use]
    pub fn null() -> CacheBuilder {
        CacheBuilder::new(|_| Backend::Null)
    }

    /// As if the servers could never be reached.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn failing() -> CacheBuilder {
        CacheBuilder::new(|_| Backend::Failing)
    }
}

impl fmt::Debug for CacheBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder")
            .field("prefix", &self.prefix)
            .field("version", &self.version)
            .field("default_lifetime", &self.default_lifetime)
            .finish_non_exhaustive()
    }
}
