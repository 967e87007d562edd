//! The byte stream of a connection, below Actix's HTTP parser.
//!
//! It hands on the bytes of one request at a time: those of the next request wait until the answer has
//! been written. So a client that sends and does not read is no work and little memory, and a request
//! behind `Connection: close` is never carried out (RFC 9112, section 9.6). Each state of a connection
//! has a deadline:
//!
//! | state | deadline | at the deadline |
//! |---|---|---|
//! | no byte of a request yet | `IDLE_TIMEOUT`; `REQUEST_TIMEOUT` for the first request | closed |
//! | a part of a head | `REQUEST_TIMEOUT` | 408 |
//! | a part of a body | that of `http::request_body` | 408 |
//! | the app is at work | those of database and cache | 503 |
//! | answered, the rest of a body is awaited | [`DRAIN_TIMEOUT`], and [`MAX_DRAINED`] | closed |
//! | the client does not read | `WRITE_TIMEOUT` | reset |
//! | closed by us, the client has not closed | [`LINGER_TIMEOUT`], and [`MAX_DRAINED`] | reset |

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use actix_web::{
    rt::time::{Sleep, sleep_until},
    web::BytesMut,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    exchange::{Exchange, Turn},
    framing::{BodyScanner, HeadScanner},
    registry::Slot,
    socket::Socket,
};
use crate::config::Limits;

/// The time for the rest of a body that was answered before its end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// The time for the client to close a connection after we did. Closing it while bytes are unread would
/// reset it, and the client could lose the answer (RFC 9112, section 9.6).
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// The most bytes that are read to be thrown away.
const MAX_DRAINED: usize = 64 * 1024;

/// The time for the first request of a new connection while the server stops.
const LAST_REQUEST: Duration = Duration::from_secs(1);

const HEAD_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const HEAD_TOO_LARGE: &[u8] =
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// A connection with its limits.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    slot: Slot,
    limits: Limits,
    state: State,
    /// When [`Self::state`] began.
    since: Instant,
    /// Whether a request was received.
    is_used: bool,
    /// Bytes that came with a request and belong to the next one.
    surplus: BytesMut,
    /// Since when the client has taken no byte of what is to be written.
    blocked_since: Option<Instant>,
    closing: Closing,
    timer: Option<Pin<Box<Sleep>>>,
}

/// What is read.
#[derive(Debug)]
enum State {
    Head(HeadScanner),
    /// Nothing: the head is with Actix's parser.
    Handed,
    Body(BodyScanner),
    /// Nothing: the app is at work.
    Answer,
    /// The rest of a body after its answer, and how much of it was read.
    Drain(BodyScanner, usize),
    /// Nothing any more.
    Ended,
}

/// How far the closing of a connection is.
#[derive(Debug)]
enum Closing {
    /// Our end is to be closed, and the connection with it: the client waits for no answer.
    AtOnce,
    /// These bytes are to be written.
    Farewell(&'static [u8]),
    /// Our end is to be closed.
    Shutdown,
    /// The client is to close its end. Also, how much was read.
    Linger(Instant, usize),
}

impl Connection {
    pub(super) fn new(socket: Socket, slot: Slot, limits: Limits) -> Self {
        Self {
            socket,
            slot,
            limits,
            state: State::Head(HeadScanner::default()),
            since: Instant::now(),
            is_used: false,
            surplus: BytesMut::new(),
            blocked_since: None,
            closing: Closing::Farewell(&[]),
            timer: None,
        }
    }

    /// Returns what this connection and its requests share.
    pub(super) fn exchange(&self) -> Rc<Exchange> {
        Rc::clone(&self.slot.exchange)
    }

    /// Follows the app's turns.
    fn advance(&mut self) {
        let turn = self.slot.exchange.turn();
        if let (State::Handed, Turn::Taken(body) | Turn::Answered(body)) = (&self.state, turn) {
            self.state = State::Body(BodyScanner::new(body));
        }
        match (&mut self.state, turn) {
            (State::Body(body), Turn::Taken(_)) if body.is_done() => {
                self.slot.exchange.set_waiting_since(None);
                self.state = State::Answer;
            }
            (State::Body(body), Turn::Answered(_)) if !body.is_done() => {
                let body = std::mem::replace(body, BodyScanner::UntilClosed);
                self.state = State::Drain(body, 0);
                self.since = Instant::now();
            }
            (State::Body(_) | State::Answer, Turn::Answered(_)) => {
                self.since = self.slot.exchange.waiting_since().unwrap_or_else(Instant::now);
                self.await_request();
            }
            (State::Drain(body, _), _) if body.is_done() => {
                self.since = Instant::now();
                self.await_request();
            }
            _ => {}
        }
    }

    fn await_request(&mut self) {
        self.slot.exchange.set_turn(Turn::Client);
        self.slot.exchange.set_has_more(false);
        self.state = State::Head(HeadScanner::default());
    }

