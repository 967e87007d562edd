//! The client: validates keys and values, finds the server, and sends the operation.

use std::{borrow::Cow, fmt, future::Future, sync::Arc};

use futures_util::future::join_all;

use crate::{
    cluster::{
        BeforeReturn, Cluster, ServerLink,
        batch::{BatchItem, Place, in_order, split_by_server},
        link::Link,
    },
    config::{Config, Failover, Protocol, ServerAddress},
    error::Error,
    health::ServerStatus,
    key::{self, KeyError},
    types::{Cas, Deletion, Expiration, Item, StoreMode, Swap, Value, WireItem},
};

/// A client of one or more memcached servers. Clones share connections and state.
///
/// A client can be used from any number of tasks, threads and tokio runtimes. Its operations panic
/// outside of a runtime. Each runtime has its own connections, which are opened by the first
/// operation; the state of the servers is shared.
///
/// Dropping the future of an operation affects no other operation. It does not cancel the
/// operation: a write may or may not be carried out.
#[derive(Clone)]
pub struct Client {
    cluster: Arc<Cluster>,
    /// The server that this handle may use although it is down.
    including: Option<usize>,
}

impl Client {
    /// Creates a client that connects at its first operation.
    ///
    /// # Panics
    /// If `config.servers` is empty.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self::build(config, None)
    }

    /// Creates a client with a hook that runs when a server that was down can be reached again,
    /// before other operations use it: for example to delete entries that have become stale.
    ///
    /// The hook gets a client that can use the server already. The server stays down until the hook
    /// has returned `true` within 10 s; after a failure it runs again when the next probe succeeds.
    ///
    /// # Panics
    /// If `config.servers` is empty.
    #[must_use]
    pub fn with_hook<F>(
        config: Config,
        before_return: impl Fn(Client) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = bool> + Send + 'static,
    {
        let hook = move |cluster, server| -> std::pin::Pin<Box<dyn Future<Output = bool> + Send>> {
            Box::pin(before_return(Self { cluster, including: Some(server) }))
        };
        Self::build(config, Some(Box::new(hook)))
    }

    fn build(config: Config, before_return: Option<BeforeReturn>) -> Self {
        assert!(!config.servers.is_empty(), "a client needs at least one server");
        Self { cluster: Cluster::new(config, before_return), including: None }
    }

    /// Returns the protocol that is configured; [`Protocol::supports`] tells which commands it has.
    /// [`Client::status`] tells what each server speaks.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.cluster.config.protocol
    }

    /// Returns the server of `key` while all servers are up.
    pub fn server_of(&self, key: impl AsRef<[u8]>) -> Result<&ServerAddress, Error> {
        Ok(&self.cluster.config.servers[self.owner_of(key.as_ref())?])
    }

    fn owner_of(&self, key: &[u8]) -> Result<usize, Error> {
        Ok(self.cluster.owner_of(&self.on_wire(key)?))
    }

    /// Returns whether all of `keys` always live on one server, so that a batch with them is carried
    /// out in order.
    ///
    /// Returns `false` with [`Failover::Eject`] and several servers, because keys may move. Returns
    /// `false` with the text protocol too, because the server may be a proxy for several servers, and
    /// with [`Protocol::Auto`] until each server has been connected to.
    pub fn are_on_one_server<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<bool, Error> {
        let config = &self.cluster.config;
        let may_move = config.servers.len() > 1 && config.failover == Failover::Eject;
        if may_move || !self.cluster.are_multiplexed() {
            return Ok(false);
        }
        let owners: Result<Vec<_>, _> =
            keys.iter().map(|key| self.owner_of(key.as_ref())).collect();
        Ok(owners?.windows(2).all(|pair| pair[0] == pair[1]))
    }

    /// Returns the server that has come back, in a hook of [`Client::with_hook`]; elsewhere `None`.
    #[must_use]
    pub fn returning(&self) -> Option<&ServerAddress> {
        self.including.map(|server| &self.cluster.config.servers[server])
    }

    /// Returns the state of each server and the operations counted so far.
    #[must_use]
    pub fn status(&self) -> Vec<ServerStatus> {
        self.cluster.status()
    }

    /// Looks up `key`. [`Value::cas`] is not set with the text protocol.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>, Error> {
        let key = self.on_wire(key.as_ref())?;
        self.link(self.place(&key).await?).get(&key).await
    }

    /// Returns the largest item that is sent, in bytes of key and value ([`Config::max_item_bytes`]).
    #[must_use]
    pub fn max_item_bytes(&self) -> usize {
        self.cluster.config.max_item_bytes
    }

    /// Looks up `key` with its CAS token for [`Client::compare_and_swap`].
    pub async fn get_with_cas(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>, Error> {
        let key = self.on_wire(key.as_ref())?;
        self.link(self.place(&key).await?).get_with_cas(&key).await
    }

    /// Looks up `keys` in one round trip per server. Returns one result per key, in the same order.
    pub async fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Result<Option<Value>, Error>> {
        let keys = self.all_on_wire(keys);
        let (links, batches) = (self.cluster.links(), split_by_server(&keys, |key| &**key));
        let requests = batches.iter().map(|batch| links[batch.server].get_many(&batch.parts));
        let replies = join_all(requests).await.into_iter();
        in_order(&keys, &batches, replies.map(|values| Ok(values?.into_iter().map(Ok).collect())))
    }

    /// Stores a value, whether or not there is an entry.
    pub async fn set<'a>(
        &self,
        key: impl AsRef<[u8]>,
        item: impl Into<Item<'a>>,
    ) -> Result<(), Error> {
        self.store(StoreMode::Set, key.as_ref(), item.into(), false).await.map(drop)
    }

    /// Stores a value if there is no entry. Returns whether it was stored.
    pub async fn add<'a>(
        &self,
        key: impl AsRef<[u8]>,
        item: impl Into<Item<'a>>,
    ) -> Result<bool, Error> {
        Ok(self.store(StoreMode::Add, key.as_ref(), item.into(), false).await?.is_some())
    }

    /// Stores a value if there is no entry, and returns its CAS token if it was stored. A later
    /// [`Client::compare_and_swap`] with that token succeeds only if the entry has not been changed
    /// in between.
    ///
    /// With the text protocol this takes two round trips and counts as a lookup. The value should be
    /// unique: the second round trip reads it back, and returns the token if it is unchanged.
    ///
    /// Fails with [`Error::Refused`] if the server has no CAS tokens (`memcached -C`).
    pub async fn add_with_cas<'a>(
        &self,
        key: impl AsRef<[u8]>,
        item: impl Into<Item<'a>>,
    ) -> Result<Option<Cas>, Error> {
        match self.store(StoreMode::Add, key.as_ref(), item.into(), true).await? {
            Some(None) => {
                let reason = "it has no CAS tokens; start memcached without -C".to_owned();
                Err(Error::Refused { status: None, reason })
            }
            Some(cas) => Ok(cas),
            None => Ok(None),
        }
    }

    /// Stores a value if there is an entry. Returns whether it was stored. Not supported by the text
    /// protocol.
    pub async fn replace<'a>(
        &self,
        key: impl AsRef<[u8]>,
        item: impl Into<Item<'a>>,
    ) -> Result<bool, Error> {
        Ok(self.store(StoreMode::Replace, key.as_ref(), item.into(), false).await?.is_some())
    }

    async fn store(
        &self,
        mode: StoreMode,
        key: &[u8],
        item: Item<'_>,
        with_cas: bool,
    ) -> Result<Option<Option<Cas>>, Error> {
        let key = self.on_wire(key)?;
        let place = self.place(&key).await?;
        let item = self.wire_item(&key, item, place.stand_in)?;
        self.link(place).store(mode, item, with_cas).await
    }

    /// Stores values, whether or not there are entries, in one round trip per server. Returns one
    /// result per item, in the same order.
    pub async fn set_many<K: AsRef<[u8]>>(
        &self,
        items: &[(K, Item<'_>)],
    ) -> Vec<Result<(), Error>> {
        let keys = self.all_on_wire(items.iter().map(|(key, _)| key));
        let items: Vec<_> = keys
            .iter()
            .zip(items)
            .map(|(key, (_, item))| {
                let (key, place) = key.as_ref().map_err(Error::clone)?;
                Ok((self.wire_item(key, *item, place.stand_in)?, *place))
            })
            .collect();
        let (links, batches) = (self.cluster.links(), split_by_server(&items, |item| *item));
        let requests = batches.iter().map(|batch| links[batch.server].store_many(&batch.parts));
        in_order(&items, &batches, join_all(requests).await.into_iter())
    }

    /// Stores a value if the entry has not been changed since `cas` was read.
    pub async fn compare_and_swap<'a>(
        &self,
        key: impl AsRef<[u8]>,
        item: impl Into<Item<'a>>,
        cas: Cas,
    ) -> Result<Swap, Error> {
        let key = self.on_wire(key.as_ref())?;
        let place = self.place(&key).await?;
        let item = self.wire_item(&key, item.into(), place.stand_in)?;
        self.link(place).compare_and_swap(item, cas).await
    }

    /// Deletes an entry, and waits for the server to confirm it.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<Deletion, Error> {
        let key = self.on_wire(key.as_ref())?;
        self.link(self.place(&key).await?).delete(&key).await
    }

    /// Deletes an entry if it has not been changed since `cas` was read.
    pub async fn delete_if_unchanged(
        &self,
        key: impl AsRef<[u8]>,
        cas: Cas,
    ) -> Result<Swap, Error> {
        let key = self.on_wire(key.as_ref())?;
        self.link(self.place(&key).await?).delete_if_unchanged(&key, cas).await
    }

    /// Deletes entries in one round trip per server, in order on each server. Returns one result
    /// per key when all servers have answered or failed.
    pub async fn delete_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Result<Deletion, Error>> {
        let keys = self.all_on_wire(keys);
        let (links, batches) = (self.cluster.links(), split_by_server(&keys, |key| &**key));
        let requests = batches.iter().map(|batch| links[batch.server].delete_many(&batch.parts));
        in_order(&keys, &batches, join_all(requests).await.into_iter())
    }

    /// Changes the lifetime of an entry. Returns whether there is one. Not supported by the text
    /// protocol.
    pub async fn touch(
        &self,
        key: impl AsRef<[u8]>,
        expiration: Expiration,
    ) -> Result<bool, Error> {
        let key = self.on_wire(key.as_ref())?;
        let place = self.place(&key).await?;
        let expiration = expiration.on_server(place.stand_in);
        self.link(place).touch(&key, expiration).await
    }

    /// Adds `delta` to a number that is stored as decimal digits and returns the sum, which wraps
    /// around at 2⁶⁴. Returns `None` if there is no entry.
    ///
    /// ```
    /// # async fn f(client: memcached_client::Client) -> Result<(), memcached_client::Error> {
    /// // The first visitor stores the number, later ones add to it.
    /// if client.increment("visits", 1).await?.is_none() && !client.add("visits", "1").await? {
    ///     client.increment("visits", 1).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn increment(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<Option<u64>, Error> {
        let key = self.on_wire(key.as_ref())?;
        self.link(self.place(&key).await?).count(&key, delta, true).await
    }

    /// Subtracts `delta` from a number that is stored as decimal digits and returns the difference,
    /// which is never below 0. Returns `None` if there is no entry.
    pub async fn decrement(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<Option<u64>, Error> {
        let key = self.on_wire(key.as_ref())?;
        self.link(self.place(&key).await?).count(&key, delta, false).await
    }

    /// Deletes all entries of every server. Returns one result per server.
    pub async fn flush(&self) -> Vec<(ServerAddress, Result<(), Error>)> {
        self.everywhere(async |link| link.flush().await).await
    }

    /// Returns the version of every server.
    pub async fn version(&self) -> Vec<(ServerAddress, Result<String, Error>)> {
        self.everywhere(async |link| link.version().await).await
    }

    /// Returns the general-purpose statistics of every server as names and values (memcached's
    /// protocol.txt, "General-purpose statistics"). Not supported by the text protocol.
    pub async fn stats(&self) -> Vec<(ServerAddress, Result<Vec<(String, String)>, Error>)> {
        self.everywhere(async |link| link.stats().await).await
    }

    /// Sends a command without effect to every server. Returns one result per server.
    pub async fn noop(&self) -> Vec<(ServerAddress, Result<(), Error>)> {
        self.everywhere(async |link| link.noop().await).await
    }

    async fn everywhere<T>(
        &self,
        operation: impl AsyncFn(&Link) -> Result<T, Error>,
    ) -> Vec<(ServerAddress, Result<T, Error>)> {
        let links = self.cluster.links();
        let answers = links.iter().enumerate().map(|(server, link)| {
            let is_usable = self.cluster.is_usable(server, self.including);
            let (operation, address) = (&operation, self.cluster.config.servers[server].clone());
            async move {
                let down = || Error::ServerDown(address.clone());
                let outcome = if is_usable { operation(link).await } else { Err(down()) };
                (address, outcome)
            }
        });
        join_all(answers).await
    }

    /// Returns the key as it is sent, if the protocol in use can carry it.
    fn on_wire<'k>(&self, key: &'k [u8]) -> Result<Cow<'k, [u8]>, Error> {
        let key = key::on_wire(key)?;
        if self.protocol().is_text() && std::str::from_utf8(&key).is_err() {
            return Err(Error::Key(KeyError::NotUtf8));
        }
        Ok(key)
    }

    fn all_on_wire<'k, K: AsRef<[u8]> + 'k>(
        &self,
        keys: impl IntoIterator<Item = &'k K>,
    ) -> Vec<BatchItem<Cow<'k, [u8]>>> {
        keys.into_iter()
            .map(|key| {
                let key = self.on_wire(key.as_ref())?;
                let place = self.cluster.place(&key, self.including)?;
                Ok((key, place))
            })
            .collect()
    }

    /// Finds the server for a key. Yields once if the server is down: on a runtime whose only task
    /// sends operations, the probe would never run otherwise.
    async fn place(&self, key: &[u8]) -> Result<Place, Error> {
        match self.cluster.place(key, self.including) {
            Ok(place) => Ok(place),
            Err(error) => {
                // Boxed to keep the futures of the operations small.
                Box::pin(tokio::task::yield_now()).await;
                Err(error)
            }
        }
    }

    fn link(&self, place: Place) -> ServerLink {
        self.cluster.link(place.server)
    }

    /// Checks the size of an item and converts its lifetime.
    fn wire_item<'a>(
        &self,
        key: &'a [u8],
        item: Item<'a>,
        stand_in: bool,
    ) -> Result<WireItem<'a>, Error> {
        let bytes = key.len() + item.value.len();
        if bytes > self.cluster.config.max_item_bytes {
            return Err(Error::TooLarge { bytes });
        }
        let expiration = item.expiration.on_server(stand_in);
        Ok(WireItem { key, value: item.value, flags: item.flags, expiration })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("config", &self.cluster.config).finish_non_exhaustive()
    }
}
