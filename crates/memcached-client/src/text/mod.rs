//! The text protocol, by the crate memcache-async: one operation at a time on one connection per
//! server and runtime.
//!
//! What that crate leaves open is done here: log-in, deadlines, keys that are checked before they
//! come here, a round trip after what it sends without asking for an answer, and a connection that
//! is closed when an operation is given up half way, or when the answer is not one
//! (`watched`).

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::timeout,
};

use crate::{
    config::{Config, ServerAddress},
    error::Error,
    health::{Counters, Health, Outage},
    key::KeyError,
    types::{Cas, Checked, Command, Deletion, EXPIRED, Swap, Value, Verb},
};

mod session;
mod watched;

pub(crate) use session::establish;
use session::{Session, outage_of};
use watched::Answer;

/// How often a session that is being opened looks whether the server has come back meanwhile.
const RECHECK: Duration = Duration::from_millis(50);

/// One server, as seen from one runtime.
pub(crate) struct Link {
    config: Arc<Config>,
    address: ServerAddress,
    health: Arc<Health>,
    pub(crate) counters: Counters,
    waiting: AtomicUsize,
    session: Arc<Mutex<Option<Session>>>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("address", &self.address).finish_non_exhaustive()
    }
}

/// How an operation that was carried out on a session came out.
enum Outcome<T> {
    /// The session can go on.
    Done(T),
    /// The server refused; what it may still send is not known, so the session ends.
    Refused(String),
}

