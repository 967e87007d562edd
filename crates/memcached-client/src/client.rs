//! The client: checks what it is asked, finds the server, and asks it.

use std::{
    borrow::Cow,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, RwLock, Weak},
    time::SystemTime,
};

use futures_util::future::join_all;
use tokio::{runtime, sync::watch};

use crate::{
    config::{Config, Failover, Protocol, STAND_IN_LIFETIME, ServerAddress},
    error::Error,
    health::{Health, ServerStatus},
    key::{self, KeyError},
    link::Link,
    ring::Ring,
    transport::{Cas, Checked, Deletion, Expiration, Item, Swap, Value, Verb},
};

/// What is run before a server that was out is used again; see [`Client::with_hook`].
type Hook = Box<dyn Fn(Client) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

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

/// What all handles and runtimes have in common. No socket is in it but through its links.
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    ring: Ring,
    health: Vec<Arc<Health>>,
    runtimes: RwLock<Vec<(runtime::Id, Arc<[Link]>)>>,
    /// What runtimes that have ended had counted.
    past: Mutex<Vec<[u64; 5]>>,
    /// Closed when this is dropped.
    alive: watch::Sender<()>,
    this: Weak<Shared>,
    pub(crate) before_return: Option<Hook>,
}

/// A part of a batch and where it is to be sent, or why it cannot be.
type Placed<T> = Result<(T, Place), Error>;

/// Where a key is to be sent.
#[derive(Clone, Copy)]
struct Place {
    server: usize,
    /// Not its own server, but one that stands in.
    stand_in: bool,
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
        let names: Vec<_> = config.servers.iter().map(ServerAddress::ring_name).collect();
        let shared = Arc::new_cyclic(|shared: &Weak<Shared>| Shared {
            ring: Ring::new(&names),
            health: config
                .servers
                .iter()
                .enumerate()
                .map(|(i, address)| Arc::new(Health::new(i, address.clone(), shared.clone())))
                .collect(),
            config: Arc::new(config),
            runtimes: RwLock::default(),
            past: Mutex::new(vec![[0; 5]; names.len()]),
            alive: watch::Sender::new(()),
            this: shared.clone(),
            before_return,
        });
        Self { shared, including: None }
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

    /// How each server is, and what has been asked of it.
    #[must_use]
    pub fn status(&self) -> Vec<ServerStatus> {
        (0..self.shared.health.len()).map(|server| self.shared.status_of(server)).collect()
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

    /// Deletes entries, in one round trip per server. Returns when all servers have confirmed it
    /// or failed.
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
        let health = &self.shared.health[server];
        if !health.is_out() || self.including == Some(server) {
            return true;
        }
        health.ensure_probe();
        false
    }

    /// Gives way to the probe when there is nowhere to go: nothing else may let it run on a runtime
    /// that does nothing but ask.
    async fn place(&self, key: &[u8]) -> Result<Place, Error> {
        let place = self.find_place(key);
        if place.is_err() {
            tokio::task::yield_now().await;
        }
        place
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

/// What of a batch goes to one server.
struct Share<P> {
    server: usize,
    /// Where the parts stood in the batch.
    positions: Vec<usize>,
    parts: Vec<P>,
}

/// Splits a batch by server.
fn shares<'b, B, P>(batch: &'b [Placed<B>], part_of: impl Fn(&'b B) -> P) -> Vec<Share<P>> {
    let mut shares: Vec<Share<P>> = Vec::new();
    for (position, placed) in batch.iter().enumerate() {
        let Ok((part, place)) = placed else { continue };
        let index = shares.iter().position(|share| share.server == place.server);
        let index = index.unwrap_or_else(|| {
            let (positions, parts) = (Vec::new(), Vec::new());
            shares.push(Share { server: place.server, positions, parts });
            shares.len() - 1
        });
        shares[index].positions.push(position);
        shares[index].parts.push(part_of(part));
    }
    shares
}

/// The outcomes of a batch in the order of its parts. A server that failed failed all its parts.
fn in_order<B, P, T>(
    batch: &[Placed<B>],
    shares: &[Share<P>],
    answers: impl Iterator<Item = Result<Vec<Result<T, Error>>, Error>>,
) -> Vec<Result<T, Error>> {
    let mut outcomes: Vec<_> =
        batch.iter().map(|placed| placed.as_ref().err().map(|e| Err(e.clone()))).collect();
    for (share, answers) in shares.iter().zip(answers) {
        match answers {
            Ok(answers) => {
                for (position, answer) in share.positions.iter().zip(answers) {
                    outcomes[*position] = Some(answer);
                }
            }
            Err(error) => {
                for position in &share.positions {
                    outcomes[*position] = Some(Err(error.clone()));
                }
            }
        }
    }
    let lost = || Err(Error::Refused { status: None, reason: "no answer".to_owned() });
    outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(lost)).collect()
}

impl Shared {
    pub(crate) fn health(&self, server: usize) -> &Health {
        &self.health[server]
    }

