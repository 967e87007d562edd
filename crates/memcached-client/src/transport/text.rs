//! The text protocol, by the crate memcache-async: one operation at a time on one connection per
//! server and runtime.
//!
//! What that crate leaves open is done here: log-in, deadlines, keys that are checked before they
//! come here, a round trip after what it sends without asking for an answer, and a connection that
//! is closed when an operation is given up half way, or when the answer is not one
//! ([`Watched`]).

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use memcache_async::ascii::Protocol;
use secrecy::ExposeSecret;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    sync::{Mutex, OwnedMutexGuard},
    time::timeout,
};

use super::{
    Cas, Checked, Command, Deletion, EXPIRED, Swap, Value, Verb, next_connection,
    watched::{Answer, LastAnswer, Watched},
};
use crate::{
    config::{Config, Credentials, ServerAddress},
    error::Error,
    health::{Counters, Health, Outage},
    key::KeyError,
    stream::Stream,
};

/// The key of a log-in as memcached's `-Y` has it; any will do.
const LOGIN_KEY: &str = "login";

/// An open connection.
pub(crate) struct Session {
    number: u64,
    protocol: Protocol<Watched<Stream>>,
    last: LastAnswer,
}

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

    /// Carries out `operation` on the session, within the deadline; `None` if it must be on a
    /// session that is no more. Returns the session's number too.
    async fn with<T>(
        &self,
        only_on: Option<u64>,
        operation: impl AsyncFnOnce(&mut Session) -> io::Result<T>,
    ) -> Result<Option<(T, u64)>, Error> {
        let limit = self.config.max_in_flight;
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= limit {
            drop(Waiting(&self.waiting));
            return Err(Error::Overloaded { server: self.address.clone(), limit });
        }
        let _waiting = Waiting(&self.waiting);
        let carried_out = timeout(self.config.timeout, self.carry_out(only_on, operation)).await;
        let outage = match carried_out {
            Ok(Ok(None)) => return Ok(None),
            Ok(Ok(Some((Outcome::Done(value), number)))) => return Ok(Some((value, number))),
            Ok(Ok(Some((Outcome::Refused(reason), _)))) => {
                let error = Error::Refused { status: None, reason };
                self.counters.failed(&error);
                return Err(error);
            }
            Ok(Err(outage)) => outage,
            Err(_) => Outage::Timeout,
        };
        Err(self.fail(outage))
    }

    fn fail(&self, outage: Outage) -> Error {
        let error = match &outage {
            Outage::Timeout => {
                Error::Timeout { server: self.address.clone(), limit: self.config.timeout }
            }
            other => other.to_error(&self.address),
        };
        self.counters.failed(&error);
        self.health.mark_out(outage);
        error
    }

    /// The session is taken while it is used and put back when it is whole: if this future is
    /// dropped in between, the connection closes.
    async fn carry_out<T>(
        &self,
        only_on: Option<u64>,
        operation: impl AsyncFnOnce(&mut Session) -> io::Result<T>,
    ) -> Result<Option<(Outcome<T>, u64)>, Outage> {
        let mut place = Arc::clone(&self.session).lock_owned().await;
        if only_on.is_some_and(|number| place.as_ref().is_none_or(|s| s.number != number)) {
            return Ok(None);
        }
        if place.is_none() {
            place = self.open(place).await?;
        }
        let Some(mut session) = place.take() else {
            return Ok(None);
        };
        match operation(&mut session).await {
            Ok(value) => {
                let number = session.number;
                *place = Some(session);
                Ok(Some((Outcome::Done(value), number)))
            }
            Err(error) if error.kind() == io::ErrorKind::Other => {
                Ok(Some((Outcome::Refused(error.to_string().trim_end().to_owned()), 0)))
            }
            Err(error) => Err(outage_of(&error)),
        }
    }

    /// Opens a session in a task of its own: it goes on when the operation that wanted it has run
    /// out of time.
    async fn open(
        &self,
        mut place: OwnedMutexGuard<Option<Session>>,
    ) -> Result<OwnedMutexGuard<Option<Session>>, Outage> {
        let (config, address) = (Arc::clone(&self.config), self.address.clone());
        let opening = tokio::spawn(async move {
            let opened = timeout(config.connect_timeout, establish(&address, &config)).await;
            *place = Some(opened.unwrap_or(Err(Outage::Timeout))?);
            Ok(place)
        });
        opening.await.unwrap_or_else(|e| Err(Outage::Connection(e.to_string())))
    }

    async fn on_any<T>(
        &self,
        operation: impl AsyncFnOnce(&mut Session) -> io::Result<T>,
    ) -> Result<(T, u64), Error> {
        let outcome = self.with(None, operation).await?;
        outcome.ok_or_else(|| Error::ServerOut(self.address.clone()))
    }

    pub(crate) async fn get(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        let get = async |session: &mut Session| found(session.protocol.get(key).await);
        let (data, _) = self.on_any(get).await?;
        self.counters.found(usize::from(data.is_some()), 1);
        Ok(data.map(|data| Value { data: data.into(), flags: 0, cas: None }))
    }

    pub(crate) async fn get_with_cas(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        let get = async |session: &mut Session| found(session.protocol.gets_cas(key).await);
        let (entry, connection) = self.on_any(get).await?;
        self.counters.found(usize::from(entry.is_some()), 1);
        Ok(entry.map(|(data, id)| Value {
            data: data.into(),
            flags: 0,
            cas: Some(Cas { id, connection }),
        }))
    }

    pub(crate) async fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>, Error> {
        let get = async |session: &mut Session| session.protocol.get_multi(keys).await;
        let (mut entries, _) = self.on_any(get).await?;
        let value = |data: &Vec<u8>| Value { data: data.clone().into(), flags: 0, cas: None };
        let mut take = |key: &[u8]| {
            let name = std::str::from_utf8(key).ok()?;
            entries.get_mut(name).map(|data| value(data))
        };
        let values: Vec<_> = keys.iter().map(|key| take(key)).collect();
        self.counters.found(values.iter().flatten().count(), values.len());
        Ok(values)
    }

    /// Whether it was stored. An `Add` that is to be followed by a swap wants its mark, which
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
            Verb::Add if session.add(key, &item).await? => {
                let id = if with_cas { session.mark_of(&item).await? } else { None };
                Ok(Some(id).filter(|id| id.is_some() || !with_cas))
            }
            Verb::Add => Ok(None),
            Verb::Set | Verb::Replace => {
                session.protocol.set(key, item.value, item.expiration).await?;
                session.protocol.version().await.map(|_| Some(None))
            }
        };
        let (stored, connection) = self.on_any(store).await?;
        Counters::count(&self.counters.sets, usize::from(stored.is_some()));
        Ok(stored.map(|id| id.map(|id| Cas { id, connection })))
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
        self.on_any(store).await?;
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
            match session.protocol.cas(key, item.value, cas.id, item.expiration).await {
                Ok(true) => Ok(Swap::Done(None)),
                Ok(false) => Ok(Swap::Changed),
                // memcache-async does not know the server's spelling of this.
                Err(_) if session.last.get() == Some(Answer::NotFound) => Ok(Swap::Missing),
                Err(error) => Err(error),
            }
        };
        let swapped = self.with(Some(cas.connection), swap).await?;
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
        self.on_any(delete).await?;
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
        Ok(self.on_any(count).await?.0)
    }

    pub(crate) async fn flush(&self) -> Result<(), Error> {
        let flush = async |session: &mut Session| session.protocol.flush().await;
        self.on_any(flush).await.map(drop)
    }

    pub(crate) async fn version(&self) -> Result<String, Error> {
        let version = async |session: &mut Session| session.protocol.version().await;
        Ok(self.on_any(version).await?.0)
    }
}

