//! The client: checks what it is asked, finds the server, and asks it.

use std::{borrow::Cow, fmt, future::Future, sync::Arc, time::SystemTime};

use futures_util::future::join_all;

use crate::{
    cluster::{
        Hook, Shared,
        batch::{Place, Placed, in_order, shares},
        link::Link,
    },
    config::{Config, Failover, Protocol, STAND_IN_LIFETIME, ServerAddress},
    error::Error,
    health::ServerStatus,
    key::{self, KeyError},
    types::{Cas, Checked, Deletion, Expiration, Item, Swap, Value, Verb},
};

/// A client of a list of memcached servers. Cloning is cheap and shares everything.
///
/// It may be used from any number of tasks, threads and tokio runtimes, and panics outside of one.
/// Each runtime gets its own
/// connections, opened when they are first needed; what is known of the servers' health is shared.
///
/// Dropping the future of an operation disturbs no other. It does not take the operation back:
/// a write may or may not have been carried out.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    /// A server that this handle may use although it is out.
    including: Option<usize>,
}

impl Client {
    /// A client that connects when it is first asked for something.
    ///
    /// # Panics
    /// If `config.servers` is empty.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self::build(config, None)
    }

    /// Likewise, with something to do whenever a server that was out can be reached again, before
    /// anybody else uses it: deleting what has become wrong meanwhile, say. The hook gets a client
    /// that may use the server already. When it returns `false`, the server stays out, and the hook
    /// is run again after the next successful probe.
    #[must_use]
    pub fn with_hook<F>(
        config: Config,
        before_return: impl Fn(Client) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = bool> + Send + 'static,
    {
        Self::build(config, Some(Box::new(move |client| Box::pin(before_return(client)))))
    }

    fn build(config: Config, before_return: Option<Hook>) -> Self {
        assert!(!config.servers.is_empty(), "a client needs at least one server");
        Self { shared: Shared::new(config, before_return), including: None }
    }

    /// A handle for the hook that lets `server` back in.
    pub(crate) fn including(shared: &Arc<Shared>, server: usize) -> Self {
        Self { shared: Arc::clone(shared), including: Some(server) }
    }

    /// The protocol in use; [`Protocol::supports`] tells what it has.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.shared.config.protocol
    }

    /// The server that `key` lives on while all are well.
    pub fn server_of(&self, key: impl AsRef<[u8]>) -> Result<&ServerAddress, Error> {
        let key = self.on_wire(key.as_ref())?;
        Ok(&self.shared.config.servers[self.shared.ring.owner_of(&key)])
    }

    /// Whether all of `keys` are on one server whatever happens, so that a batch about them is carried
    /// out in their order. Never with [`Failover::Eject`] and several servers, nor with the text
    /// protocol, which proxies before several servers speak.
    pub fn are_on_one_server<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<bool, Error> {
        let config = &self.shared.config;
        let may_move = config.servers.len() > 1 && config.failover == Failover::Eject;
        if may_move || config.protocol == Protocol::Text {
            return Ok(false);
        }
        let owners = keys.iter().map(|key| {
            let key = self.on_wire(key.as_ref())?;
            Ok(self.shared.ring.owner_of(&key))
        });
        let owners = owners.collect::<Result<Vec<_>, Error>>()?;
        Ok(owners.windows(2).all(|pair| pair[0] == pair[1]))
    }

    /// In a hook: the server that is about to be used again ([`Client::with_hook`]).
    #[must_use]
    pub fn returning(&self) -> Option<&ServerAddress> {
        self.including.map(|server| &self.shared.config.servers[server])
    }

    /// How each server is, and what has been asked of it.
    #[must_use]
    pub fn status(&self) -> Vec<ServerStatus> {
        self.shared.status()
    }

    /// The value of `key`, if it has one. [`Value::cas`] is there with the binary protocol only.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>, Error> {
        let key = self.on_wire(key.as_ref())?;
        self.link(self.place(&key).await?).get(&key).await
    }

    /// The value of `key` with its mark for [`Client::compare_and_swap`].
    pub async fn get_with_cas(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>, Error> {
        let key = self.on_wire(key.as_ref())?;
        self.link(self.place(&key).await?).get_with_cas(&key).await
    }

    /// The values of `keys`, in their order, in one round trip per server.
    pub async fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Result<Option<Value>, Error>> {
        let keys = self.all_on_wire(keys);
        let (links, shares) = (self.shared.links(), shares(&keys, |key| &**key));
        let asked = shares.iter().map(|share| links[share.server].get_many(&share.parts));
        let answers = join_all(asked).await.into_iter();
        let answers = answers.map(|answer| answer.map(|v| v.into_iter().map(Ok).collect()));
        in_order(&keys, &shares, answers)
    }

    /// Stores a value, whatever was there.
    pub async fn set<'a>(
        &self,
        key: impl AsRef<[u8]>,
        item: impl Into<Item<'a>>,
    ) -> Result<(), Error> {
        self.store(Verb::Set, key.as_ref(), item.into(), false).await.map(drop)
    }

    /// Stores a value if there is none. Whether it did.
    pub async fn add<'a>(
        &self,
        key: impl AsRef<[u8]>,
        item: impl Into<Item<'a>>,
    ) -> Result<bool, Error> {
        Ok(self.store(Verb::Add, key.as_ref(), item.into(), false).await?.is_some())
    }

    /// Stores a value if there is none, and returns its mark if it did: with that, a later
    /// [`Client::compare_and_swap`] succeeds only if nobody has touched the entry in between.
    ///
    /// With the text protocol it takes two round trips, and counts as a get; the value should be
    /// one that nobody else would add.
    pub async fn add_with_cas<'a>(
        &self,
        key: impl AsRef<[u8]>,
        item: impl Into<Item<'a>>,
    ) -> Result<Option<Cas>, Error> {
        match self.store(Verb::Add, key.as_ref(), item.into(), true).await? {
            Some(None) => {
                Err(Error::Refused { status: None, reason: "it keeps no CAS ids".to_owned() })
            }
            Some(cas) => Ok(cas),
            None => Ok(None),
        }
    }

    /// Stores a value if there is one. Whether it did. Not with the text protocol.
    pub async fn replace<'a>(
        &self,
        key: impl AsRef<[u8]>,
        item: impl Into<Item<'a>>,
    ) -> Result<bool, Error> {
        Ok(self.store(Verb::Replace, key.as_ref(), item.into(), false).await?.is_some())
    }

    async fn store(
        &self,
        verb: Verb,
        key: &[u8],
        item: Item<'_>,
        with_cas: bool,
    ) -> Result<Option<Option<Cas>>, Error> {
        let key = self.on_wire(key)?;
        let place = self.place(&key).await?;
        let item = self.checked(&key, item, place.stand_in)?;
        self.link(place).store(verb, item, with_cas).await
    }

    /// Stores values, whatever was there, in one round trip per server.
    pub async fn set_many<K: AsRef<[u8]>>(
        &self,
        items: &[(K, Item<'_>)],
    ) -> Vec<Result<(), Error>> {
        let keys: Vec<_> = items.iter().map(|(key, _)| key).collect();
        let places = self.all_on_wire(&keys);
        let checked: Vec<_> = places
            .iter()
            .zip(items)
            .map(|(placed, (_, item))| {
                let (key, place) = placed.as_ref().map_err(Error::clone)?;
                Ok((self.checked(key, *item, place.stand_in)?, *place))
            })
            .collect();
        let (links, shares) = (self.shared.links(), shares(&checked, |item| *item));
        let asked = shares.iter().map(|share| links[share.server].store_many(&share.parts));
        in_order(&checked, &shares, join_all(asked).await.into_iter())
    }

    /// Stores a value if the entry is still the one that `cas` marks.
    pub async fn compare_and_swap<'a>(
        &self,
        key: impl AsRef<[u8]>,
        item: impl Into<Item<'a>>,
        cas: Cas,
    ) -> Result<Swap, Error> {
        let key = self.on_wire(key.as_ref())?;
        let place = self.place(&key).await?;
        let item = self.checked(&key, item.into(), place.stand_in)?;
        self.link(place).compare_and_swap(item, cas).await
    }

    /// Deletes an entry. Returns when the server has confirmed it.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<Deletion, Error> {
        let key = self.on_wire(key.as_ref())?;
        self.link(self.place(&key).await?).delete(&key).await
    }

    /// Deletes an entry if it is still the one that `cas` marks.
    pub async fn delete_if_unchanged(
        &self,
        key: impl AsRef<[u8]>,
        cas: Cas,
    ) -> Result<Swap, Error> {
        let key = self.on_wire(key.as_ref())?;
        self.link(self.place(&key).await?).delete_if_unchanged(&key, cas).await
    }

    /// Deletes entries, in one round trip per server, and in their order on each. Returns when all
    /// servers have confirmed it or failed.
    pub async fn delete_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Result<Deletion, Error>> {
        let keys = self.all_on_wire(keys);
        let (links, shares) = (self.shared.links(), shares(&keys, |key| &**key));
        let asked = shares.iter().map(|share| links[share.server].delete_many(&share.parts));
        in_order(&keys, &shares, join_all(asked).await.into_iter())
    }

    /// Gives an entry another lifetime. Whether there is one. Not with the text protocol.
    pub async fn touch(
        &self,
        key: impl AsRef<[u8]>,
        expiration: Expiration,
    ) -> Result<bool, Error> {
        let key = self.on_wire(key.as_ref())?;
        let place = self.place(&key).await?;
        let expiration = self.on_place(expiration, place.stand_in);
        self.link(place).touch(&key, expiration).await
    }

    /// Adds to a number that is stored as decimal digits, and returns it; `None` if there is none.
    /// It wraps around at 2⁶⁴.
    pub async fn increment(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<Option<u64>, Error> {
        let key = self.on_wire(key.as_ref())?;
        self.link(self.place(&key).await?).count(&key, delta, true).await
    }

    /// Subtracts from a number likewise, down to 0.
    pub async fn decrement(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<Option<u64>, Error> {
        let key = self.on_wire(key.as_ref())?;
        self.link(self.place(&key).await?).count(&key, delta, false).await
    }

    /// Empties every server: what each answered.
    pub async fn flush(&self) -> Vec<(ServerAddress, Result<(), Error>)> {
        self.everywhere(async |link| link.flush().await).await
    }

    /// The version of every server.
    pub async fn version(&self) -> Vec<(ServerAddress, Result<String, Error>)> {
        self.everywhere(async |link| link.version().await).await
    }

    /// Every server's own statistics, as name and value. Not with the text protocol.
    pub async fn stats(&self) -> Vec<(ServerAddress, Result<Vec<(String, String)>, Error>)> {
        self.everywhere(async |link| link.stats().await).await
    }

    /// Asks every server for nothing but an answer.
    pub async fn noop(&self) -> Vec<(ServerAddress, Result<(), Error>)> {
        self.everywhere(async |link| link.noop().await).await
    }

    async fn everywhere<T>(
        &self,
        ask: impl AsyncFn(&Link) -> Result<T, Error>,
    ) -> Vec<(ServerAddress, Result<T, Error>)> {
        let links = self.shared.links();
        let answers = links.iter().enumerate().map(|(server, link)| {
            let (usable, ask) = (self.is_usable(server), &ask);
            let address = self.shared.config.servers[server].clone();
            async move {
                let answer =
                    if usable { ask(link).await } else { Err(Error::ServerOut(address.clone())) };
                (address, answer)
            }
        });
        join_all(answers).await
    }

    /// The key as it is sent, if it can be with the protocol in use.
    fn on_wire<'k>(&self, key: &'k [u8]) -> Result<Cow<'k, [u8]>, Error> {
        let key = key::on_wire(key)?;
        if self.protocol() == Protocol::Text && std::str::from_utf8(&key).is_err() {
            return Err(Error::Key(KeyError::NotUtf8));
        }
        Ok(key)
    }

    fn all_on_wire<'k, K: AsRef<[u8]>>(&self, keys: &'k [K]) -> Vec<Placed<Cow<'k, [u8]>>> {
        let placed = keys.iter().map(|key| {
            let key = self.on_wire(key.as_ref())?;
            let place = self.find_place(&key)?;
            Ok((key, place))
        });
        placed.collect()
    }

    fn is_usable(&self, server: usize) -> bool {
        let health = self.shared.health(server);
        if !health.is_out() || self.including == Some(server) {
            return true;
        }
        health.ensure_probe();
        false
    }

    /// Gives way to the probe when there is nowhere to go: nothing else may let it run on a runtime
    /// that does nothing but ask.
    async fn place(&self, key: &[u8]) -> Result<Place, Error> {
        match self.find_place(key) {
            Ok(place) => Ok(place),
            Err(error) => {
                // In a box: callers' futures are kept small.
                Box::pin(tokio::task::yield_now()).await;
                Err(error)
            }
        }
    }

    fn find_place(&self, key: &[u8]) -> Result<Place, Error> {
        let owner = self.shared.ring.owner_of(key);
        if self.is_usable(owner) {
            return Ok(Place { server: owner, stand_in: false });
        }
        let out = || Error::ServerOut(self.shared.config.servers[owner].clone());
        match self.shared.config.failover {
            Failover::Miss => Err(out()),
            Failover::Eject => {
                let server = self.shared.ring.server_of(key, |server| self.is_usable(server));
                Ok(Place { server: server.ok_or_else(out)?, stand_in: true })
            }
        }
    }

    fn link(&self, place: Place) -> ServerLink {
        ServerLink { links: self.shared.links(), server: place.server }
    }

    /// The lifetime as sent; on a server that stands in for another it is short. The text protocol
    /// takes a moment after 2038 for one that is over.
    fn on_place(&self, expiration: Expiration, stand_in: bool) -> u32 {
        let now = SystemTime::now();
        let expiration =
            if stand_in { expiration.at_most(STAND_IN_LIFETIME, now) } else { expiration };
        match expiration.on_wire(now) {
            far if self.protocol() == Protocol::Text && i32::try_from(far).is_err() => 0,
            moment => moment,
        }
    }

    fn checked<'a>(
        &self,
        key: &'a [u8],
        item: Item<'a>,
        stand_in: bool,
    ) -> Result<Checked<'a>, Error> {
        let bytes = key.len() + item.value.len();
        if bytes > self.shared.config.max_item_bytes {
            return Err(Error::TooLarge { bytes });
        }
        let expiration = self.on_place(item.expiration, stand_in);
        Ok(Checked { key, value: item.value, flags: item.flags, expiration })
    }
}

/// One server's connection on the current runtime.
struct ServerLink {
    links: Arc<[Link]>,
    server: usize,
}

impl std::ops::Deref for ServerLink {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.links[self.server]
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("config", &self.shared.config).finish_non_exhaustive()
    }
}
