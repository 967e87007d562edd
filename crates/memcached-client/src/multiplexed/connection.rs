//! One connection, and the task that opens, writes and reads it.

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
    task::yield_now,
    time::{Sleep, sleep_until, timeout, timeout_at},
};

use super::{
    codec::{Codec, DecodeError},
    establish::{Opened, connection_failed, establish},
    frame::Frame,
    pipeline::{Pipeline, UnexpectedResponse, Writes},
    read_buffer::{LARGE, ReadBuffer},
};
use crate::{
    address::ServerAddress,
    config::Config,
    error::Error,
    health::{Health, Outage},
    stream::Stream,
    types::next_connection,
};

/// The time after a deadline in which a response is still accepted. The response may have arrived
/// in time, while the thread was busy with other tasks.
const GRACE: Duration = Duration::from_millis(10);

/// The largest write buffer that an idle connection keeps, in bytes.
const MAX_IDLE_BUFFER: usize = 256 * 1024;

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
        })
    }

    /// Returns whether the connection may be dead: it was opened before an outage, or it is still
    /// being opened although the server has come back since.
    pub(super) fn is_suspect(&self, health: &Health) -> bool {
        match self.outages_at_opening.load(Ordering::Acquire) {
            STILL_OPENING => self.returns_at_start != health.returns(),
            outages => outages != health.outages(),
        }
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
enum ConnectionEnd {
    /// The connection was retired, or the server closed it while no request was in flight.
    Idle,
    Failed(Outage),
}

impl Driver {
    async fn run(self) {
        let end = match self.open().await {
            Ok(opened) => IoLoop::new(&self, opened).await,
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
        self.forget();
        let outage = Outage::Connection("the connection was closed".to_owned());
        self.connection.pipeline.fail_all(&self.error(&outage));
    }
}

/// Writes and reads until the connection ends.
struct IoLoop<'a> {
    driver: &'a Driver,
    stream: Stream,
    codec: Codec,
    /// Requests that are not yet written.
    writing: BytesMut,
    /// Where `writing` is divided.
    writes: Writes,
    /// Number of bytes written since `writing` was last filled.
    written: usize,
    reading: ReadBuffer,
    /// Whether the last read has completed a large value.
    has_delivered_large: bool,
    /// Scratch space for [`Pipeline::deliver`].
    woken: Vec<Waker>,
    alarm: Pin<Box<Sleep>>,
    alarm_is_set: bool,
    /// Whether the alarm is set for the end of [`GRACE`] after a deadline.
    in_grace: bool,
}

impl<'a> IoLoop<'a> {
    fn new(driver: &'a Driver, Opened { stream, codec }: Opened) -> Self {
        Self {
            driver,
            stream,
            codec,
            writing: BytesMut::new(),
            writes: Writes::default(),
            written: 0,
            reading: ReadBuffer::new(),
            has_delivered_large: false,
            woken: Vec::new(),
            alarm: Box::pin(sleep_until(Instant::now().into())),
            alarm_is_set: false,
            in_grace: false,
        }
    }

    fn pipeline(&self) -> &'a Pipeline {
        &self.driver.connection.pipeline
    }

    /// Writes as many requests as the socket accepts. Returns whether any bytes were written.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, ConnectionEnd> {
        if self.writing.is_empty() {
            if std::mem::take(&mut self.written) > MAX_IDLE_BUFFER {
                self.writing = BytesMut::new();
            }
            self.pipeline().take_bytes(&mut self.writing, &mut self.writes, cx.waker());
        }
        let mut progress = false;
        while !self.writing.is_empty() {
            let together = self.writes.next(self.writing.len());
            match Pin::new(&mut self.stream).poll_write(cx, &self.writing[..together]) {
                Poll::Ready(Ok(0)) => return Err(self.closed()),
                Poll::Ready(Ok(written)) => {
                    self.writing.advance(written);
                    self.writes.written(written);
                    self.written += written;
                }
                Poll::Ready(Err(error)) => {
                    return Err(ConnectionEnd::Failed(connection_failed(error)));
                }
                Poll::Pending => break,
            }
            progress = true;
        }
        // TLS buffers bytes that the socket does not accept at once.
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(Err(error)) => Err(ConnectionEnd::Failed(connection_failed(error))),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(progress),
        }
    }

    /// Reads once and delivers the complete responses. Returns whether any bytes were read.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, ConnectionEnd> {
        match pin!(self.stream.read_buf(&mut self.reading.bytes)).poll(cx) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(0)) => return Err(self.closed()),
            Poll::Ready(Err(error)) => return Err(ConnectionEnd::Failed(connection_failed(error))),
            Poll::Ready(Ok(_)) => {}
        }
        let (codec, reading) = (self.codec, &mut self.reading.bytes);
        let (mut needed, mut longest) = (0, 0);
        let max_body = self.driver.server.config.max_response_body();
        let next = || match codec.decode(reading, max_body)? {
            Frame::Response(response) => {
                longest = longest.max(response.value.len());
                Ok(Some(response))
            }
            Frame::Incomplete(length) => {
                needed = length;
                Ok(None)
            }
        };
        let delivered: Result<(), ReadError> =
            self.driver.connection.pipeline.deliver(next, &mut self.woken);
        delivered.map_err(|error| ConnectionEnd::Failed(Outage::Protocol(error.to_string())))?;
        self.has_delivered_large = longest >= LARGE;
        if self.has_delivered_large {
            self.reading.keep(longest);
        }
        self.reading.make_room(needed);
        Ok(true)
    }

    /// Returns the end for a connection that the server has closed.
    fn closed(&self) -> ConnectionEnd {
        if self.pipeline().in_flight() == 0 {
            ConnectionEnd::Idle
        } else {
            ConnectionEnd::Failed(Outage::Connection("the server closed the connection".to_owned()))
        }
    }

    /// Fails if the oldest request has exceeded its deadline. There is one alarm for all requests,
    /// which is set again, for the request that is the oldest then, when it goes off.
    fn check_deadline(&mut self, cx: &mut Context<'_>) -> Result<(), ConnectionEnd> {
        loop {
            if self.alarm_is_set {
                if self.alarm.as_mut().poll(cx).is_pending() {
                    return Ok(());
                }
                self.alarm_is_set = false;
            }
            let Some(deadline) = self.pipeline().first_deadline() else { return Ok(()) };
            // The alarm at the end of the grace period has gone off, and the response was not read.
            if deadline + GRACE <= Instant::now() && self.in_grace {
                return Err(ConnectionEnd::Failed(Outage::Timeout));
            }
            // After the deadline, give the runtime time to poll the socket once more.
            self.in_grace = deadline <= Instant::now();
            let next = if self.in_grace { Instant::now() + GRACE } else { deadline };
            self.alarm.as_mut().reset(next.into());
            self.alarm_is_set = true;
        }
    }

    /// Writes and reads until the socket is not ready for either.
    fn progress(&mut self, cx: &mut Context<'_>) -> Result<(), ConnectionEnd> {
        loop {
            if self.driver.connection.retired.load(Ordering::Acquire) {
                return Err(ConnectionEnd::Idle);
            }
            let wrote = self.write(cx)?;
            let read = self.read(cx)?;
            if std::mem::take(&mut self.has_delivered_large) {
                // Its reader runs first and, if it drops the value, the next one is read into the same memory.
                // (Woken by itself, this task would run before the tasks of a `LocalSet`.)
                let _ = pin!(yield_now()).poll(cx);
                return self.check_deadline(cx);
            }
            if !wrote && !read {
                if !self.writing.is_empty() {
                    // The socket accepts no more bytes, but the deadline of a new request must set
                    // the alarm.
                    self.pipeline().wake_on_push(cx.waker());
                }
                return self.check_deadline(cx);
            }
        }
    }
}

impl Future for IoLoop<'_> {
    type Output = ConnectionEnd;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ConnectionEnd> {
        match self.get_mut().progress(cx) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }
}

/// The reason why the bytes that were read cannot be delivered.
#[derive(Debug, Error)]
enum ReadError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Unexpected(#[from] UnexpectedResponse),
}
