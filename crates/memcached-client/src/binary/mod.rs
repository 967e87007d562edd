//! The binary protocol: one connection that all callers of a runtime share.
//!
//! A [`Link`] holds what waits ([`Pipeline`]) and, while it is needed, a task that opens the
//! connection, writes all that was asked in one go, and reads ([`connection`]). The task ends with
//! the connection; the next request starts another.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Buf;
use futures_util::future::{Either, ready};

use crate::{
    config::{Config, ServerAddress},
    error::Error,
    health::{Counters, Health, Outage},
    types::{Cas, Checked, Deletion, Swap, Value, Verb},
};

mod connection;
mod establish;
mod pipeline;
pub(crate) mod protocol;

use connection::Connection;
pub(crate) use establish::establish;
use pipeline::{Pipeline, Reply, Ticket};
use protocol::{Request, Response, opcode, status, status_text};

/// Stands for a deadline that is too far away to be counted out.
const FAR_AWAY: Duration = Duration::from_secs(365 * 24 * 60 * 60);

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
            tokio::spawn(connection::serve(Arc::clone(self), connection));
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

    /// The answer to a request that has one.
    async fn response(&self, Sent { ticket, connection }: Sent) -> Result<(Response, u64), Error> {
        let reply = ticket.await.inspect_err(|error| self.counters.failed(error))?;
        match reply {
            Reply::One(response) => Ok((response, connection)),
            Reply::Batch(_) | Reply::List(_) => Err(self.wrong_shape()),
        }
    }

    /// Sends at once; the future, which is small, only waits.
    fn ask<'a>(
        self: &'a Arc<Self>,
        request: Request<'_>,
    ) -> impl Future<Output = Result<(Response, u64), Error>> + use<'a> {
        match self.send(|pipeline, deadline| pipeline.push(request, deadline)) {
            Ok(sent) => Either::Left(self.response(sent)),
            Err(error) => Either::Right(ready(Err(error))),
        }
    }

    fn wrong_shape(&self) -> Error {
        Outage::Garbage("a reply of the wrong shape".to_owned())
            .to_error(&self.address, self.config.timeout)
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
        let answer = self.ask(Request { opcode: opcode::GET, key, ..Request::default() });
        let (response, connection) = answer.await?;
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
        let extras = item.extras();
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
        let extras: Vec<_> = items.iter().map(Checked::extras).collect();
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
        let extras = item.extras();
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

fn store_request<'a>(opcode: u8, item: &Checked<'a>, extras: &'a [u8], cas: u64) -> Request<'a> {
    Request { opcode, opaque: 0, cas, extras, key: item.key, value: item.value }
}
