//! The client: validates keys and values, finds the server, and sends the operation.

mod batch;
mod counters;
mod servers;

use std::{borrow::Cow, fmt, future::Future, sync::Arc};

use crate::{
    address::ServerAddress,
    cluster::{BeforeReturn, Cluster, ServerLink, batch::Place},
    config::{Config, Distribution, Failover},
    error::Error,
    health::ServerStatus,
    key::{self, KeyError},
    protocol::Protocol,
    types::{Cas, Deletion, Expiration, Item, Reservation, StoreMode, Swap, Value, WireItem},
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
    /// If `config.servers` is empty, or [`Distribution::KetamaWeighted`] has not one weight of at least 1 for
    /// each server.
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
    /// If `config.servers` is empty, or [`Distribution::KetamaWeighted`] has not one weight of at least 1 for
    /// each server.
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
        if let Distribution::KetamaWeighted(weights) = &config.distribution {
            let is_valid = weights.len() == config.servers.len() && !weights.contains(&0);
            assert!(is_valid, "each server needs a weight of at least 1");
        }
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

    /// Looks up `key`, and reserves it by a placeholder if there is no entry, in one round trip. Of
    /// several clients that ask at once, one reserves the key: it alone needs to compute the value, which it
    /// then stores by [`Client::compare_and_swap`] with the token. That is refused if the placeholder has been
    /// deleted meanwhile, so that a value that was computed from old data is not stored. (This is the lease
    /// of "Scaling Memcache at Facebook", section 3.2.1.)
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use memcached_client::{Client, Error, Item, Reservation};
    /// # async fn f(client: Client) -> Result<(), Error> {
    /// let placeholder = Item::from("being computed").expires_in(Duration::from_secs(10));
    /// match client.get_or_reserve("page", placeholder).await? {
    ///     Reservation::Found(value) => println!("{:?}", value.data),
    ///     Reservation::Reserved(Some(cas)) => {
    ///         client.compare_and_swap("page", "<p>computed</p>", cas).await?;
    ///     }
    ///     _ => println!("computed, but not stored"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// With the meta protocol the placeholder has only the lifetime of `placeholder`: its value is empty. The
    /// text protocol takes up to three round trips.
    pub async fn get_or_reserve<'a>(
        &self,
        key: impl AsRef<[u8]>,
        placeholder: impl Into<Item<'a>>,
    ) -> Result<Reservation, Error> {
        let key = self.on_wire(key.as_ref())?;
        let place = self.place(&key).await?;
        let item = self.wire_item(&key, placeholder.into(), place.stand_in)?;
        self.link(place).get_or_reserve(item).await
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
        let key = key.as_ref();
        match self.store(StoreMode::Add, key, item.into(), true).await? {
            Some(None) => {
                let reason = "it has no CAS tokens; start memcached without -C".to_owned();
                let (server, key) = (self.server_of(key)?.clone(), Some(key::shown(key)));
                Err(Error::Refused { server, key, status: None, reason })
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

    /// Appends bytes to the value of an entry, which keeps its flags and lifetime. Returns `false` if there
    /// is none. Not supported by the text protocol. A compressed value cannot be extended: its bytes become
    /// those that were stored.
    pub async fn append(
        &self,
        key: impl AsRef<[u8]>,
        bytes: impl AsRef<[u8]>,
    ) -> Result<bool, Error> {
        let item = Item::from(bytes.as_ref());
        Ok(self.store(StoreMode::Append, key.as_ref(), item, false).await?.is_some())
    }

    /// Puts bytes before the value of an entry, like [`Client::append`].
    pub async fn prepend(
        &self,
        key: impl AsRef<[u8]>,
        bytes: impl AsRef<[u8]>,
    ) -> Result<bool, Error> {
        let item = Item::from(bytes.as_ref());
        Ok(self.store(StoreMode::Prepend, key.as_ref(), item, false).await?.is_some())
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

    /// Looks up `key` and changes the lifetime of its entry. Not supported by the text protocol.
    pub async fn get_and_touch(
        &self,
        key: impl AsRef<[u8]>,
        expiration: Expiration,
    ) -> Result<Option<Value>, Error> {
        let key = self.on_wire(key.as_ref())?;
        let place = self.place(&key).await?;
        let expiration = expiration.on_server(place.stand_in);
        self.link(place).get_and_touch(&key, expiration).await
    }

    /// Returns the key as it is sent, if the protocol in use can carry it.
    fn on_wire<'k>(&self, key: &'k [u8]) -> Result<Cow<'k, [u8]>, Error> {
        let invalid = |reason| Error::Key { key: key::shown(key), reason };
        let key = key::on_wire(key).map_err(invalid)?;
        if self.protocol().is_text() && std::str::from_utf8(&key).is_err() {
            return Err(invalid(KeyError::NotUtf8));
        }
        Ok(key)
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
        let config = &self.cluster.config;
        #[cfg(feature = "compression")]
        let may_shrink = config.compression.is_wanted(item.value.len());
        #[cfg(not(feature = "compression"))]
        let may_shrink = false;
        if !may_shrink {
            config.check_size(key, item.value.len())?;
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
