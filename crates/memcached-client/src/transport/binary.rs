//! The binary protocol: one connection that all callers of a runtime share.
//!
//! A [`Link`] holds what waits ([`Pipeline`]) and, while it is needed, a task that opens the
//! connection, writes all that was asked in one go, and reads. The task ends with the connection;
//! the next request starts another.

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use secrecy::ExposeSecret;
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Sleep, sleep_until, timeout, timeout_at},
};

use super::{Cas, Checked, Deletion, Swap, Value, Verb, next_connection};
use crate::{
    config::{Config, Credentials, ServerAddress},
    error::Error,
    health::{Counters, Health, Outage},
    pipeline::{Pipeline, Reply, Ticket, Unexpected},
    protocol::{Decoded, Garbage, HEADER, Request, Response, decode, opcode, status, status_text},
    stream::Stream,
};

/// What is read at once, at least. Small values share such a block.
const READ_BLOCK: usize = 32 * 1024;

/// The most memory that is set aside for a value before it arrives.
const READ_AHEAD: usize = 1024 * 1024;

/// Stands for a deadline that is too far away to be counted out.
const FAR_AWAY: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How long after its deadline an answer that has arrived may still be read: the thread may have
/// been busy with something else.
const GRACE: Duration = Duration::from_millis(10);

/// The most memory that an idle connection keeps for writing.
const WRITE_KEPT: usize = 256 * 1024;

/// One server, as seen from one runtime.
#[derive(Debug)]
pub(crate) struct Link {
    config: Arc<Config>,
    address: ServerAddress,
    health: Arc<Health>,
    pub(crate) counters: Counters,
    /// The connection that is open or being opened.
    current: Mutex<Option<Arc<Connection>>>,
}

#[derive(Debug)]
struct Connection {
    number: u64,
    pipeline: Pipeline,
    /// How often the server had come back when this began to be opened.
    begun_after: u64,
    /// How many outages there had been when it was open; [`STILL_OPENING`] before that.
    open_since: AtomicU64,
    /// Nobody will use it any more.
    retired: AtomicBool,
}

const STILL_OPENING: u64 = u64::MAX;

impl Connection {
    fn new(health: &Health) -> Arc<Self> {
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
    fn is_suspect(&self, health: &Health) -> bool {
        match self.open_since.load(Ordering::Acquire) {
            STILL_OPENING => self.begun_after != health.returns(),
            outages => outages != health.outages(),
        }
    }

    fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.pipeline.wake_writer();
    }
}

/// An operation that has been sent, and the connection it was sent on.
struct Sent {
    ticket: Ticket,
    connection: u64,
}

impl Link {
    pub(crate) fn new(config: Arc<Config>, server: usize, health: Arc<Health>) -> Self {
        Self {
            address: config.servers[server].clone(),
            config,
            health,
            counters: Counters::default(),
            current: Mutex::new(None),
        }
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Connection>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.current().as_ref().map_or(0, |connection| connection.pipeline.in_flight())
    }

    /// Adds to the current connection what `push` pushes, or to one that is opened for it.
    fn send(
        self: &Arc<Self>,
        push: impl FnOnce(&Pipeline, Instant) -> Ticket,
    ) -> Result<Sent, Error> {
        let mut current = self.current();
        let suspect = current.take_if(|connection| connection.is_suspect(&self.health));
        let is_new = current.is_none();
        let connection = Arc::clone(current.get_or_insert_with(|| Connection::new(&self.health)));
        let sent = self.push_to(&connection, push);
        drop(current);
        if let Some(suspect) = suspect {
            suspect.retire();
        }
        if is_new {
            // Without the lock: a runtime that is being shut down drops the task at once.
            tokio::spawn(Driver { link: Arc::clone(self), connection }.run());
        }
        sent
    }

    /// Likewise, if that connection is still the current one and can be trusted.
    fn send_on(
        &self,
        number: u64,
        push: impl FnOnce(&Pipeline, Instant) -> Ticket,
    ) -> Result<Option<Sent>, Error> {
        let current = self.current();
        let is_the_one = |connection: &&Arc<Connection>| {
            connection.number == number && !connection.is_suspect(&self.health)
        };
        let connection = current.as_ref().filter(is_the_one);
        connection.map(|connection| self.push_to(connection, push)).transpose()
    }

