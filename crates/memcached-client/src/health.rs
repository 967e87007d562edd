//! The state of each server, and counters of operations.
//!
//! All runtimes share a [`Health`] per server. It holds no socket and starts no task: it requests a
//! probe over a channel, and `cluster` starts one.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::sync::watch;

use crate::{
    address::ServerAddress,
    config::Config,
    error::Error,
    events::{Event, Observer},
    protocol::Protocol,
};

/// The time after the end of its announced pause at which a silent probe counts as stuck.
const PROBE_GRACE: Duration = Duration::from_secs(1);

/// The cause of an outage. Never holds credentials.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum Outage {
    /// The connection failed or could not be opened.
    #[error("{0}")]
    Connection(String),
    /// An operation, or opening a connection, exceeded its deadline.
    #[error("the server did not answer in time")]
    Timeout,
    /// The server refused the credentials, or requires some.
    #[error("the log-in was refused: {0}")]
    Login(String),
    /// The server sent bytes that are not a reply to a request.
    #[error("the server does not follow the protocol: {0}")]
    Protocol(String),
    /// The server speaks only the text protocol, which needs another kind of connection.
    #[error("it speaks only the text protocol, which requires the Cargo feature `text`")]
    OnlyText,
    /// The server can be reached, but the hook of the client has failed or timed out.
    #[error("the hook that must succeed before the server is used again has failed or timed out")]
    Hook,
}

impl Outage {
    /// Returns the outage with its texts, which may quote the server, fit for a log.
    pub(crate) fn shown(self, config: &Config) -> Self {
        let shown = |text: String| config.server_text(text.as_bytes());
        match self {
            Self::Connection(text) => Self::Connection(shown(text)),
            Self::Login(text) => Self::Login(shown(text)),
            Self::Protocol(text) => Self::Protocol(shown(text)),
            other => other,
        }
    }

    /// Returns the error for operations in flight to `server` with the deadline `limit`.
    pub(crate) fn to_error(&self, server: &ServerAddress, limit: Duration) -> Error {
        let server = server.clone();
        match self {
            Self::Timeout => Error::Timeout { server, limit },
            other => Error::Connection { server, reason: other.to_string() },
        }
    }
}

/// The running probe of a server, if there is one.
#[derive(Debug, Default)]
struct ProbeState {
    /// Identifies the probe, so that a probe can tell that another has taken over.
    number: u64,
    /// The time by which the probe must report again. After it, the runtime of the probe counts as
    /// stuck, and another probe may take over. `None` while no probe runs.
    alive_until: Option<Instant>,
}

/// The state of one server.
#[derive(Debug)]
pub(crate) struct Health {
    address: ServerAddress,
    observer: Option<Observer>,
    /// Wakes the tasks that start probes.
    probe_requests: watch::Sender<()>,
    down: AtomicBool,
    outages: AtomicU64,
    returns: AtomicU64,
    probe: Mutex<ProbeState>,
    last: Mutex<Option<Outage>>,
    /// The index of the protocol in [`PROTOCOLS`], or a larger number while it is not known.
    protocol: AtomicU8,
}

/// The protocols that a server can be found to speak.
const PROTOCOLS: &[Protocol] = &[
    Protocol::Binary,
    Protocol::Meta,
    #[cfg(feature = "text")]
    Protocol::Text,
];

impl Health {
    pub(crate) fn new(
        address: ServerAddress,
        config: &Config,
        probe_requests: watch::Sender<()>,
    ) -> Self {
        let health = Self {
            observer: config.observer.clone(),
            protocol: AtomicU8::new(u8::MAX),
            address,
            probe_requests,
            down: AtomicBool::new(false),
            outages: AtomicU64::new(0),
            returns: AtomicU64::new(0),
            probe: Mutex::default(),
            last: Mutex::new(None),
        };
        health.speaks(config.protocol);
        health
    }

    pub(crate) fn address(&self) -> &ServerAddress {
        &self.address
    }

    fn observe(&self, event: &Event<'_>) {
        if let Some(observer) = &self.observer {
            observer.observe(event);
        }
    }

    /// Returns the protocol that the server speaks; `None` with [`Protocol::Auto`] before the first
    /// connection.
    pub(crate) fn protocol(&self) -> Option<Protocol> {
        PROTOCOLS.get(usize::from(self.protocol.load(Ordering::Acquire))).copied()
    }

    /// Remembers the protocol that the server speaks. [`Protocol::Auto`] is not one.
    pub(crate) fn speaks(&self, protocol: Protocol) {
        let index = PROTOCOLS.iter().position(|known| *known == protocol);
        let index = index.and_then(|index| index.try_into().ok()).unwrap_or(u8::MAX);
        self.protocol.store(index, Ordering::Release);
    }

    pub(crate) fn is_down(&self) -> bool {
        self.down.load(Ordering::Acquire)
    }

