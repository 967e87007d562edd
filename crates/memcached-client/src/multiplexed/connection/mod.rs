//! One connection, and the task that opens, writes and reads it.
//!
//! A caller whose operation is alone ([`Pushed::alone`](super::pipeline::Pushed)) writes and reads it by itself
//! ([`InFlight`]), and the task sleeps: the response need not wake the task first, which would then wake the caller.

mod in_flight;
mod io;
mod read_buffer;

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use tokio::time::{timeout, timeout_at};

pub(super) use self::in_flight::InFlight;
use self::io::Io;
use super::{
    establish::{Opened, establish},
    pipeline::{Pipeline, Writes},
};
use crate::{
    address::ServerAddress,
    config::Config,
    error::Error,
    health::{Health, Outage},
    types::next_connection,
};

/// One server as seen from one runtime, and the connection for new requests.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) config: Arc<Config>,
    pub(super) address: ServerAddress,
    pub(super) health: Arc<Health>,
    current: Mutex<Option<Arc<Connection>>>,
}

impl Server {
    pub(super) fn new(config: Arc<Config>, server: usize, health: Arc<Health>) -> Self {
        let address = config.servers[server].clone();
        Self { config, address, health, current: Mutex::new(None) }
    }

    /// Returns the connection for new requests, which is open or being opened.
    pub(super) fn current(&self) -> MutexGuard<'_, Option<Arc<Connection>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection, open or being opened, and the requests in flight on it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) number: u64,
    pub(super) pipeline: Pipeline,
    /// [`Health::returns`] when the attempt to open the connection began.
    returns_at_start: u64,
    /// [`Health::outages`] when the connection was opened, or [`STILL_OPENING`].
    outages_at_opening: AtomicU64,
    /// Whether the connection is to be closed without a failure of the server.
    retired: AtomicBool,
    /// The socket, while the connection is open. Locked before the pipeline.
    io: Mutex<Option<Io>>,
}

/// The value of [`Connection::outages_at_opening`] while the connection is being opened.
const STILL_OPENING: u64 = u64::MAX;

impl Connection {
    pub(super) fn new(address: &ServerAddress, health: &Health) -> Arc<Self> {
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
    pub(super) fn is_suspect(&self, health: &Health) -> bool {
        if self.retired.load(Ordering::Acquire) {
            return true;
        }
        match self.outages_at_opening.load(Ordering::Acquire) {
            STILL_OPENING => self.returns_at_start != health.returns(),
            outages => outages != health.outages(),
        }
    }

    /// Locks the socket. The lock is not held while tasks are woken.
    fn io(&self) -> MutexGuard<'_, Option<Io>> {
        self.io.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the socket.
    fn close(&self) {
        let io = self.io().take();
        drop(io);
    }

    /// Releases the socket after a caller that is alone has used it, and wakes the tasks that are to be woken.
    fn release(&self, mut io: MutexGuard<'_, Option<Io>>) {
        let woken = io.as_mut().map(|io| {
            if io.is_at_end() {
                // The next request opens another connection, even if it comes before the task runs.
                self.retired.store(true, Ordering::Release);
            }
            io.take_woken()
        });
        drop(io);
        woken.into_iter().flatten().for_each(Waker::wake);
    }

    /// Makes the task of the connection end. Requests in flight fail.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.pipeline.wake_writer();
    }
}

/// Opens the connection and serves it until it ends.
pub(super) async fn serve(server: Arc<Server>, connection: Arc<Connection>) {
    Driver { server, connection }.run().await;
}

/// The task of one connection.
struct Driver {
    server: Arc<Server>,
    connection: Arc<Connection>,
}

/// The interval at which an attempt to connect checks for deadlines of new requests.
const RECHECK: Duration = Duration::from_millis(50);

/// The reason why a connection ended.
#[derive(Debug)]
enum ConnectionEnd {
    /// The connection was retired, or the server closed it while no request was in flight.
    Idle,
    Failed(Outage),
}

impl Driver {
    async fn run(self) {
        let end = match self.open().await {
            Ok(opened) => self.transfer(opened).await,
            Err(_) if self.connection.retired.load(Ordering::Acquire) => ConnectionEnd::Idle,
            // The server is not down: the link uses another connection.
            #[cfg(feature = "text")]
            Err(Outage::OnlyText) => ConnectionEnd::Idle,
            Err(outage) => ConnectionEnd::Failed(outage),
        };
        // The server is marked as down first, so that callers that retry do not reconnect.
        if let ConnectionEnd::Failed(outage) = end {
            let error = self.error(&outage);
            self.server.health.mark_down(outage);
            self.forget();
            self.connection.pipeline.fail_all(&error);
        }
    }

    fn error(&self, outage: &Outage) -> Error {
        outage.to_error(&self.server.address, self.server.config.timeout)
    }

    /// Removes the connection from its server. The next request opens another one.
    fn forget(&self) {
        let mut current = self.server.current();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &self.connection)) {
            *current = None;
        }
    }

    /// Writes and reads until the connection ends.
    async fn transfer(&self, opened: Opened) -> ConnectionEnd {
        let Connection { pipeline, retired, .. } = &*self.connection;
        let max_body = self.server.config.max_response_body();
        *self.connection.io() = Some(Io::new(opened, max_body));
        let mut woken = Vec::new();
        let end = poll_fn(|cx| {
            let mut guard = self.connection.io();
            let Some(io) = guard.as_mut() else { return Poll::Ready(ConnectionEnd::Idle) };
            let outcome = io.poll(pipeline, retired, cx);
            io.swap_woken(&mut woken);
            drop(guard);
            woken.drain(..).for_each(Waker::wake);
            outcome
        })
        .await;
        // Before the callers learn of it.
        self.connection.close();
        end
    }

    /// Opens the connection. If a request reaches its deadline first, the server is marked as down
    /// and all waiting requests fail, but the attempt goes on until `connect_timeout`.
    async fn open(&self) -> Result<Opened, Outage> {
        let (server, pipeline) = (&self.server, &self.connection.pipeline);
        let establish = establish(&server.address, &server.config, &server.health);
        let mut opening = pin!(timeout(server.config.connect_timeout, establish));
        loop {
            let now = Instant::now();
            let until = pipeline.first_deadline().unwrap_or(now + RECHECK);
            match timeout_at(until.into(), opening.as_mut()).await {
                Ok(Ok(opened)) => {
                    if let Ok(opened) = &opened {
                        pipeline.speak(opened.codec);
                    }
                    let outages = server.health.outages();
                    self.connection.outages_at_opening.store(outages, Ordering::Release);
                    return opened;
                }
                Ok(Err(_)) => return Err(Outage::Timeout),
                Err(_) if self.connection.retired.load(Ordering::Acquire) => {
                    return Err(Outage::Connection(
                        "the attempt to connect was given up".to_owned(),
                    ));
                }
                Err(_) if pipeline.first_deadline().is_some_and(|d| d <= Instant::now()) => {
                    server.health.mark_down(Outage::Timeout);
                    pipeline.fail_all(&self.error(&Outage::Timeout));
                }
                Err(_) => {}
            }
        }
    }
}

impl Drop for Driver {
    /// Fails the requests in flight if the runtime has dropped the task.
    fn drop(&mut self) {
        self.connection.close();
        self.forget();
        let outage = Outage::Connection("the connection was closed".to_owned());
        self.connection.pipeline.fail_all(&self.error(&outage));
    }
}