    fn push_to(
        &self,
        connection: &Connection,
        push: impl FnOnce(&Pipeline, Instant) -> Ticket,
    ) -> Result<Sent, Error> {
        let limit = self.config.max_in_flight;
        if connection.pipeline.is_full(limit) {
            let error = Error::Overloaded { server: self.address.clone(), limit };
            self.counters.failed(&error);
            return Err(error);
        }
        let now = Instant::now();
        let deadline = now.checked_add(self.config.timeout).unwrap_or(now + FAR_AWAY);
        let ticket = push(&connection.pipeline, deadline);
        Ok(Sent { ticket, connection: connection.number })
    }

    /// Ends the current connection, if it is that of the number; what waits for it fails.
    pub(crate) fn retire(&self, number: Option<u64>) {
        let mut current = self.current();
        let is_meant = |c: &mut Arc<Connection>| number.is_none_or(|number| c.number == number);
        let retired = current.take_if(is_meant);
        drop(current);
        if let Some(connection) = retired {
            connection.retire();
        }
    }

    async fn reply(&self, sent: Sent) -> Result<(Reply, u64), Error> {
        let reply = sent.ticket.await.inspect_err(|error| self.counters.failed(error))?;
        Ok((reply, sent.connection))
    }

    async fn response(&self, sent: Sent) -> Result<(Response, u64), Error> {
        match self.reply(sent).await? {
            (Reply::One(response), connection) => Ok((response, connection)),
            (Reply::Batch(_) | Reply::List(_), _) => Err(self.wrong_shape()),
        }
    }

    async fn ask(self: &Arc<Self>, request: Request<'_>) -> Result<(Response, u64), Error> {
        let sent = self.send(|pipeline, deadline| pipeline.push(request, deadline))?;
        self.response(sent).await
    }

    fn wrong_shape(&self) -> Error {
        Outage::Garbage("a reply of the wrong shape".to_owned()).to_error(&self.address)
    }

    /// What an answer that is neither success nor one of the expected failures means.
    fn refusal(&self, response: &Response, connection: u64, bytes: usize) -> Error {
        let error = match response.status {
            status::TOO_LARGE => Error::TooLarge { bytes },
            code => Error::Refused { status: Some(code), reason: status_text(code).to_owned() },
        };
        self.counters.failed(&error);
        if response.status == status::NOT_LOGGED_IN {
            // The password has been changed, say: a new connection logs in anew.
            self.health.mark_out(Outage::Login(status_text(response.status).to_owned()));
            self.retire(Some(connection));
        }
        error
    }

    pub(crate) async fn get(self: &Arc<Self>, key: &[u8]) -> Result<Option<Value>, Error> {
        let request = Request { opcode: opcode::GET, key, ..Request::default() };
        let (response, connection) = self.ask(request).await?;
        match response.status {
            status::OK => {
                self.counters.found(1, 1);
                Ok(Some(value_of(response, connection)))
            }
            status::NOT_FOUND => {
                self.counters.found(0, 1);
                Ok(None)
            }
            _ => Err(self.refusal(&response, connection, key.len())),
        }
    }

    pub(crate) async fn get_many(
        self: &Arc<Self>,
        keys: &[&[u8]],
    ) -> Result<Vec<Option<Value>>, Error> {
        let requests = keys.iter().map(|key| Request { key, ..Request::default() });
        let answers = self.batch(opcode::GETQ, requests).await?;
        let (answers, connection) = answers;
        let values = answers.into_iter().map(|answer| match answer {
            None => Ok(None),
            Some(response) if response.status == status::OK => {
                Ok(Some(value_of(response, connection)))
            }
            Some(response) if response.status == status::NOT_FOUND => Ok(None),
            Some(response) => Err(self.refusal(&response, connection, 0)),
        });
        let values = values.collect::<Result<Vec<_>, _>>()?;
        self.counters.found(values.iter().flatten().count(), values.len());
        Ok(values)
    }

