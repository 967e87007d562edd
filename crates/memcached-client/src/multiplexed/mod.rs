//! The binary and the meta protocol, on one connection that all callers of a runtime share.
//!
//! A [`Link`] adds requests to a [`Pipeline`]. A task ([`connection`]) opens the connection, writes
//! all pending requests at once, and reads responses. It ends with the connection; the next request
//! starts another one.

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
mod read_buffer;

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::{Either, ready};

pub(crate) use self::establish::establish;
use self::{
    connection::{Connection, Server},
    frame::{Request, Response, status, status_text},
    pipeline::{Pipeline, Reply, Ticket},
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

/// An operation in flight, with the tickets for its responses, and the number of its connection.
struct InFlight<T = Ticket> {
    ticket: T,
    connection: u64,
}

impl Link {
    pub(crate) fn new(config: Arc<Config>, server: usize, health: Arc<Health>) -> Self {
        let server = Arc::new(Server::new(config, server, health));
        Self { server, counters: Counters::default() }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.server.current().as_ref().map_or(0, |connection| connection.pipeline.in_flight())
    }

    /// Adds the request of `push` to the current connection, or to a new one.
    fn send<T>(&self, push: impl FnOnce(&Pipeline, Instant) -> T) -> Result<InFlight<T>, Error> {
        let mut current = self.server.current();
        // A connection from before an outage is not used again.
        let suspect = current.take_if(|connection| connection.is_suspect(&self.server.health));
        let is_new = current.is_none();
        let connection = Arc::clone(
            current
                .get_or_insert_with(|| Connection::new(&self.server.address, &self.server.health)),
        );
        let sent = self.push_to(&connection, push);
        drop(current);
        if let Some(suspect) = suspect {
            suspect.retire();
        }
        if is_new {
            // A runtime that is shutting down drops the task at once, which takes the lock again.
            tokio::spawn(connection::serve(Arc::clone(&self.server), connection));
        }
        sent
    }

    /// Adds the request of `push` to the connection `number`. Returns `None` if that connection is
    /// not the current one any more, or was opened before an outage.
    fn send_on(
        &self,
        number: u64,
        push: impl FnOnce(&Pipeline, Instant) -> Ticket,
    ) -> Result<Option<InFlight>, Error> {
        let current = self.server.current();
        match current.as_ref() {
            Some(connection)
                if connection.number == number && !connection.is_suspect(&self.server.health) =>
            {
                self.push_to(connection, push).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Adds the request of `push` to a connection, unless too many operations are waiting.
    fn push_to<T>(
        &self,
        connection: &Connection,
        push: impl FnOnce(&Pipeline, Instant) -> T,
    ) -> Result<InFlight<T>, Error> {
        let limit = self.server.config.max_in_flight;
        if connection.pipeline.is_full(limit) {
            let error = Error::Overloaded { server: self.server.address.clone(), limit };
            self.counters.failed(&error);
            return Err(error);
        }
        let now = Instant::now();
        let deadline = now.checked_add(self.server.config.timeout).unwrap_or(now + FAR_AWAY);
        let ticket = push(&connection.pipeline, deadline);
        Ok(InFlight { ticket, connection: connection.number })
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
        let reply = sent.ticket.await.inspect_err(|error| self.counters.failed(error))?;
        Ok((reply, sent.connection))
    }

    /// Waits for the response to a request that has exactly one.
    async fn response(
        &self,
        InFlight { ticket, connection }: InFlight,
    ) -> Result<(Response, u64), Error> {
        let reply = ticket.await.inspect_err(|error| self.counters.failed(error))?;
        match reply {
            Reply::One(response) => Ok((response, connection)),
            Reply::Batch(_) | Reply::List(_) => Err(self.wrong_shape()),
        }
    }

    /// Sends a request at once. The returned future only waits for the response, and is small.
    fn ask<'a>(
        &'a self,
        request: Request<'_>,
    ) -> impl Future<Output = Result<(Response, u64), Error>> + use<'a> {
        match self.send(|pipeline, deadline| pipeline.push(request, deadline)) {
            Ok(sent) => Either::Left(self.response(sent)),
            Err(error) => Either::Right(ready(Err(error))),
        }
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