    /// Reads what came with the last request, or from the socket.
    fn poll_bytes(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.surplus.is_empty() {
            return self.socket.poll_read(cx, buf);
        }
        let length = self.surplus.len().min(buf.remaining());
        buf.put_slice(&self.surplus.split_to(length));
        if self.surplus.is_empty() {
            self.surplus = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Returns how many of `bytes` may be handed on; `None` if the request is refused.
    fn accept(&mut self, bytes: &[u8]) -> Option<usize> {
        match &mut self.state {
            State::Head(head) => {
                if head.length == 0 {
                    self.since = Instant::now();
                    self.slot.exchange.set_waiting_since(Some(self.since));
                }
                let end = head.end(bytes);
                if head.length > self.limits.head_bytes {
                    self.closing = Closing::Farewell(HEAD_TOO_LARGE);
                    return None;
                }
                if end.is_some() {
                    self.is_used = true;
                    self.state = State::Handed;
                }
                Some(end.unwrap_or(bytes.len()))
            }
            State::Body(body) => Some(body.take(bytes)),
            State::Drain(body, drained) => {
                *drained += bytes.len();
                (*drained <= MAX_DRAINED).then(|| body.take(bytes))
            }
            State::Handed | State::Answer | State::Ended => Some(0),
        }
    }

    /// Waits for bytes or a deadline. Ready means that the connection ends.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.slot.exchange.is_evicted() {
            return self.end(Closing::AtOnce);
        }
        let is_idle = matches!(&self.state, State::Head(head) if head.length == 0);
        let is_new = is_idle && !self.is_used;
        let patience = match &self.state {
            _ if is_idle && self.slot.is_closing() => {
                if is_new {
                    LAST_REQUEST
                } else {
                    Duration::ZERO
                }
            }
            State::Head(_) if is_idle && !is_new => self.limits.idle_timeout,
            State::Head(_) | State::Handed => self.limits.request_timeout,
            State::Drain(..) => DRAIN_TIMEOUT,
            // The app answers within its own deadlines, so this one only looks again.
            State::Body(_) | State::Answer | State::Ended => {
                ready!(self.poll_timer(cx, Instant::now() + self.limits.idle_timeout));
                return Poll::Pending;
            }
        };
        ready!(self.poll_timer(cx, self.since + patience));
        self.end(match self.state {
            _ if is_idle => Closing::AtOnce,
            State::Drain(..) => Closing::Farewell(&[]),
            _ => Closing::Farewell(HEAD_TIMEOUT),
        })
    }

    /// Ends the reading side, so that Actix closes the connection.
    fn end(&mut self, closing: Closing) -> Poll<io::Result<()>> {
        self.state = State::Ended;
        self.closing = closing;
        Poll::Ready(Ok(()))
    }

    /// Becomes ready at `deadline`. The timer is moved only to an earlier time, or when it fires: most
    /// requests do not touch it.
    fn poll_timer(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let deadline = deadline.into();
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// Drops the connection and what was to be written, instead of waiting until it is sent.
    fn abort(&self, reason: &'static str) -> io::Error {
        self.socket.drop_unsent();
        io::Error::new(io::ErrorKind::TimedOut, reason)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.slot.exchange.register(cx.waker());
        this.advance();
        match this.state {
            State::Ended => return Poll::Ready(Ok(())),
            State::Handed | State::Answer => {
                let has_more =
                    !this.surplus.is_empty() || this.socket.poll_read_ready(cx).is_ready();
                this.slot.exchange.set_has_more(has_more);
                return this.poll_end(cx);
            }
            // The next request waits until the answer is written.
            State::Head(_) if this.blocked_since.is_some() => return this.poll_end(cx),
            State::Head(_) | State::Body(_) | State::Drain(..) => {}
        }
        let before = buf.filled().len();
        match this.poll_bytes(cx, buf) {
            Poll::Pending => return this.poll_end(cx),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {}
        }
        let bytes = &buf.filled()[before..];
        if bytes.is_empty() {
            this.state = State::Ended;
            return Poll::Ready(Ok(()));
        }
        let Some(accepted) = this.accept(bytes) else {
            this.state = State::Ended;
            buf.set_filled(before);
            return Poll::Ready(Ok(()));
        };
        if accepted < bytes.len() {
            let mut surplus = BytesMut::from(&bytes[accepted..]);
            surplus.unsplit(std::mem::take(&mut this.surplus));
            this.surplus = surplus;
            buf.set_filled(before + accepted);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Poll::Ready(written) = this.socket.poll_write(cx, bytes) {
            if this.blocked_since.take().is_some() {
                if matches!(this.state, State::Answer) {
                    this.slot.exchange.set_waiting_since(None);
                }
                // Bytes of the next request may have been left unread.
                this.slot.exchange.wake();
            }
            return Poll::Ready(written);
        }
        let since = *this.blocked_since.get_or_insert_with(Instant::now);
        this.slot.exchange.set_waiting_since(Some(since));
        if this.slot.exchange.is_evicted() {
            return Poll::Ready(Err(this.abort("made room for another connection")));
        }
        ready!(this.poll_timer(cx, since + this.limits.write_timeout));
        Poll::Ready(Err(this.abort("the client does not read its answer")))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match this.closing {
                Closing::AtOnce => return this.socket.poll_shutdown(cx),
                Closing::Farewell(bytes) => {
                    // A client that does not read it does not get it.
                    let _ = this.socket.poll_write(cx, bytes);
                    this.closing = Closing::Shutdown;
                }
                Closing::Shutdown => {
                    ready!(this.socket.poll_shutdown(cx))?;
                    this.closing = Closing::Linger(Instant::now() + LINGER_TIMEOUT, 0);
                }
                Closing::Linger(deadline, drained) => {
                    if this.slot.exchange.is_evicted() || drained > MAX_DRAINED {
                        return Poll::Ready(Ok(()));
                    }
                    let mut bytes = [0; 4096];
                    let mut buf = ReadBuf::new(&mut bytes);
                    match this.socket.poll_read(cx, &mut buf) {
                        Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                            this.closing = Closing::Linger(deadline, drained + buf.filled().len());
                        }
                        Poll::Ready(_) => return Poll::Ready(Ok(())),
                        Poll::Pending => return this.poll_timer(cx, deadline).map(Ok),
                    }
                }
            }
        }
    }
}