/// One of those who wait for the session; no more when this is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Link {
    pub(crate) fn new(config: Arc<Config>, server: usize, health: Arc<Health>) -> Self {
        Self {
            address: config.servers[server].clone(),
            config,
            health,
            counters: Counters::default(),
            waiting: AtomicUsize::new(0),
            session: Arc::default(),
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Carries out `operation`, which gets so many `replies`, on the session and within the
    /// deadline; `None` if it must be on a session that is no more. Returns the session's number
    /// too.
    async fn with<T>(
        &self,
        only_on: Option<u64>,
        replies: u32,
        operation: impl AsyncFnOnce(&mut Session) -> io::Result<T>,
    ) -> Result<Option<(T, u64)>, Error> {
        let limit = self.config.max_in_flight;
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= limit {
            drop(Waiting(&self.waiting));
            let error = Error::Overloaded { server: self.address.clone(), limit };
            self.counters.failed(&error);
            return Err(error);
        }
        let _waiting = Waiting(&self.waiting);
        let begun = OnceLock::new();
        let carrying_out = self.carry_out(only_on, replies, &begun, operation);
        match timeout(self.config.timeout, carrying_out).await {
            Ok(Ok(None)) => Ok(None),
            Ok(Ok(Some((Outcome::Done(value), number)))) => Ok(Some((value, number))),
            Ok(Ok(Some((Outcome::Refused(reason), _)))) => {
                let error = Error::Refused { status: None, reason };
                self.counters.failed(&error);
                Err(error)
            }
            Ok(Err(outage)) => Err(self.fail(outage, true)),
            // Who has mostly waited for others knows nothing of the server.
            Err(_) => {
                let asked_for = begun.get().map_or(Duration::ZERO, Instant::elapsed);
                Err(self.fail(Outage::Timeout, asked_for >= self.config.timeout / 2))
            }
        }
    }

    fn fail(&self, outage: Outage, is_servers_fault: bool) -> Error {
        let error = outage.to_error(&self.address, self.config.timeout);
        self.counters.failed(&error);
        if is_servers_fault {
            self.health.mark_out(outage);
        }
        error
    }

    /// The session is taken while it is used and put back when it is whole: if this future is
    /// dropped in between, the connection closes.
    async fn carry_out<T>(
        &self,
        only_on: Option<u64>,
        replies: u32,
        begun: &OnceLock<Instant>,
        operation: impl AsyncFnOnce(&mut Session) -> io::Result<T>,
    ) -> Result<Option<(Outcome<T>, u64)>, Outage> {
        let mut place = Arc::clone(&self.session).lock_owned().await;
        begun.get_or_init(Instant::now);
        // What was open before an outage may lead nowhere now.
        place.take_if(|session| session.open_since != self.health.outages());
        if only_on.is_some_and(|number| place.as_ref().is_none_or(|s| s.number != number)) {
            return Ok(None);
        }
        if place.is_none() {
            place = self.open(place).await?;
        }
        let Some(mut session) = place.take() else { return Ok(None) };
        session.watch.begin();
        let outcome = operation(&mut session).await;
        match (outcome, session.watch.last()) {
            // What else may come is not known: the session ends.
            (Err(_), Some(Answer::Error(words))) => Ok(Some((Outcome::Refused(words), 0))),
            (Err(error), _) => Err(outage_of(&error)),
            (Ok(_), _) if !session.watch.is_clean(replies) => {
                Err(Outage::Garbage("more or less than was asked for".to_owned()))
            }
            (Ok(value), _) => {
                let number = session.number;
                *place = Some(session);
                Ok(Some((Outcome::Done(value), number)))
            }
        }
    }

    /// Opens a session in a task of its own: it goes on when the operation that wanted it has run
    /// out of time, but not when the server has gone and come back meanwhile.
    async fn open(
        &self,
        mut place: OwnedMutexGuard<Option<Session>>,
    ) -> Result<OwnedMutexGuard<Option<Session>>, Outage> {
        let (config, health) = (Arc::clone(&self.config), Arc::clone(&self.health));
        let (address, begun_after) = (self.address.clone(), health.returns());
        let opening = tokio::spawn(async move {
            let establish = timeout(config.connect_timeout, establish(&address, &config));
            let mut establish = std::pin::pin!(establish);
            let mut session = loop {
                match timeout(RECHECK, establish.as_mut()).await {
                    Ok(opened) => break opened.unwrap_or(Err(Outage::Timeout))?,
                    Err(_) if begun_after == health.returns() => {}
                    Err(_) => return Err(Outage::Connection("it was given up".to_owned())),
                }
            };
            session.open_since = health.outages();
            *place = Some(session);
            Ok(place)
        });
        opening.await.unwrap_or_else(|e| Err(Outage::Connection(e.to_string())))
    }

    async fn on_any<T>(
        &self,
        replies: u32,
        operation: impl AsyncFnOnce(&mut Session) -> io::Result<T>,
    ) -> Result<(T, u64), Error> {
        let outcome = self.with(None, replies, operation).await?;
        outcome.ok_or_else(|| Error::ServerOut(self.address.clone()))
    }

    pub(crate) async fn get(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        let name = utf8(key)?;
        let get = async |session: &mut Session| {
            let data = found(session.protocol.get(key).await)?;
            session.is_of(data, name)
        };
        let (data, _) = self.on_any(1, get).await?;
        self.counters.found(usize::from(data.is_some()), 1);
        Ok(data.map(|data| Value { data: data.into(), flags: 0, cas: None }))
    }

    pub(crate) async fn get_with_cas(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        let name = utf8(key)?;
        let get = async |session: &mut Session| {
            let entry = found(session.protocol.gets_cas(key).await)?;
            session.is_of(entry, name)
        };
        let (entry, connection) = self.on_any(1, get).await?;
        self.counters.found(usize::from(entry.is_some()), 1);
        Ok(entry.map(|(data, id)| Value {
            data: data.into(),
            flags: 0,
            cas: Cas::new(id, connection),
        }))
    }

    pub(crate) async fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>, Error> {
        let names = keys.iter().map(|key| utf8(key)).collect::<Result<Vec<_>, _>>()?;
        let get = async |session: &mut Session| session.protocol.get_multi(&names).await;
        let (entries, _) = self.on_any(1, get).await?;
        let value = |data: &Vec<u8>| Value { data: data.clone().into(), flags: 0, cas: None };
        let values: Vec<_> = names.iter().map(|name| entries.get(*name).map(value)).collect();
        self.counters.found(values.iter().flatten().count(), values.len());
        Ok(values)
    }

    /// Whether it was stored, and its mark where it is known. An `Add` that is to be followed by a swap wants its mark, which
    /// costs another round trip.
    pub(crate) async fn store(
        &self,
        verb: Verb,
        item: Checked<'_>,
        with_cas: bool,
    ) -> Result<Option<Option<Cas>>, Error> {
        if verb == Verb::Replace {
            return Err(Error::Unsupported(Command::Replace));
        }
        let key = checked(&item)?;
        let store = async |session: &mut Session| match verb {
            Verb::Add => session.add(key, &item).await,
            Verb::Set | Verb::Replace => {
                session.protocol.set(key, item.value, item.expiration).await?;
                session.protocol.version().await.map(|_| true)
            }
        };
        let (is_stored, connection) = self.on_any(1, store).await?;
        Counters::count(&self.counters.sets, usize::from(is_stored));
        if is_stored && with_cas {
            return self.mark_of(&item, connection).await;
        }
        Ok(is_stored.then_some(None))
    }

    /// The mark of an item that has just been added. `None`: somebody has changed it already, or
    /// the session has ended.
    async fn mark_of(
        &self,
        item: &Checked<'_>,
        connection: u64,
    ) -> Result<Option<Option<Cas>>, Error> {
        let get = async |session: &mut Session| found(session.protocol.gets_cas(item.key).await);
        let Some((entry, _)) = self.with(Some(connection), 1, get).await? else { return Ok(None) };
        self.counters.found(usize::from(entry.is_some()), 1);
        let is_own = entry.filter(|(value, _)| value == item.value);
        Ok(is_own.map(|(_, id)| Cas::new(id, connection)))
    }

    pub(crate) async fn store_many(
        &self,
        items: &[Checked<'_>],
    ) -> Result<Vec<Result<(), Error>>, Error> {
        let outcomes: Vec<_> = items.iter().map(checked).collect();
        let store = async |session: &mut Session| {
            for (item, key) in items.iter().zip(&outcomes) {
                if let Ok(key) = key {
                    session.protocol.set(key, item.value, item.expiration).await?;
                }
            }
            session.protocol.version().await
        };
        self.on_any(1, store).await?;
        Counters::count(&self.counters.sets, outcomes.iter().filter(|o| o.is_ok()).count());
        Ok(outcomes.into_iter().map(|outcome| outcome.map(drop)).collect())
    }

    pub(crate) async fn compare_and_swap(
        &self,
        item: Checked<'_>,
        cas: Cas,
    ) -> Result<Swap, Error> {
        let swap = self.swap(item, cas).await?;
        Counters::count(&self.counters.sets, usize::from(matches!(swap, Swap::Done(_))));
        Ok(swap)
    }

    /// The text protocol cannot delete conditionally; it can store what has expired already.
    pub(crate) async fn delete_if_unchanged(&self, key: &[u8], cas: Cas) -> Result<Swap, Error> {
        self.swap(Checked { key, value: &[], flags: 0, expiration: EXPIRED }, cas).await
    }

    async fn swap(&self, item: Checked<'_>, cas: Cas) -> Result<Swap, Error> {
        let key = checked(&item)?;
        let swap = async |session: &mut Session| {
            match session.protocol.cas(key, item.value, cas.id(), item.expiration).await {
                Ok(true) => Ok(Swap::Done(None)),
                Ok(false) => Ok(Swap::Changed),
                // memcache-async does not know the server's spelling of this.
                Err(error)
                    if error.kind() == io::ErrorKind::Other
                        && session.watch.last() == Some(Answer::NotFound) =>
                {
                    Ok(Swap::Missing)
                }
                Err(error) => Err(error),
            }
        };
        let swapped = self.with(Some(cas.connection()), 1, swap).await?;
        Ok(swapped.map_or(Swap::ConnectionReplaced, |(swap, _)| swap))
    }

    pub(crate) async fn delete_many(
        &self,
        keys: &[&[u8]],
    ) -> Result<Vec<Result<Deletion, Error>>, Error> {
        let names: Vec<_> = keys.iter().map(|key| utf8(key)).collect();
        let delete = async |session: &mut Session| {
            for name in names.iter().flatten() {
                session.protocol.delete(name).await?;
            }
            session.protocol.version().await
        };
        self.on_any(1, delete).await?;
        Ok(names.into_iter().map(|name| name.map(|_| Deletion::Gone)).collect())
    }

    /// `None` if there is no entry.
    pub(crate) async fn count(
        &self,
        key: &[u8],
        delta: u64,
        up: bool,
    ) -> Result<Option<u64>, Error> {
        let count = async |session: &mut Session| {
            found(if up {
                session.protocol.increment(key, delta).await
            } else {
                session.protocol.decrement(key, delta).await
            })
        };
        Ok(self.on_any(1, count).await?.0)
    }

    pub(crate) async fn flush(&self) -> Result<(), Error> {
        let flush = async |session: &mut Session| session.protocol.flush().await;
        self.on_any(1, flush).await.map(drop)
    }

    pub(crate) async fn version(&self) -> Result<String, Error> {
        let version = async |session: &mut Session| session.protocol.version().await;
        Ok(self.on_any(1, version).await?.0)
    }
}

fn found<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn utf8(key: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(key).map_err(|_| Error::Key(KeyError::NotUtf8))
}

fn checked<'a>(item: &Checked<'a>) -> Result<&'a str, Error> {
    if item.flags == 0 { utf8(item.key) } else { Err(Error::Unsupported(Command::Flags)) }
}