    async fn batch<'a>(
        self: &Arc<Self>,
        opcode: u8,
        requests: impl Iterator<Item = Request<'a>>,
    ) -> Result<(Vec<Option<Response>>, u64), Error> {
        let sent = self.send(|pipeline, deadline| pipeline.push_batch(opcode, requests, deadline));
        match self.reply(sent?).await? {
            (Reply::Batch(answers), connection) => Ok((answers, connection)),
            (Reply::One(_) | Reply::List(_), _) => Err(self.wrong_shape()),
        }
    }

    /// `None`: the entry was there (`Add`) or was not (`Replace`); else its mark.
    pub(crate) async fn store(
        self: &Arc<Self>,
        verb: Verb,
        item: Checked<'_>,
    ) -> Result<Option<Option<Cas>>, Error> {
        let opcode = match verb {
            Verb::Set => opcode::SET,
            Verb::Add => opcode::ADD,
            Verb::Replace => opcode::REPLACE,
        };
        let extras = store_extras(&item);
        let request = store_request(opcode, &item, &extras, 0);
        let (response, connection) = self.ask(request).await?;
        match (response.status, verb) {
            (status::OK, _) => {
                Counters::count(&self.counters.sets, 1);
                Ok(Some(Cas::new(response.cas, connection)))
            }
            (status::EXISTS | status::NOT_STORED, Verb::Add)
            | (status::NOT_FOUND | status::NOT_STORED, Verb::Replace) => Ok(None),
            _ => Err(self.refusal(&response, connection, item.key.len() + item.value.len())),
        }
    }

    pub(crate) async fn store_many(
        self: &Arc<Self>,
        items: &[Checked<'_>],
    ) -> Result<Vec<Result<(), Error>>, Error> {
        let extras: Vec<_> = items.iter().map(store_extras).collect();
        let requests = items.iter().zip(&extras);
        let requests = requests.map(|(item, extras)| store_request(0, item, extras, 0));
        let (answers, connection) = self.batch(opcode::SETQ, requests).await?;
        let outcomes = answers.iter().zip(items).map(|(answer, item)| match answer {
            Some(response) if response.status != status::OK => {
                Err(self.refusal(response, connection, item.key.len() + item.value.len()))
            }
            _ => Ok(()),
        });
        let outcomes: Vec<_> = outcomes.collect();
        Counters::count(&self.counters.sets, outcomes.iter().filter(|o| o.is_ok()).count());
        Ok(outcomes)
    }

    pub(crate) async fn compare_and_swap(
        self: &Arc<Self>,
        item: Checked<'_>,
        cas: Cas,
    ) -> Result<Swap, Error> {
        let extras = store_extras(&item);
        let request = store_request(opcode::SET, &item, &extras, cas.id());
        let swap = self.swap(request, cas).await?;
        if matches!(swap, Swap::Done(_)) {
            Counters::count(&self.counters.sets, 1);
        }
        Ok(swap)
    }

    pub(crate) async fn delete_if_unchanged(
        self: &Arc<Self>,
        key: &[u8],
        cas: Cas,
    ) -> Result<Swap, Error> {
        let request = Request { opcode: opcode::DELETE, key, cas: cas.id(), ..Request::default() };
        match self.swap(request, cas).await? {
            Swap::Done(_) => Ok(Swap::Done(None)),
            other => Ok(other),
        }
    }

    async fn swap(&self, request: Request<'_>, cas: Cas) -> Result<Swap, Error> {
        let bytes = request.key.len() + request.value.len();
        let push = |pipeline: &Pipeline, deadline| pipeline.push(request, deadline);
        let Some(sent) = self.send_on(cas.connection(), push)? else {
            return Ok(Swap::ConnectionReplaced);
        };
        let (response, connection) = self.response(sent).await?;
        match response.status {
            status::OK => Ok(Swap::Done(Cas::new(response.cas, connection))),
            status::EXISTS => Ok(Swap::Changed),
            status::NOT_FOUND => Ok(Swap::Missing),
            _ => Err(self.refusal(&response, connection, bytes)),
        }
    }

    pub(crate) async fn delete(self: &Arc<Self>, key: &[u8]) -> Result<Deletion, Error> {
        let request = Request { opcode: opcode::DELETE, key, ..Request::default() };
        let (response, connection) = self.ask(request).await?;
        self.deletion(Some(&response), connection)
    }

    pub(crate) async fn delete_many(
        self: &Arc<Self>,
        keys: &[&[u8]],
    ) -> Result<Vec<Result<Deletion, Error>>, Error> {
        let requests = keys.iter().map(|key| Request { key, ..Request::default() });
        let (answers, connection) = self.batch(opcode::DELETEQ, requests).await?;
        Ok(answers.iter().map(|answer| self.deletion(answer.as_ref(), connection)).collect())
    }

    /// Silence of a quiet delete means success.
    fn deletion(&self, answer: Option<&Response>, connection: u64) -> Result<Deletion, Error> {
        match answer {
            None => Ok(Deletion::Deleted),
            Some(response) => match response.status {
                status::OK => Ok(Deletion::Deleted),
                status::NOT_FOUND => Ok(Deletion::NotFound),
                _ => Err(self.refusal(response, connection, 0)),
            },
        }
    }

    pub(crate) async fn touch(
        self: &Arc<Self>,
        key: &[u8],
        expiration: u32,
    ) -> Result<bool, Error> {
        let extras = expiration.to_be_bytes();
        let request = Request { opcode: opcode::TOUCH, key, extras: &extras, ..Request::default() };
        let (response, connection) = self.ask(request).await?;
        match response.status {
            status::OK => Ok(true),
            status::NOT_FOUND => Ok(false),
            _ => Err(self.refusal(&response, connection, 0)),
        }
    }

    /// `None` if there is no entry.
    pub(crate) async fn count(
        self: &Arc<Self>,
        key: &[u8],
        delta: u64,
        up: bool,
    ) -> Result<Option<u64>, Error> {
        let opcode = if up { opcode::INCREMENT } else { opcode::DECREMENT };
        // Delta, initial value, and the lifetime that says: no initial value.
        let mut extras = [0xff; 20];
        extras[..8].copy_from_slice(&delta.to_be_bytes());
        let request = Request { opcode, key, extras: &extras, ..Request::default() };
        let (mut response, connection) = self.ask(request).await?;
        match response.status {
            status::OK if response.value.len() == 8 => Ok(Some(response.value.get_u64())),
            status::OK => Err(self.wrong_shape()),
            status::NOT_FOUND => Ok(None),
            _ => Err(self.refusal(&response, connection, 0)),
        }
    }

    pub(crate) async fn flush(self: &Arc<Self>) -> Result<(), Error> {
        self.plain(opcode::FLUSH).await.map(drop)
    }

    pub(crate) async fn noop(self: &Arc<Self>) -> Result<(), Error> {
        self.plain(opcode::NOOP).await.map(drop)
    }

    pub(crate) async fn version(self: &Arc<Self>) -> Result<String, Error> {
        let response = self.plain(opcode::VERSION).await?;
        Ok(String::from_utf8_lossy(&response.value).into_owned())
    }

    async fn plain(self: &Arc<Self>, opcode: u8) -> Result<Response, Error> {
        let (response, connection) = self.ask(Request { opcode, ..Request::default() }).await?;
        match response.status {
            status::OK => Ok(response),
            _ => Err(self.refusal(&response, connection, 0)),
        }
    }

    pub(crate) async fn stats(self: &Arc<Self>) -> Result<Vec<(String, String)>, Error> {
        let request = Request { opcode: opcode::STAT, ..Request::default() };
        let sent = self.send(|pipeline, deadline| pipeline.push(request, deadline))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (reply, connection) = self.reply(sent).await?;
        match reply {
            Reply::List(list) => Ok(list.iter().map(|r| (text(&r.key), text(&r.value))).collect()),
            Reply::One(response) => Err(self.refusal(&response, connection, 0)),
            Reply::Batch(_) => Err(self.wrong_shape()),
        }
    }
}

