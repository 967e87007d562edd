//! The socket of a connection, with the bytes to write and those that were read.

use std::{
    future::{Future, poll_fn},
    io::ErrorKind,
    pin::{Pin, pin},
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWrite},
    task::{unconstrained, yield_now},
    time::{Sleep, sleep_until},
};

use super::{
    super::{
        codec::{Codec, DecodeError},
        establish::{Opened, connection_failed},
        frame::Frame,
        pipeline::{Pipeline, UnexpectedResponse, Writes},
    },
    read_buffer::{LARGE, ReadBuffer},
};
use crate::{health::Outage, stream::Stream};

/// The time after a deadline in which a response is still accepted. The response may have arrived
/// in time, while the thread was busy with other tasks.
const GRACE: Duration = Duration::from_millis(10);

/// The largest write buffer that an idle connection keeps, in bytes.
const MAX_IDLE_BUFFER: usize = 256 * 1024;

/// How often a caller that is alone yields in vain while a large value arrives, before it sleeps. A server on the same
/// machine sends the next part in less time than it takes to sleep and wake, and would have to wake the caller. For
/// one that is far, these turns of the event loop (about 10 µs) are spent once per value.
const MAX_YIELDS: u32 = 10;

/// The reason why a connection ended.
#[derive(Debug)]
pub(super) enum ConnectionEnd {
    /// The connection was retired, or the server closed it while no request was in flight.
    Idle,
    Failed(Outage),
}

/// An open socket. The task of the connection writes and reads, or a caller that is alone.
#[derive(Debug)]
pub(super) struct Io {
    stream: Stream,
    codec: Codec,
    /// Requests that are not yet written.
    writing: BytesMut,
    /// Where `writing` is divided.
    writes: Writes,
    /// Number of bytes written since `writing` was last filled.
    written: usize,
    reading: ReadBuffer,
    /// The length of the response that has begun to arrive, as far as it is known, in bytes.
    needed: usize,
    /// How often a caller that is alone may still yield, see [`MAX_YIELDS`].
    yields: u32,
    /// Whether the last read has completed a large value.
    has_delivered_large: bool,
    /// Tasks to be woken when the lock has been released.
    woken: Vec<Waker>,
    /// The largest body of a response, in bytes.
    max_body: usize,
    /// Wakes the reader of the socket, see [`Pipeline::wake_reader`].
    waker: Waker,
    /// Wakes the task of the connection.
    task: Option<Waker>,
    /// The reason why the connection ends, found by a caller that was alone.
    end: Option<ConnectionEnd>,
    alarm: Pin<Box<Sleep>>,
    alarm_is_set: bool,
    /// Whether the alarm is set for the end of [`GRACE`] after a deadline.
    in_grace: bool,
}

impl Io {
    pub(super) fn new(Opened { stream, codec }: Opened, max_body: usize, waker: Waker) -> Self {
        Self {
            stream,
            codec,
            writing: BytesMut::new(),
            writes: Writes::default(),
            written: 0,
            reading: ReadBuffer::new(),
            needed: 0,
            yields: MAX_YIELDS,
            has_delivered_large: false,
            woken: Vec::new(),
            max_body,
            waker,
            task: None,
            end: None,
            alarm: Box::pin(sleep_until(Instant::now().into())),
            alarm_is_set: false,
            in_grace: false,
        }
    }