    /// The links of the current runtime.
    fn links(&self) -> Arc<[Link]> {
        let id = runtime::Handle::current().id();
        let of = |runtimes: &[(runtime::Id, Arc<[Link]>)]| {
            runtimes.iter().find(|(runtime, _)| *runtime == id).map(|(_, links)| Arc::clone(links))
        };
        if let Some(links) = of(&self.runtimes.read().unwrap_or_else(PoisonError::into_inner)) {
            return links;
        }
        let mut runtimes = self.runtimes.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(links) = of(&runtimes) {
            return links;
        }
        let new = |(server, health): (usize, &Arc<Health>)| {
            Link::new(&self.config, server, Arc::clone(health))
        };
        let links: Arc<[Link]> = self.health.iter().enumerate().map(new).collect();
        runtimes.push((id, Arc::clone(&links)));
        drop(runtimes);
        let (guard, mut alive) =
            (OnRuntime { id, shared: self.this.clone() }, self.alive.subscribe());
        tokio::spawn(async move {
            // Until the client or the runtime ends.
            while alive.changed().await.is_ok() {}
            drop(guard);
        });
        links
    }

    /// Forgets the links of a runtime that has ended, but not what they have counted.
    fn forget(&self, id: runtime::Id) {
        let mut runtimes = self.runtimes.write().unwrap_or_else(PoisonError::into_inner);
        let Some(index) = runtimes.iter().position(|(runtime, _)| *runtime == id) else { return };
        let (_, links) = runtimes.swap_remove(index);
        drop(runtimes);
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        for (past, link) in past.iter_mut().zip(links.iter()) {
            for (past, counted) in past.iter_mut().zip(link.counters().all()) {
                *past += counted;
            }
        }
    }

    fn status_of(&self, server: usize) -> ServerStatus {
        let runtimes = self.runtimes.read().unwrap_or_else(PoisonError::into_inner);
        let links = || runtimes.iter().map(|(_, links)| &links[server]);
        let mut sums = self.past.lock().unwrap_or_else(PoisonError::into_inner)[server];
        for link in links() {
            for (sum, counted) in sums.iter_mut().zip(link.counters().all()) {
                *sum += counted;
            }
        }
        let [hits, misses, sets, errors, timeouts] = sums;
        ServerStatus {
            address: self.config.servers[server].clone(),
            state: self.health[server].state(),
            outages: self.health[server].outages(),
            hits,
            misses,
            sets,
            errors,
            timeouts,
            in_flight: links().map(Link::in_flight).sum(),
        }
    }
}

/// Lives as long as a runtime, in a task of it.
struct OnRuntime {
    id: runtime::Id,
    shared: Weak<Shared>,
}

impl Drop for OnRuntime {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.forget(self.id);
        }
    }
}

impl Drop for Shared {
    /// Ends the tasks that serve connections.
    fn drop(&mut self) {
        let runtimes = self.runtimes.get_mut().unwrap_or_else(PoisonError::into_inner);
        runtimes.iter().flat_map(|(_, links)| links.iter()).for_each(Link::close);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("config", &self.shared.config).finish_non_exhaustive()
    }
}
