//! One server as seen from one runtime, whichever protocol is spoken to it.

use std::sync::Arc;

use crate::{
    binary,
    config::{Config, Protocol},
    error::Error,
    health::{Counters, Health},
    text,
    types::{Cas, Checked, Command, Deletion, Swap, Value, Verb},
};

#[derive(Debug)]
pub(crate) enum Link {
    Binary(Arc<binary::Link>),
    Text(text::Link),
}

impl Link {
    pub(crate) fn new(config: &Arc<Config>, server: usize, health: Arc<Health>) -> Self {
        let config = Arc::clone(config);
        match config.protocol {
            Protocol::Binary => Self::Binary(Arc::new(binary::Link::new(config, server, health))),
            Protocol::Text => Self::Text(text::Link::new(config, server, health)),
        }
    }

    pub(crate) fn counters(&self) -> &Counters {
        match self {
            Self::Binary(link) => &link.counters,
            Self::Text(link) => &link.counters,
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        match self {
            Self::Binary(link) => link.in_flight(),
            Self::Text(link) => link.in_flight(),
        }
    }

    /// Ends the connection. That of the text protocol ends by itself: no task serves it.
    pub(crate) fn close(&self) {
        if let Self::Binary(link) = self {
            link.retire(None);
        }
    }

    /// Callers' futures are kept small: the room for the text protocol's is in a box.
    pub(crate) async fn get(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        match self {
            Self::Binary(link) => link.get(key).await,
            Self::Text(link) => Box::pin(link.get(key)).await,
        }
    }

    pub(crate) async fn get_with_cas(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        match self {
            Self::Binary(link) => link.get(key).await,
            Self::Text(link) => Box::pin(link.get_with_cas(key)).await,
        }
    }

    pub(crate) async fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>, Error> {
        match self {
            Self::Binary(link) => link.get_many(keys).await,
            Self::Text(link) => link.get_many(keys).await,
        }
    }

    /// `None` if the condition of `verb` was not met, else the new mark where it is known.
    pub(crate) async fn store(
        &self,
        verb: Verb,
        item: Checked<'_>,
        with_cas: bool,
    ) -> Result<Option<Option<Cas>>, Error> {
        match self {
            Self::Binary(link) => link.store(verb, item).await,
            Self::Text(link) => link.store(verb, item, with_cas).await,
        }
    }

    pub(crate) async fn store_many(
        &self,
        items: &[Checked<'_>],
    ) -> Result<Vec<Result<(), Error>>, Error> {
        match self {
            Self::Binary(link) => link.store_many(items).await,
            Self::Text(link) => link.store_many(items).await,
        }
    }

    pub(crate) async fn compare_and_swap(
        &self,
        item: Checked<'_>,
        cas: Cas,
    ) -> Result<Swap, Error> {
        match self {
            Self::Binary(link) => link.compare_and_swap(item, cas).await,
            Self::Text(link) => link.compare_and_swap(item, cas).await,
        }
    }

    pub(crate) async fn delete(&self, key: &[u8]) -> Result<Deletion, Error> {
        match self {
            Self::Binary(link) => link.delete(key).await,
            Self::Text(link) => link.delete_many(&[key]).await?.pop().unwrap_or(Ok(Deletion::Gone)),
        }
    }

    pub(crate) async fn delete_if_unchanged(&self, key: &[u8], cas: Cas) -> Result<Swap, Error> {
        match self {
            Self::Binary(link) => link.delete_if_unchanged(key, cas).await,
            Self::Text(link) => link.delete_if_unchanged(key, cas).await,
        }
    }

    pub(crate) async fn delete_many(
        &self,
        keys: &[&[u8]],
    ) -> Result<Vec<Result<Deletion, Error>>, Error> {
        match self {
            Self::Binary(link) => link.delete_many(keys).await,
            Self::Text(link) => link.delete_many(keys).await,
        }
    }

    pub(crate) async fn touch(&self, key: &[u8], expiration: u32) -> Result<bool, Error> {
        match self {
            Self::Binary(link) => link.touch(key, expiration).await,
            Self::Text(_) => Err(Error::Unsupported(Command::Touch)),
        }
    }

    pub(crate) async fn count(
        &self,
        key: &[u8],
        delta: u64,
        up: bool,
    ) -> Result<Option<u64>, Error> {
        match self {
            Self::Binary(link) => link.count(key, delta, up).await,
            Self::Text(link) => link.count(key, delta, up).await,
        }
    }

    pub(crate) async fn flush(&self) -> Result<(), Error> {
        match self {
            Self::Binary(link) => link.flush().await,
            Self::Text(link) => link.flush().await,
        }
    }

    pub(crate) async fn version(&self) -> Result<String, Error> {
        match self {
            Self::Binary(link) => link.version().await,
            Self::Text(link) => link.version().await,
        }
    }

    pub(crate) async fn stats(&self) -> Result<Vec<(String, String)>, Error> {
        match self {
            Self::Binary(link) => link.stats().await,
            Self::Text(_) => Err(Error::Unsupported(Command::Stats)),
        }
    }

    pub(crate) async fn noop(&self) -> Result<(), Error> {
        match self {
            Self::Binary(link) => link.noop().await,
            Self::Text(link) => link.version().await.map(drop),
        }
    }
}