fn value_of(response: Response, connection: u64) -> Value {
    let cas = Cas::new(response.cas, connection);
    Value { data: response.value, flags: response.flags, cas }
}

fn store_extras(item: &Checked<'_>) -> [u8; 8] {
    let mut extras = [0; 8];
    extras[..4].copy_from_slice(&item.flags.to_be_bytes());
    extras[4..].copy_from_slice(&item.expiration.to_be_bytes());
    extras
}

fn store_request<'a>(opcode: u8, item: &Checked<'a>, extras: &'a [u8], cas: u64) -> Request<'a> {
    Request { opcode, opaque: 0, cas, extras, key: item.key, value: item.value }
}

/// Connects, logs in, and waits for the server to answer: a server that accepts connections but
/// hangs, and one that refused the log-in, are not well.
pub(crate) async fn establish(address: &ServerAddress, config: &Config) -> Result<Stream, Outage> {
    let mut stream =
        Stream::connect(address, config.connect_timeout).await.map_err(connection_failed)?;
    let mut out = BytesMut::new();
    if let Some(credentials) = &config.credentials {
        request_login(credentials, &mut out);
    }
    Request { opcode: opcode::NOOP, ..Request::default() }.encode(&mut out);
    stream.write_all(&out).await.map_err(connection_failed)?;
    let mut buffer = BytesMut::new();
    if config.credentials.is_some() {
        let response = read_response(&mut stream, &mut buffer, opcode::SASL_AUTH).await?;
        check_login(&response)?;
    }
    let response = read_response(&mut stream, &mut buffer, opcode::NOOP).await?;
    check_login(&response)?;
    if buffer.is_empty() { Ok(stream) } else { Err(Outage::Garbage("unasked bytes".to_owned())) }
}