impl Session {
    /// memcache-async takes whatever is not "not stored" for success.
    async fn add(&mut self, key: &str, item: &Checked<'_>) -> io::Result<bool> {
        match self.protocol.add(key, item.value, item.expiration).await {
            Ok(()) if self.last.get() == Some(Answer::Stored) => Ok(true),
            Ok(()) => Err(io::ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The mark of an entry that has just been added, unless somebody has changed it already.
    async fn mark_of(&mut self, item: &Checked<'_>) -> io::Result<Option<u64>> {
        let entry = found(self.protocol.gets_cas(item.key).await)?;
        Ok(entry.filter(|(value, _)| value == item.value).map(|(_, id)| id))
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

fn outage_of(error: &io::Error) -> Outage {
    match error.kind() {
        io::ErrorKind::InvalidData => Outage::Garbage(error.to_string()),
        io::ErrorKind::UnexpectedEof => Outage::Connection("it closed the connection".to_owned()),
        _ => Outage::Connection(error.to_string()),
    }
}

/// Connects, logs in, and waits for the server to answer.
pub(crate) async fn establish(address: &ServerAddress, config: &Config) -> Result<Session, Outage> {
    let stream = match &config.credentials {
        None => connect(address).await?,
        Some(credentials) => log_in(address, credentials).await?,
    };
    let last = LastAnswer::default();
    let protocol = Protocol::new(Watched::new(stream, last.clone()));
    let mut session = Session { number: next_connection(), protocol, last };
    match session.protocol.version().await {
        Ok(_) => Ok(session),
        Err(error) if error.kind() == io::ErrorKind::Other => {
            Err(Outage::Login(error.to_string().trim_end().to_owned()))
        }
        Err(error) => Err(outage_of(&error)),
    }
}

async fn connect(address: &ServerAddress) -> Result<Stream, Outage> {
    Stream::connect(address).await.map_err(|error| outage_of(&error))
}

/// The two log-ins there are look alike and each server refuses the other's: memcached's `-Y`
/// wants user and password as the value of any key, MemCachier the user as the key. A server
/// without log-in takes the first for a value; so it is one that has expired already.
async fn log_in(address: &ServerAddress, credentials: &Credentials) -> Result<Stream, Outage> {
    let (user, password) = (&credentials.username, credentials.password.expose_secret());
    let unfit = |text: &str| text.is_empty() || text.contains(|c: char| c.is_ascii_control());
    if unfit(user) || unfit(password) || user.contains(' ') {
        return Err(Outage::Login("user or password cannot be sent as text".to_owned()));
    }
    let both = format!("{user} {password}");
    let for_memcached = format!("set {LOGIN_KEY} 0 {EXPIRED} {}\r\n{both}\r\n", both.len());
    let for_memcachier = format!("set {user} 0 0 {}\r\n{password}\r\n", password.len());
    match try_login(address, &for_memcached).await {
        Err(Outage::Login(_)) => try_login(address, &for_memcachier).await,
        outcome => outcome,
    }
}

async fn try_login(address: &ServerAddress, request: &str) -> Result<Stream, Outage> {
    /// No answer to a log-in is longer.
    const LONGEST: u64 = 1024;
    let mut stream = connect(address).await?;
    stream.write_all(request.as_bytes()).await.map_err(|error| outage_of(&error))?;
    let mut line = Vec::new();
    let mut reader = BufReader::with_capacity(1, tokio::io::AsyncReadExt::take(stream, LONGEST));
    reader.read_until(b'\n', &mut line).await.map_err(|error| outage_of(&error))?;
    if line == b"STORED\r\n" {
        Ok(reader.into_inner().into_inner())
    } else {
        Err(Outage::Login(String::from_utf8_lossy(&line).trim_end().to_owned()))
    }
}
