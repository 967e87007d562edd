//! The text protocol, by the crate memcache-async. Each runtime has one connection per server, which
//! carries out one operation at a time.
//!
//! memcache-async does not log in, knows no deadlines, sends `set` and `delete` without asking for a
//! reply, and leaves a connection out of step when an operation is dropped. So this module
//! logs in, adds deadlines, sends `version` after such commands, checks each line of a reply
//! (`checked_stream`), and closes the connection of an operation that is dropped or fails.

mod checked_stream;
mod operations;
mod session;

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
    checked_stream::ReplyLine,
    session::{Session, outage_of},
};
use crate::{
    address::ServerAddress,
    config::Config,
    error::Error,
    health::{Counters, Health, Outage},
};

/// The interval at which an attempt to open a session checks whether the server has come back.
const RECHECK: Duration = Duration::from_millis(50);

/// The link from one runtime to one server.
pub(crate) struct Link {
    config: Arc<Config>,
    address: ServerAddress,
    health: Arc<Health>,
    pub(crate) counters: Counters,
    in_flight: AtomicUsize,
    /// The session. `None` before the first operation, and after a failure.
    session: Arc<Mutex<Option<Session>>>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The result of an operation on a session.
enum Outcome<T> {
    /// The operation was carried out, and the session can be used again.
    Done(T),
    /// The server reported an error. It may send further lines, so the session was closed.
    Refused(String),
}

/// Counts an operation as in flight until it is dropped.
struct InFlightGuard<'a>(&'a AtomicUsize);

impl Drop for InFlightGuard<'_> {
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
            in_flight: AtomicUsize::new(0),
            session: Arc::default(),
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Carries out `operation` within the deadline and expects `replies` replies to it. Returns the
    /// number of the session too. Returns `None` if `only_on` is the number of another session than
    /// the current one.
    async fn on_session<T>(
        &self,
        only_on: Option<u64>,
        replies: u32,
        operation: impl AsyncFnOnce(&mut Session) -> io::Result<T>,
    ) -> Result<Option<(T, u64)>, Error> {
        let limit = self.config.max_in_flight;
        if self.in_flight.fetch_add(1, Ordering::Relaxed) >= limit {
            drop(InFlightGuard(&self.in_flight));
            let error = Error::Overloaded { server: self.address.clone(), limit };
            self.counters.failed(&error);
            return Err(error);
        }
        let _guard = InFlightGuard(&self.in_flight);
        let started = OnceLock::new();
        let result = self.carry_out(only_on, replies, &started, operation);
        match timeout(self.config.timeout, result).await {
            Ok(Ok(None)) => Ok(None),
            Ok(Ok(Some((Outcome::Done(value), number)))) => Ok(Some((value, number))),
            Ok(Ok(Some((Outcome::Refused(reason), _)))) => {
                let reason = self.config.server_text(reason.as_bytes());
                let server = self.address.clone();
                let error = Error::Refused { server, key: None, status: None, reason };
                self.counters.failed(&error);
                Err(error)
            }
            Ok(Err(outage)) => Err(self.fail(outage, true)),
            // An operation that spent most of its time in the queue does not show that the server is
            // down.
            Err(_) => {
                let on_server = started.get().map_or(Duration::ZERO, Instant::elapsed);
                Err(self.fail(Outage::Timeout, on_server >= self.config.timeout / 2))
            }
        }
    }

    /// Counts a failure and converts it to an error. Marks the server as down if it is at fault.
    fn fail(&self, outage: Outage, is_servers_fault: bool) -> Error {
        let outage = outage.shown(&self.config);
        let error = outage.to_error(&self.address, self.config.timeout);
        self.counters.failed(&error);
        if is_servers_fault {
            self.health.mark_down(outage);
        }
        error
    }

    /// Carries out `operation` when the session is free, and sets `started` then. The session is
    /// taken out while it is in use: if this future is dropped, the connection closes.
    async fn carry_out<T>(
        &self,
        only_on: Option<u64>,
        replies: u32,
        started: &OnceLock<Instant>,
        operation: impl AsyncFnOnce(&mut Session) -> io::Result<T>,
    ) -> Result<Option<(Outcome<T>, u64)>, Outage> {
        let mut place = Arc::clone(&self.session).lock_owned().await;
        started.get_or_init(Instant::now);
        // A session from before an outage may be dead.
        place.take_if(|session| session.outages_at_opening != self.health.outages());
        if only_on.is_some_and(|number| place.as_ref().is_none_or(|s| s.number != number)) {
            return Ok(None);
        }
        if place.is_none() {
            place = self.open(place).await?;
        }
        let Some(mut session) = place.take() else { return Ok(None) };
        session.log.begin();
        let outcome = operation(&mut session).await;
        match (outcome, session.log.last()) {
            // More lines may follow an error, so the session is not put back.
            (Err(_), Some(ReplyLine::Error(line))) => Ok(Some((Outcome::Refused(line), 0))),
            (Err(error), _) => Err(outage_of(&error)),
            (Ok(_), _) if !session.log.is_clean(replies) => {
                Err(Outage::Protocol("the number of replies does not fit the request".to_owned()))
            }
            (Ok(value), _) => {
                let number = session.number;
                *place = Some(session);
                Ok(Some((Outcome::Done(value), number)))
            }
        }
    }

    /// Opens a session in a task of its own, which goes on if the operation exceeds its deadline. The
    /// task ends if the server has gone down and come back since.
    async fn open(
        &self,
        mut place: OwnedMutexGuard<Option<Session>>,
    ) -> Result<OwnedMutexGuard<Option<Session>>, Outage> {
        let (config, health) = (Arc::clone(&self.config), Arc::clone(&self.health));
        let (address, returns_at_start) = (self.address.clone(), health.returns());
        let opening = tokio::spawn(async move {
            let establish = timeout(config.connect_timeout, establish(&address, &config));
            let mut establish = std::pin::pin!(establish);
            let mut session = loop {
                match timeout(RECHECK, establish.as_mut()).await {
                    Ok(opened) => break opened.unwrap_or(Err(Outage::Timeout))?,
                    Err(_) if returns_at_start == health.returns() => {}
                    Err(_) => {
                        let reason = "the attempt to connect was given up".to_owned();
                        return Err(Outage::Connection(reason));
                    }
                }
            };
            session.outages_at_opening = health.outages();
            *place = Some(session);
            Ok(place)
        });
        opening.await.unwrap_or_else(|e| Err(Outage::Connection(e.to_string())))
    }

    /// Carries out `operation` on the current session or a new one. See [`Link::on_session`].
    async fn on_any_session<T>(
        &self,
        replies: u32,
        operation: impl AsyncFnOnce(&mut Session) -> io::Result<T>,
    ) -> Result<(T, u64), Error> {
        let outcome = self.on_session(None, replies, operation).await?;
        outcome.ok_or_else(|| Error::ServerDown(self.address.clone()))
    }
}