/// SASL PLAIN (RFC 4616): no other identity, user, password, each after a NUL.
fn request_login(credentials: &Credentials, out: &mut BytesMut) {
    let (user, password) = (&credentials.username, credentials.password.expose_secret());
    let value = format!("\0{user}\0{password}");
    let value = value.as_bytes();
    Request { opcode: opcode::SASL_AUTH, key: b"PLAIN", value, ..Request::default() }.encode(out);
}

fn check_login(response: &Response) -> Result<(), Outage> {
    match response.status {
        status::OK => Ok(()),
        status::UNKNOWN_COMMAND => {
            Err(Outage::Login("the server has no log-in by SASL".to_owned()))
        }
        code => Err(Outage::Login(status_text(code).to_owned())),
    }
}

async fn read_response(
    stream: &mut Stream,
    buffer: &mut BytesMut,
    opcode: u8,
) -> Result<Response, Outage> {
    loop {
        match decode(buffer).map_err(|garbage| Outage::Garbage(garbage.to_string()))? {
            Decoded::Response(response) if response.opcode == opcode => return Ok(response),
            Decoded::Response(_) => return Err(Outage::Garbage("an unasked reply".to_owned())),
            Decoded::Incomplete(_) => {}
        }
        if stream.read_buf(buffer).await.map_err(connection_failed)? == 0 {
            return Err(Outage::Connection("it closed the connection".to_owned()));
        }
    }
}

fn connection_failed(error: io::Error) -> Outage {
    Outage::Connection(error.to_string())
}

/// The task of one connection, from opening to end.
struct Driver {
    link: Arc<Link>,
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
            self.link.health.mark_out(outage);
            self.forget();
            self.connection.pipeline.fail_all(&error);
        }
    }

    fn error(&self, outage: &Outage) -> Error {
        match outage {
            Outage::Timeout => Error::Timeout {
                server: self.link.address.clone(),
                limit: self.link.config.timeout,
            },
            other => other.to_error(&self.link.address),
        }
    }

    /// What is sent from now on opens another connection.
    fn forget(&self) {
        let mut current = self.link.current();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &self.connection)) {
            *current = None;
        }
    }

    /// Opens the connection. Whoever has waited for as long as an operation may take is let go
    /// meanwhile, and the server is out until a probe finds it well.
    async fn open(&self) -> Result<Stream, Outage> {
        let (link, pipeline) = (&self.link, &self.connection.pipeline);
        let establish = establish(&link.address, &link.config);
        let mut opening = pin!(timeout(link.config.connect_timeout, establish));
        loop {
            let now = Instant::now();
            let until = pipeline.first_deadline().unwrap_or(now + RECHECK);
            match timeout_at(until.into(), opening.as_mut()).await {
                Ok(Ok(opened)) => {
                    let outages = link.health.outages();
                    self.connection.open_since.store(outages, Ordering::Release);
                    return opened;
                }
                Ok(Err(_)) => return Err(Outage::Timeout),
                Err(_) if self.connection.retired.load(Ordering::Acquire) => {
                    return Err(Outage::Connection("it was given up".to_owned()));
                }
                Err(_) if pipeline.first_deadline().is_some_and(|d| d <= Instant::now()) => {
                    link.health.mark_out(Outage::Timeout);
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
        self.connection.pipeline.fail_all(&outage.to_error(&self.link.address));
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
                    self.pipeline().wake_when_asked(cx.waker());
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
