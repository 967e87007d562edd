//! One connection, from opening to end: the task that writes and reads.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWrite},
    time::{Sleep, sleep_until, timeout, timeout_at},
};

use super::{
    establish::{connection_failed, establish},
    pipeline::{Pipeline, Unexpected},
    protocol::{Decoded, Garbage, HEADER, decode},
};
use crate::{
    config::{Config, ServerAddress},
    error::Error,
    health::{Health, Outage},
    stream::Stream,
    types::next_connection,
};

/// What is read at once, at least. Small values share such a block.
const READ_BLOCK: usize = 32 * 1024;

/// The most memory that is set aside for a value before it arrives.
const READ_AHEAD: usize = 1024 * 1024;

/// How long after its deadline an answer that has arrived may still be read: the thread may have
/// been busy with something else.
const GRACE: Duration = Duration::from_millis(10);

/// The most memory that an idle connection keeps for writing.
const WRITE_KEPT: usize = 256 * 1024;

/// One server as seen from one runtime, and the connection to it that new requests use.
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

    /// The current connection, open or being opened.
    pub(super) fn current(&self) -> MutexGuard<'_, Option<Arc<Connection>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection, open or being opened, and the requests in flight on it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) number: u64,
    pub(super) pipeline: Pipeline,
    /// How often the server had come back when this began to be opened.
    begun_after: u64,
    /// How many outages there had been when it was open; [`STILL_OPENING`] before that.
    open_since: AtomicU64,
    /// Nobody will use it any more.
    retired: AtomicBool,
}

const STILL_OPENING: u64 = u64::MAX;

impl Connection {
    pub(super) fn new(health: &Health) -> Arc<Self> {
        Arc::new(Self {
            number: next_connection(),
            pipeline: Pipeline::default(),
            begun_after: health.returns(),
            open_since: AtomicU64::new(STILL_OPENING),
            retired: AtomicBool::new(false),
        })
    }

    /// Whether it may lead nowhere: it was open before an outage, or has not opened although the
    /// server has come back meanwhile.
    pub(super) fn is_suspect(&self, health: &Health) -> bool {
        match self.open_since.load(Ordering::Acquire) {
            STILL_OPENING => self.begun_after != health.returns(),
            outages => outages != health.outages(),
        }
    }

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

/// How often a connection that is being opened looks whether somebody waits for it by now.
const RECHECK: Duration = Duration::from_millis(50);

/// How a connection ended.
enum End {
    /// Nobody waited for anything.
    Quiet,
    Failed(Outage),
}

impl Driver {
    async fn run(self) {
        let end = match self.open().await {
            Ok(stream) => Serving::new(&self, stream).await,
            Err(_) if self.connection.retired.load(Ordering::Acquire) => End::Quiet,
            Err(outage) => End::Failed(outage),
        };
        // A server that is out is asked for nothing: nobody opens the next connection to it.
        if let End::Failed(outage) = end {
            let error = self.error(&outage);
            self.server.health.mark_down(outage);
            self.forget();
            self.connection.pipeline.fail_all(&error);
        }
    }

    fn error(&self, outage: &Outage) -> Error {
        outage.to_error(&self.server.address, self.server.config.timeout)
    }

