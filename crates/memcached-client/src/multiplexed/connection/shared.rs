//! The state of a connection, shared by its callers and its task.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Wake, Waker},
};

use super::{
    super::pipeline::{Pipeline, Writes},
    io::Io,
};
use crate::{address::ServerAddress, config::Config, health::Health, types::next_connection};

/// One server as seen from one runtime, and the connection for new requests.
#[derive(Debug)]
pub(in super::super) struct Server {
    pub(in super::super) config: Arc<Config>,
    pub(in super::super) address: ServerAddress,
    pub(in super::super) health: Arc<Health>,
    current: Mutex<Option<Arc<Connection>>>,
}

impl Server {
    pub(in super::super) fn new(config: Arc<Config>, server: usize, health: Arc<Health>) -> Self {
        let address = config.servers[server].clone();
        Self { config, address, health, current: Mutex::new(None) }
    }

    /// Returns the connection for new requests, which is open or being opened.
    pub(in super::super) fn current(&self) -> MutexGuard<'_, Option<Arc<Connection>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection, open or being opened, and the requests in flight on it.
#[derive(Debug)]
pub(in super::super) struct Connection {
    pub(in super::super) number: u64,
    pub(in super::super) pipeline: Pipeline,
    /// [`Health::returns`] when the attempt to open the connection began.
    returns_at_start: u64,
    /// [`Health::outages`] when the connection was opened, or [`STILL_OPENING`].
    pub(super) outages_at_opening: AtomicU64,
    /// Whether the connection is to be closed without a failure of the server, or the server has closed it while idle.
    pub(super) retired: AtomicBool,
    /// The socket, while the connection is open. Its waker holds the connection, until the task ends and takes the
    /// socket. Locked before the pipeline.
    io: Mutex<Option<Io>>,
}

/// The value of [`Connection::outages_at_opening`] while the connection is being opened.
const STILL_OPENING: u64 = u64::MAX;

impl Connection {
    pub(in super::super) fn new(address: &ServerAddress, health: &Health) -> Arc<Self> {
        let is_tls = matches!(address, ServerAddress::Tls { .. });
        Arc::new(Self {
            number: next_connection(),
            pipeline: Pipeline::new(Writes::new(is_tls)),
            returns_at_start: health.returns(),
            outages_at_opening: AtomicU64::new(STILL_OPENING),
            retired: AtomicBool::new(false),
            io: Mutex::new(None),
        })
    }

    /// Returns whether the connection may be dead: the server has closed it, it was opened before an outage, or it is
    /// still being opened although the server has come back since.
    pub(in super::super) fn is_suspect(&self, health: &Health) -> bool {
        if self.retired.load(Ordering::Acquire) {
            return true;
        }
        match self.outages_at_opening.load(Ordering::Acquire) {
            STILL_OPENING => self.returns_at_start != health.returns(),
            outages => outages != health.outages(),
        }
    }

    /// Locks the socket. Tasks are woken after its release, but for those that a read wakes.
    pub(super) fn io(&self) -> MutexGuard<'_, Option<Io>> {
        self.io.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the socket.
    pub(super) fn close(&self) {
        let io = self.io().take();
        drop(io);
    }

    /// Lets a caller that is alone use the socket, then wakes the tasks that are to be woken. Returns `None` if the
    /// connection is closed.
    pub(super) fn use_io<T>(&self, use_it: impl FnOnce(&mut Io, &Pipeline) -> T) -> Option<T> {
        let mut guard = self.io();
        let io = guard.as_mut()?;
        let result = use_it(io, &self.pipeline);
        if io.is_at_end() {
            // The next request opens another connection, even if it comes before the task runs.
            self.retired.store(true, Ordering::Release);
        }
        let woken = io.take_woken();
        drop(guard);
        woken.into_iter().for_each(Waker::wake);
        Some(result)
    }

    /// Makes the task of the connection end. Requests in flight fail.
    pub(in super::super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.pipeline.wake_writer();
    }
}

/// The socket has something to read.
impl Wake for Connection {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.pipeline.wake_reader();
    }
}
