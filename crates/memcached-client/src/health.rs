//! Whether a server is well, and what it has done. Shared by all runtimes; holds no socket.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use thiserror::Error;

use crate::{cluster::Shared, config::ServerAddress, error::Error};

/// How long a probe may be silent beyond its pauses and deadlines.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// Why a server is out. Never holds credentials.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum Outage {
    #[error("{0}")]
    Connection(String),
    #[error("it did not answer in time")]
    Timeout,
    #[error("the log-in was refused: {0}")]
    Login(String),
    #[error("it does not speak the protocol: {0}")]
    Garbage(String),
    #[error("what must come first after an outage has not succeeded")]
    Hook,
}

impl Outage {
    /// For whoever waited for an answer of this server.
    pub(crate) fn to_error(&self, server: &ServerAddress, limit: Duration) -> Error {
        let server = server.clone();
        match self {
            Self::Timeout => Error::Timeout { server, limit },
            other => Error::Connection { server, reason: other.to_string() },
        }
    }
}

/// Which probe is at work.
#[derive(Debug, Default)]
struct ProbeState {
    /// Counts up: an older one that wakes up finds that it has been replaced.
    number: u64,
    /// If it has given no sign of life until then, another takes over: its runtime may be stuck.
    /// `None` while there is none.
    alive_until: Option<Instant>,
}

/// Whether one server may be used.
#[derive(Debug)]
pub(crate) struct Health {
    server: usize,
    address: ServerAddress,
    shared: Weak<Shared>,
    out: AtomicBool,
    outages: AtomicU64,
    returns: AtomicU64,
    probe: Mutex<ProbeState>,
    last: Mutex<Option<Outage>>,
}

impl Health {
    pub(crate) fn new(server: usize, address: ServerAddress, shared: Weak<Shared>) -> Self {
        Self {
            server,
            address,
            shared,
            out: AtomicBool::new(false),
            outages: AtomicU64::new(0),
            returns: AtomicU64::new(0),
            probe: Mutex::default(),
            last: Mutex::new(None),
        }
    }

    pub(crate) fn is_out(&self) -> bool {
        self.out.load(Ordering::Acquire)
    }

    /// Takes the server out, logs that once per outage, and has it probed.
    pub(crate) fn mark_out(&self, outage: Outage) {
        let first = !self.out.swap(true, Ordering::AcqRel);
        if first {
            self.outages.fetch_add(1, Ordering::AcqRel);
            log::warn!("memcached server {} is out: {outage}", self.address);
            self.note(outage);
        }
        self.ensure_probe();
    }

    /// Lets requests through again.
    pub(crate) fn mark_well(&self) {
        self.returns.fetch_add(1, Ordering::AcqRel);
        if self.out.swap(false, Ordering::AcqRel) {
            log::info!("memcached server {} is back", self.address);
        }
    }

    /// Remembers why it is still out.
    pub(crate) fn note(&self, outage: Outage) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(outage);
    }

    fn probe(&self) -> MutexGuard<'_, ProbeState> {
        self.probe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a probe on the current runtime, unless there is one that shows signs of life.
    pub(crate) fn ensure_probe(&self) {
        let mut probe = self.probe();
        if probe.alive_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        probe.number += 1;
        probe.alive_until = Some(Instant::now() + SIGN_OF_LIFE);
        let number = probe.number;
        // Without the lock: a runtime that is being shut down drops the task at once.
        drop(probe);
        crate::cluster::probe::start(self.server, number, self.shared.clone());
    }

    /// A sign of life of a probe that will give the next one within `pause` and what it has to do.
    /// `false`: it has been replaced.
    pub(crate) fn probe_lives(&self, number: u64, pause: Duration) -> bool {
        let mut probe = self.probe();
        let is_current = probe.number == number;
        if is_current {
            probe.alive_until = Instant::now().checked_add(pause + SIGN_OF_LIFE);
        }
        is_current
    }

    pub(crate) fn probe_ended(&self, number: u64) {
        let mut probe = self.probe();
        if probe.number == number {
            probe.alive_until = None;
        }
    }

    /// How often it has come back.
    pub(crate) fn returns(&self) -> u64 {
        self.returns.load(Ordering::Acquire)
    }

    pub(crate) fn state(&self) -> State {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match last {
            Some(outage) if self.is_out() => State::Out { reason: outage.to_string() },
            _ => State::Well,
        }
    }

    pub(crate) fn outages(&self) -> u64 {
        self.outages.load(Ordering::Acquire)
    }
}

/// Whether a server is used at the moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum State {
    /// It is used.
    Well,
    /// It is not, and probed in the background.
    Out {
        /// Why, in words.
        reason: String,
    },
}

/// What one runtime has asked of one server, counted.
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

    pub(crate) fn found(&self, hits: usize, of: usize) {
        Self::count(&self.hits, hits);
        Self::count(&self.misses, of - hits);
    }

    /// Hits, misses, sets, errors, time-outs.
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

/// What has been asked of one server since the client was made, on all runtimes together.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ServerStatus {
    /// Which server.
    pub address: ServerAddress,
    /// Whether it is used.
    pub state: State,
    /// How often it has been taken out.
    pub outages: u64,
    /// Keys that were asked for and found.
    pub hits: u64,
    /// Keys that were asked for and not found.
    pub misses: u64,
    /// Values that were stored.
    pub sets: u64,
    /// Operations that failed but for [`ServerStatus::timeouts`]; those that a server that is out
    /// did not get are not among them.
    pub errors: u64,
    /// Operations that were not answered in time.
    pub timeouts: u64,
    /// Operations that wait for it now.
    pub in_flight: usize,
}