    /// Writes and reads on the task of the connection.
    pub(super) fn poll(
        &mut self,
        pipeline: &Pipeline,
        retired: &AtomicBool,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionEnd> {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
            pipeline.set_task(cx.waker());
        }
        if let Some(end) = self.end.take() {
            return Poll::Ready(end);
        }
        match self.progress(pipeline, retired, cx) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    /// Swaps the tasks to be woken with an empty list.
    pub(super) fn swap_woken(&mut self, woken: &mut Vec<Waker>) {
        std::mem::swap(&mut self.woken, woken);
    }

    /// Returns the tasks to be woken: nearly always none, and then it keeps the memory of the list.
    pub(super) fn take_woken(&mut self) -> Vec<Waker> {
        if self.woken.is_empty() { Vec::new() } else { std::mem::take(&mut self.woken) }
    }

    /// Writes the request of a caller that is alone. The task is to be woken if it has something to do: set the alarm,
    /// or end. If the socket does not accept all bytes, it wakes the task later, which writes the rest.
    pub(super) fn write_alone(&mut self, pipeline: &Pipeline) {
        let Some(task) = self.task.take() else { return };
        if self.end.is_none() {
            self.end = self.write(pipeline, &mut Context::from_waker(&task)).err();
        }
        if self.end.is_some() || !self.alarm_is_set {
            self.woken.push(task.clone());
        }
        self.task = Some(task);
    }

    /// Reads for a caller that is alone. Returns whether any bytes were read.
    pub(super) fn read_alone(&mut self, pipeline: &Pipeline, cx: &mut Context<'_>) -> bool {
        let has_read = self.read_or_end(pipeline);
        self.yield_in_large(has_read, cx);
        has_read
    }

    /// Reads once. An error is the end of the connection, for which the task is woken.
    fn read_or_end(&mut self, pipeline: &Pipeline) -> bool {
        if self.end.is_some() {
            return false;
        }
        self.read(pipeline).unwrap_or_else(|end| {
            self.end = Some(end);
            self.woken.extend(self.task.clone());
            false
        })
    }

    /// Yields after a read without bytes, if the rest of a large value is missing. After [`MAX_YIELDS`] times in vain,
    /// the value comes from far, and the caller does not yield again for it.
    fn yield_in_large(&mut self, has_read: bool, cx: &mut Context<'_>) {
        let is_in_large = self.needed >= LARGE;
        if has_read {
            self.yields = if is_in_large && self.yields == 0 { 0 } else { MAX_YIELDS };
        } else if is_in_large && self.yields > 0 {
            self.yields -= 1;
            let _ = pin!(yield_now()).poll(cx);
        }
    }

    /// Makes sure that the socket wakes the task. The task is to be woken at once if there is more to read. Tokio's
    /// budget of a task does not apply: with none left, the socket would wake no task.
    pub(super) fn end_alone(&mut self, pipeline: &Pipeline) {
        let check = poll_fn(|_| {
            let may_have_more = self.stream.may_have_more(&mut Context::from_waker(&self.waker));
            if may_have_more && self.read_or_end(pipeline) {
                self.woken.extend(self.task.clone());
            }
            Poll::Ready(())
        });
        let _ = pin!(unconstrained(check)).poll(&mut Context::from_waker(Waker::noop()));
    }

    /// Returns whether the server has closed the connection while no request was in flight.
    pub(super) fn is_at_end(&self) -> bool {
        matches!(self.end, Some(ConnectionEnd::Idle))
    }

    /// Writes as many requests as the socket accepts. Returns whether any bytes were written.
    fn write(&mut self, pipeline: &Pipeline, cx: &mut Context<'_>) -> Result<bool, ConnectionEnd> {
        if self.writing.is_empty() {
            if std::mem::take(&mut self.written) > MAX_IDLE_BUFFER {
                self.writing = BytesMut::new();
            }
            pipeline.take_bytes(&mut self.writing, &mut self.writes, cx.waker());
        }
        let mut progress = false;
        while !self.writing.is_empty() {
            let together = self.writes.next(self.writing.len());
            match Pin::new(&mut self.stream).poll_write(cx, &self.writing[..together]) {
                Poll::Ready(Ok(0)) => return Err(Self::closed(pipeline)),
                Poll::Ready(Ok(written)) => {
                    if written == self.writing.len() {
                        // Unlike an advance to the end, this keeps the capacity.
                        self.writing.clear();
                    } else {
                        self.writing.advance(written);
                    }
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
    fn read(&mut self, pipeline: &Pipeline) -> Result<bool, ConnectionEnd> {
        self.has_delivered_large = false;
        self.reading.make_room(self.needed);
        let mut cx = Context::from_waker(&self.waker);
        match pin!(self.stream.read_buf(&mut self.reading.bytes)).poll(&mut cx) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(0)) => return Err(Self::closed(pipeline)),
            // A server that is stopped does not end TLS before it closes the connection.
            Poll::Ready(Err(error)) if error.kind() == ErrorKind::UnexpectedEof => {
                return Err(Self::closed(pipeline));
            }
            Poll::Ready(Err(error)) => return Err(ConnectionEnd::Failed(connection_failed(error))),
            Poll::Ready(Ok(_)) => {}
        }
        let (codec, reading) = (self.codec, &mut self.reading.bytes);
        let (needed, mut longest) = (&mut self.needed, 0);
        let next = || match codec.decode(reading, self.max_body)? {
            Frame::Response(response) => {
                longest = longest.max(response.value.len());
                Ok(Some(response))
            }
            Frame::Incomplete(length) => {
                *needed = length;
                Ok(None)
            }
        };
        let delivered: Result<(), ReadError> = pipeline.deliver(next, &mut self.woken);
        delivered.map_err(|error| ConnectionEnd::Failed(Outage::Protocol(error.to_string())))?;
        self.has_delivered_large = longest >= LARGE;
        if self.has_delivered_large {
            self.reading.keep(longest);
        }
        Ok(true)
    }

    /// Returns the end for a connection that the server has closed.
    fn closed(pipeline: &Pipeline) -> ConnectionEnd {
        if pipeline.in_flight() == 0 {
            ConnectionEnd::Idle
        } else {
            ConnectionEnd::Failed(Outage::Connection("the server closed the connection".to_owned()))
        }
    }

    /// Fails if the oldest request has exceeded its deadline. There is one alarm for all requests,
    /// which is set again, for the request that is the oldest then, when it goes off.
    fn check_deadline(
        &mut self,
        pipeline: &Pipeline,
        cx: &mut Context<'_>,
    ) -> Result<(), ConnectionEnd> {
        loop {
            if self.alarm_is_set {
                if self.alarm.as_mut().poll(cx).is_pending() {
                    return Ok(());
                }
                self.alarm_is_set = false;
            }
            let Some(deadline) = pipeline.first_deadline() else { return Ok(()) };
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
    fn progress(
        &mut self,
        pipeline: &Pipeline,
        retired: &AtomicBool,
        cx: &mut Context<'_>,
    ) -> Result<(), ConnectionEnd> {
        loop {
            // Before the write, which may fail, and after it: from then on, `Connection::retire` wakes this task.
            let is_retired = || retired.load(Ordering::Acquire);
            let wrote = if is_retired() { false } else { self.write(pipeline, cx)? };
            if is_retired() {
                return Err(ConnectionEnd::Idle);
            }
            let read = self.read(pipeline)?;
            if self.has_delivered_large && pipeline.in_flight() > 0 {
                // Its reader runs first and, if it drops the value, the next one is read into the same memory.
                // (Woken by itself, this task would run before the tasks of a `LocalSet`.)
                let _ = pin!(yield_now()).poll(cx);
                return self.check_deadline(pipeline, cx);
            }
            if !wrote && !read {
                if !self.writing.is_empty() {
                    // The socket accepts no more bytes, but the deadline of a new request must set
                    // the alarm.
                    pipeline.wake_on_push(cx.waker());
                    if is_retired() {
                        return Err(ConnectionEnd::Idle);
                    }
                }
                return self.check_deadline(pipeline, cx);
            }
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
