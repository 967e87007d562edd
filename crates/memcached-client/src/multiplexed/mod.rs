//! The binary and the meta protocol, on one connection that all callers of a runtime share.
//!
//! A [`Link`] adds requests to a [`Pipeline`](pipeline::Pipeline). A task ([`connection`]) opens the connection, writes
//! all pending requests at once, and reads responses. (A caller that is alone does that by itself.) The task ends with
//! the connection; the next request starts another one.

mod binary;
mod codec;
mod connection;
mod establish;
mod frame;
#[cfg(test)]
mod fuzz;
mod meta;
mod operations;
mod packing;
mod pipeline;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

pub(crate) use self::establish::establish;
use self::{
    connection::{Connection, InFlight, Server},
    frame::{Request, Response, status, status_text},
    pipeline::{Admission, Pushed, Reply},
};
use crate::{
    config::Config,
    error::Error,
    health::{Counters, Health, Outage},
    key::shown,
};

/// The time-out instead of one that is too long for an [`Instant`].
const FAR_AWAY: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The link from one runtime to one server.
#[derive(Debug)]
pub(crate) struct Link {
    server: Arc<Server>,
    pub(crate) counters: Counters,
}

impl Link {
    pub(crate) fn new(config: Arc<Config>, server: usize, health: Arc<Health>) -> Self {
        let server = Arc::new(Server::new(config, server, health));
        Self { server, counters: Counters::default() }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.server.current().as_ref().map_or(0, |connection| connection.pipeline.in_flight())
    }

    /// Adds the operation of `push` to the current connection, or to a new one.
    fn push<T>(
        &self,
        push: impl FnOnce(Admission<'_>, Instant) -> Pushed<T>,
    ) -> Result<(Arc<Connection>, Pushed<T>), Error> {
        let mut current = self.server.current();
        // A connection from before an outage is not used again.
        let suspect = current.take_if(|connection| connection.is_suspect(&self.server.health));
        let is_new = current.is_none();
        let connection = Arc::clone(
            current
                .get_or_insert_with(|| Connection::new(&self.server.address, &self.server.health)),
        );
        let pushed = self.push_to(&connection, push);
        drop(current);
        if let Some(suspect) = suspect {
            suspect.retire();
        }
        if is_new {
            // A runtime that is shutting down drops the task at once, which takes the lock again.
            tokio::spawn(connection::serve(Arc::clone(&self.server), Arc::clone(&connection)));
        }
        Ok((connection, pushed?))
    }

    /// Adds the operation of `push` to the current connection, or to a new one.
    fn send(&self, push: impl FnOnce(Admission<'_>, Instant) -> Pushed) -> Result<InFlight, Error> {
        let (connection, pushed) = self.push(push)?;
        Ok(InFlight::start(connection, pushed))
    }

    /// Adds the operation of `push` to the connection `number`. Returns `None` if that connection is
    /// not the current one any more, or was opened before an outage.
    fn send_on(
        &self,
        number: u64,
        push: impl FnOnce(Admission<'_>, Instant) -> Pushed,
    ) -> Result<Option<InFlight>, Error> {
        let current = self.server.current();
        let is_usable = |connection: &&Arc<Connection>| {
            connection.number == number && !connection.is_suspect(&self.server.health)
        };
        let Some(connection) = current.as_ref().filter(is_usable).map(Arc::clone) else {
            return Ok(None);
        };
        let pushed = self.push_to(&connection, push)?;
        drop(current);
        Ok(Some(InFlight::start(connection, pushed)))
    }

    /// Adds the operation of `push` to a connection, unless too many are waiting.
    fn push_to<T>(
        &self,
        connection: &Connection,
        push: impl FnOnce(Admission<'_>, Instant) -> Pushed<T>,
    ) -> Result<Pushed<T>, Error> {
        let limit = self.server.config.max_in_flight;
        let Some(admission) = connection.pipeline.admit(limit) else {
            let error = Error::Overloaded { server: self.server.address.clone(), limit };
            self.counters.failed(&error);
            return Err(error);
        };
        let now = Instant::now();
        let deadline = now.checked_add(self.server.config.timeout).unwrap_or(now + FAR_AWAY);
        Ok(push(admission, deadline))
    }

    /// Ends the current connection. Operations in flight fail.
    pub(crate) fn close(&self) {
        self.retire(|_| true);
    }

    fn retire(&self, condition: impl FnOnce(&Connection) -> bool) {
        let retired = self.server.current().take_if(|connection| condition(connection));
        if let Some(connection) = retired {
            connection.retire();
        }
    }

    /// Waits for the responses to an operation.
    async fn reply(&self, sent: InFlight) -> Result<(Reply, u64), Error> {
        let connection = sent.connection();
        let reply = sent.await.inspect_err(|error| self.counters.failed(error))?;
        Ok((reply, connection))
    }

    /// Waits for the response to a request that has exactly one.
    fn response(&self, sent: InFlight) -> Answer<'_> {
        Answer { link: self, sent: Ok(sent) }
    }

    /// Sends a request at once. The returned future only waits for the response, and is small.
    fn ask(&self, request: Request<'_>) -> Answer<'_> {
        let sent = self.send(|admission, deadline| admission.push(request, deadline));
        Answer { link: self, sent: sent.map_err(Some) }
    }

    fn wrong_shape(&self) -> Error {
        Outage::Protocol("the reply does not fit the request".to_owned())
            .to_error(&self.server.address, self.server.config.timeout)
    }

    /// Converts a response that reports an unexpected failure of an operation on `key`, if it has one, with a
    /// value of `length` bytes.
    fn refusal(&self, response: &Response, connection: u64, key: &[u8], length: usize) -> Error {
        let (server, limit) = (self.server.address.clone(), self.server.config.max_item_bytes);
        let bytes = key.len() + length;
        let key = (!key.is_empty()).then(|| shown(key));
        let error = match response.status {
            status::TOO_LARGE => {
                Error::TooLarge { key: key.unwrap_or_default(), bytes, limit, is_servers: true }
            }
            status::REFUSED => {
                let reason = self.server.config.server_text(&response.value);
                Error::Refused { server, key, status: None, reason }
            }
            code => {
                let reason = status_text(code).to_owned();
                Error::Refused { server, key, status: Some(code), reason }
            }
        };
        self.counters.failed(&error);
        if response.status == status::NOT_LOGGED_IN {
            // The log-in is no longer valid, for example after a change of the password. A new
            // connection logs in again.
            self.server.health.mark_down(Outage::Login(status_text(response.status).to_owned()));
            self.retire(|current| current.number == connection);
        }
        error
    }
}

/// Waits for the response to a request that has exactly one, and returns it with the number of its connection.
struct Answer<'a> {
    link: &'a Link,
    /// The error is taken by the first poll.
    sent: Result<InFlight, Option<Error>>,
}

impl Future for Answer<'_> {
    type Output = Result<(Response, u64), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let link = self.link;
        let sent = match &mut self.sent {
            Ok(sent) => sent,
            Err(error) => {
                return error.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error)));
            }
        };
        let connection = sent.connection();
        let reply =
            ready!(Pin::new(sent).poll(cx)).inspect_err(|error| link.counters.failed(error))?;
        Poll::Ready(match reply {
            Reply::One(response) => Ok((response, connection)),
            Reply::Batch(_) | Reply::List(_) => Err(link.wrong_shape()),
        })
    }
}
