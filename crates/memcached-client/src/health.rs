//! Whether a server is well, and what it has done. Shared by all runtimes; holds no socket.

use std::{
    sync::{
        Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use thiserror::Error;

use crate::{client::Shared, config::ServerAddress, error::Error};

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
    pub(crate) fn to_error(&self, server: &ServerAddress) -> Error {
        Error::Connection { server: server.clone(), reason: self.to_string() }
    }
}

/// Whether one server may be used.
#[derive(Debug)]
pub(crate) struct Health {
    server: usize,
    address: ServerAddress,
    shared: Weak<Shared>,
    out: AtomicBool,
    probing: AtomicBool,
    outages: AtomicU64,
    last: Mutex<Option<(Outage, Instant)>>,
}

impl Health {
    pub(crate) fn new(server: usize, address: ServerAddress, shared: Weak<Shared>) -> Self {
        Self {
            server,
            address,
            shared,
            out: AtomicBool::new(false),
            probing: AtomicBool::new(false),
            outages: AtomicU64::new(0),
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
            self.outages.fetch_add(1, Ordering::Relaxed);
            log::warn!("memcached server {} is out: {outage}", self.address);
            self.note(outage);
        }
        self.ensure_probe();
    }

    /// Lets requests through again.
    pub(crate) fn mark_well(&self) {
        if self.out.swap(false, Ordering::AcqRel) {
            log::info!("memcached server {} is back", self.address);
        }
    }

    /// Remembers why it is still out.
    pub(crate) fn note(&self, outage: Outage) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((outage, Instant::now()));
    }

    /// Starts a probe on the current runtime, unless there is one: that of a runtime that has
    /// ended is gone.
    pub(crate) fn ensure_probe(&self) {
        if !self.probing.swap(true, Ordering::AcqRel) {
            crate::probe::start(self.server, self.shared.clone());
        }
    }

    pub(crate) fn probe_ended(&self) {
        self.probing.store(false, Ordering::Release);
    }

    pub(crate) fn state(&self) -> State {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match last {
            Some((outage, _)) if self.is_out() => State::Out { reason: outage.to_string() },
            _ => State::Well,
        }
    }

    pub(crate) fn outages(&self) -> u64 {
        self.outages.load(Ordering::Relaxed)
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
