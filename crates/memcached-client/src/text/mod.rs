//! The text protocol, by the crate memcache-async: one operation at a time on one connection per
//! server and runtime.
//!
//! What that crate leaves open is done here: log-in, deadlines, keys that are checked before they
//! come here, a round trip after what it sends without asking for an answer, and a connection that
//! is closed when an operation is given up half way, or when the answer is not one
//! (`watched`).

mod operations;
mod session;
mod watched;

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

pub(crate) use self::session::establish;
use self::{
    session::{Session, outage_of},
    watched::Answer,
};
use crate::{
    config::{Config, ServerAddress},
    error::Error,
    health::{Counters, Health, Outage},
};

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
            self.health.mark_down(outage);
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
        outcome.ok_or_else(|| Error::ServerDown(self.address.clone()))
    }
}