    /// Marks the server as down and requests a probe. Logs a warning once per outage.
    pub(crate) fn mark_down(&self, outage: Outage) {
        let is_first = !self.down.swap(true, Ordering::AcqRel);
        if is_first {
            self.outages.fetch_add(1, Ordering::AcqRel);
            log::warn!("memcached server {} is down: {outage}", self.address);
            self.observe(&Event::Down { server: &self.address, reason: &outage.to_string() });
            self.note(outage);
        }
        self.request_probe();
    }

    /// Marks the server as up, so that operations are sent to it again.
    pub(crate) fn mark_up(&self) {
        self.returns.fetch_add(1, Ordering::AcqRel);
        if self.down.swap(false, Ordering::AcqRel) {
            log::info!("memcached server {} is up again", self.address);
            self.observe(&Event::Up { server: &self.address });
        }
    }

    /// Records the reason why the server is still down.
    pub(crate) fn note(&self, outage: Outage) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(outage);
    }

    fn probe(&self) -> MutexGuard<'_, ProbeState> {
        self.probe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the tasks that start probes, unless a live probe is running.
    pub(crate) fn request_probe(&self) {
        if !self.probe().is_live() {
            self.probe_requests.send_replace(());
        }
    }

    /// Claims the right to probe the server, and returns the number of the new probe. Returns `None`
    /// if the server is up or a live probe is running.
    pub(crate) fn claim_probe(&self) -> Option<u64> {
        let mut probe = self.probe();
        if !self.is_down() || probe.is_live() {
            return None;
        }
        probe.number += 1;
        probe.alive_until = Some(Instant::now() + PROBE_GRACE);
        Some(probe.number)
    }

    /// Reports that a probe is alive and will report again within `pause`. Returns `false` if
    /// another probe has taken over, and the caller must stop.
    pub(crate) fn keep_probe(&self, number: u64, pause: Duration) -> bool {
        let mut probe = self.probe();
        let is_current = probe.number == number;
        if is_current {
            probe.alive_until = Instant::now().checked_add(pause + PROBE_GRACE);
        }
        is_current
    }

    /// Reports that a probe has ended.
    pub(crate) fn end_probe(&self, number: u64) {
        let mut probe = self.probe();
        if probe.number == number {
            probe.alive_until = None;
        }
    }

    /// Returns how often the server has come back.
    pub(crate) fn returns(&self) -> u64 {
        self.returns.load(Ordering::Acquire)
    }

    /// Returns how often the server has gone down.
    pub(crate) fn outages(&self) -> u64 {
        self.outages.load(Ordering::Acquire)
    }

    pub(crate) fn state(&self) -> ServerState {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match last {
            Some(outage) if self.is_down() => ServerState::Down { reason: outage.to_string() },
            _ => ServerState::Up,
        }
    }
}

impl ProbeState {
    fn is_live(&self) -> bool {
        self.alive_until.is_some_and(|until| Instant::now() < until)
    }
}

/// The state of a server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ServerState {
    /// Operations are sent to the server.
    Up,
    /// Operations fail without being sent. A probe tries to reach the server in the background.
    Down {
        /// The cause, as a message for people.
        reason: String,
    },
}

/// Counters of the operations of one runtime on one server.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) sets: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) timeouts: AtomicU64,
}

impl Counters {
    pub(crate) fn count(counter: &AtomicU64, number: usize) {
        counter.fetch_add(number as u64, Ordering::Relaxed);
    }

    /// Counts a lookup of `keys` keys of which `hits` were found.
    pub(crate) fn found(&self, hits: usize, keys: usize) {
        Self::count(&self.hits, hits);
        Self::count(&self.misses, keys - hits);
    }

    /// Returns hits, misses, sets, errors and time-outs.
    pub(crate) fn all(&self) -> [u64; 5] {
        [&self.hits, &self.misses, &self.sets, &self.errors, &self.timeouts]
            .map(|counter| counter.load(Ordering::Relaxed))
    }

    pub(crate) fn failed(&self, error: &Error) {
        let counter = match error {
            Error::Timeout { .. } => &self.timeouts,
            _ => &self.errors,
        };
        Self::count(counter, 1);
    }
}

/// The state of one server, and the number of operations on it since the client was created, on all
/// runtimes together.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ServerStatus {
    /// The server.
    pub address: ServerAddress,
    /// Whether the server is up.
    pub state: ServerState,
    /// The protocol that the server speaks; `None` with [`Protocol::Auto`] before the first connection.
    pub protocol: Option<Protocol>,
    /// The number of times that the server has gone down.
    pub outages: u64,
    /// Number of keys that were looked up and found.
    pub hits: u64,
    /// Number of keys that were looked up and not found.
    pub misses: u64,
    /// Number of values that were stored.
    pub sets: u64,
    /// Number of failed operations. Excludes time-outs, and operations that were not sent because
    /// the server was down.
    pub errors: u64,
    /// Number of operations that timed out.
    pub timeouts: u64,
    /// Number of operations in flight at the moment.
    pub in_flight: usize,
}
