//! The binary protocol: one connection that all callers of a runtime share.
//!
//! A [`Link`] adds requests to a [`Pipeline`]; while it is needed, a task ([`connection`]) opens the
//! connection, writes all pending requests at once, and reads. The task ends with the connection;
//! the next request starts another.

mod connection;
mod establish;
mod operations;
mod pipeline;
mod protocol;

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::{Either, ready};

pub(crate) use self::establish::establish;
use self::{
    connection::{Connection, Server},
    pipeline::{Pipeline, Reply, Ticket},
    protocol::{Request, Response, status, status_text},
};
use crate::{
    config::Config,
    error::Error,
    health::{Counters, Health, Outage},
};

/// Stands for a deadline that is too far away to be counted out.
const FAR_AWAY: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// One server, as seen from one runtime.
#[derive(Debug)]
pub(crate) struct Link {
    server: Arc<Server>,
    pub(crate) counters: Counters,
}

/// An operation that has been sent, and the connection it was sent on.
struct Sent {
    ticket: Ticket,
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

    /// Adds to the current connection what `push` pushes, or to one that is opened for it.
    fn send(&self, push: impl FnOnce(&Pipeline, Instant) -> Ticket) -> Result<Sent, Error> {
        let mut current = self.server.current();
        let suspect = current.take_if(|connection| connection.is_suspect(&self.server.health));
        let is_new = current.is_none();
        let connection =
            Arc::clone(current.get_or_insert_with(|| Connection::new(&self.server.health)));
        let sent = self.push_to(&connection, push);
        drop(current);
        if let Some(suspect) = suspect {
            suspect.retire();
        }
        if is_new {
            // Without the lock: a runtime that is being shut down drops the task at once.
            tokio::spawn(connection::serve(Arc::clone(&self.server), connection));
        }
        sent
    }

    /// Likewise, if that connection is still the current one and can be trusted.
    fn send_on(
        &self,
        number: u64,
        push: impl FnOnce(&Pipeline, Instant) -> Ticket,
    ) -> Result<Option<Sent>, Error> {
        let current = self.server.current();
        let is_the_one = |connection: &&Arc<Connection>| {
            connection.number == number && !connection.is_suspect(&self.server.health)
        };
        let connection = current.as_ref().filter(is_the_one);
        connection.map(|connection| self.push_to(connection, push)).transpose()
    }

    fn push_to(
        &self,
        connection: &Connection,
        push: impl FnOnce(&Pipeline, Instant) -> Ticket,
    ) -> Result<Sent, Error> {
        let limit = self.server.config.max_in_flight;
        if connection.pipeline.is_full(limit) {
            let error = Error::Overloaded { server: self.server.address.clone(), limit };
            self.counters.failed(&error);
            return Err(error);
        }
        let now = Instant::now();
        let deadline = now.checked_add(self.server.config.timeout).unwrap_or(now + FAR_AWAY);
        let ticket = push(&connection.pipeline, deadline);
        Ok(Sent { ticket, connection: connection.number })
    }

    /// Ends the current connection; operations in flight on it fail.
    pub(crate) fn close(&self) {
        self.retire(|_| true);
    }

    fn retire(&self, is_meant: impl FnOnce(&Connection) -> bool) {
        let retired = self.server.current().take_if(|connection| is_meant(connection));
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
        &'a self,
        request: Request<'_>,
    ) -> impl Future<Output = Result<(Response, u64), Error>> + use<'a> {
        match self.send(|pipeline, deadline| pipeline.push(request, deadline)) {
            Ok(sent) => Either::Left(self.response(sent)),
            Err(error) => Either::Right(ready(Err(error))),
        }
    }

    fn wrong_shape(&self) -> Error {
        Outage::Garbage("a reply of the wrong shape".to_owned())
            .to_error(&self.server.address, self.server.config.timeout)
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
            self.server.health.mark_down(Outage::Login(status_text(response.status).to_owned()));
            self.retire(|current| current.number == connection);
        }
        error
    }
}