    /// What is sent from now on opens another connection.
    fn forget(&self) {
        let mut current = self.server.current();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &self.connection)) {
            *current = None;
        }
    }

    /// Opens the connection. Whoever has waited for as long as an operation may take is let go
    /// meanwhile, and the server is out until a probe finds it well.
    async fn open(&self) -> Result<Stream, Outage> {
        let (server, pipeline) = (&self.server, &self.connection.pipeline);
        let establish = establish(&server.address, &server.config);
        let mut opening = pin!(timeout(server.config.connect_timeout, establish));
        loop {
            let now = Instant::now();
            let until = pipeline.first_deadline().unwrap_or(now + RECHECK);
            match timeout_at(until.into(), opening.as_mut()).await {
                Ok(Ok(opened)) => {
                    let outages = server.health.outages();
                    self.connection.open_since.store(outages, Ordering::Release);
                    return opened;
                }
                Ok(Err(_)) => return Err(Outage::Timeout),
                Err(_) if self.connection.retired.load(Ordering::Acquire) => {
                    return Err(Outage::Connection("it was given up".to_owned()));
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
    /// Also when the runtime ends in the middle.
    fn drop(&mut self) {
        self.forget();
        let outage = Outage::Connection("the connection was closed".to_owned());
        self.connection.pipeline.fail_all(&self.error(&outage));
    }
}

/// Writes and reads until the connection ends.
struct Serving<'a> {
    driver: &'a Driver,
    stream: Stream,
    writing: BytesMut,
    /// Bytes that have been written of it.
    written: usize,
    reading: BytesMut,
    woken: Vec<Waker>,
    alarm: Pin<Box<Sleep>>,
    alarm_is_set: bool,
    has_had_grace: bool,
}

impl<'a> Serving<'a> {
    fn new(driver: &'a Driver, stream: Stream) -> Self {
        Self {
            driver,
            stream,
            writing: BytesMut::new(),
            written: 0,
            reading: BytesMut::with_capacity(READ_BLOCK),
            woken: Vec::new(),
            alarm: Box::pin(sleep_until(Instant::now().into())),
            alarm_is_set: false,
            has_had_grace: false,
        }
    }

    fn pipeline(&self) -> &'a Pipeline {
        &self.driver.connection.pipeline
    }

    /// Writes what was asked for, as far as the socket takes it. Whether any of it went.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if self.writing.is_empty() {
            if std::mem::take(&mut self.written) > WRITE_KEPT {
                self.writing = BytesMut::new();
            }
            self.pipeline().take_bytes(&mut self.writing, cx.waker());
        }
        let mut progress = false;
        while !self.writing.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.writing) {
                Poll::Ready(Ok(0)) => return Err(self.closed()),
                Poll::Ready(Ok(written)) => {
                    self.writing.advance(written);
                    self.written += written;
                }
                Poll::Ready(Err(error)) => return Err(End::Failed(connection_failed(error))),
                Poll::Pending => break,
            }
            progress = true;
        }
        Ok(progress)
    }

    /// Reads what is there, once, and hands in the responses. Whether there was any.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let read = pin!(self.stream.read_buf(&mut self.reading)).poll(cx);
        match read {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(0)) => return Err(self.closed()),
            Poll::Ready(Err(error)) => return Err(End::Failed(connection_failed(error))),
            Poll::Ready(Ok(_)) => {}
        }
        let (reading, mut needed) = (&mut self.reading, 0);
        let next = || match decode(reading)? {
            Decoded::Response(response) => Ok(Some(response)),
            Decoded::Incomplete(length) => {
                needed = length;
                Ok(None)
            }
        };
        let delivered: Result<(), Surprise> =
            self.driver.connection.pipeline.deliver(next, &mut self.woken);
        delivered.map_err(|surprise| End::Failed(Outage::Garbage(surprise.to_string())))?;
        // A large value gets its place at once, in steps: the length is only a claim so far.
        let missing = needed.saturating_sub(self.reading.len());
        let ahead = READ_AHEAD.max(self.reading.len());
        self.reading.reserve(missing.min(ahead).max(HEADER));
        if self.reading.capacity() - self.reading.len() < READ_BLOCK / 8 && missing < READ_BLOCK {
            self.reading.reserve(READ_BLOCK);
        }
        Ok(true)
    }

    fn closed(&self) -> End {
        if self.pipeline().in_flight() == 0 {
            End::Quiet
        } else {
            End::Failed(Outage::Connection("it closed the connection".to_owned()))
        }
    }

    /// One alarm for all: it is set for the operation that has waited longest, and when it rings,
    /// for the one that has then.
    fn check_deadline(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        loop {
            if self.alarm_is_set {
                if self.alarm.as_mut().poll(cx).is_pending() {
                    return Ok(());
                }
                self.alarm_is_set = false;
            }
            let Some(deadline) = self.pipeline().first_deadline() else { return Ok(()) };
            // Within the grace time the runtime looks at the socket once more.
            if deadline + GRACE <= Instant::now() && self.has_had_grace {
                return Err(End::Failed(Outage::Timeout));
            }
            self.has_had_grace = deadline <= Instant::now();
            let next = if self.has_had_grace { Instant::now() + GRACE } else { deadline };
            self.alarm.as_mut().reset(next.into());
            self.alarm_is_set = true;
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        loop {
            if self.driver.connection.retired.load(Ordering::Acquire) {
                return Err(End::Quiet);
            }
            let wrote = self.write(cx)?;
            let read = self.read(cx)?;
            if !wrote && !read {
                if !self.writing.is_empty() {
                    // Whoever asks now must set the alarm, although nothing can be written.
                    self.pipeline().wake_on_push(cx.waker());
                }
                return self.check_deadline(cx);
            }
        }
    }
}

impl Future for Serving<'_> {
    type Output = End;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        match self.get_mut().turn(cx) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }
}

/// Bytes that are not what was asked for.
#[derive(Debug, Error)]
enum Surprise {
    #[error(transparent)]
    Garbage(#[from] Garbage),
    #[error(transparent)]
    Unexpected(#[from] Unexpected),
}
