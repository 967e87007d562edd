//! The task of a connection: opens it, and writes and reads until it ends.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use tokio::time::{timeout, timeout_at};

use super::{
    super::establish::{Opened, establish},
    io::{ConnectionEnd, Io},
    shared::{Connection, Server},
};
use crate::{error::Error, health::Outage};

/// Opens the connection and serves it until it ends. If the future is dropped, be it before the first poll, the requests
/// in flight fail.
pub(in super::super) fn serve(
    server: Arc<Server>,
    connection: Arc<Connection>,
) -> impl Future<Output = ()> {
    Driver { server, connection }.run()
}

/// The task of one connection.
struct Driver {
    server: Arc<Server>,
    connection: Arc<Connection>,
}

/// The interval at which an attempt to connect checks for deadlines of new requests.
const RECHECK: Duration = Duration::from_millis(50);

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
        let waker = Waker::from(Arc::clone(&self.connection));
        *self.connection.io() = Some(Io::new(opened, max_body, waker));
        let mut woken = Vec::new();
        poll_fn(|cx| {
            let mut guard = self.connection.io();
            let Some(io) = &mut *guard else { return Poll::Ready(ConnectionEnd::Idle) };
            let outcome = io.poll(pipeline, retired, cx);
            io.swap_woken(&mut woken);
            if let Poll::Ready(ConnectionEnd::Idle) = outcome {
                // A caller that is woken now opens another connection.
                retired.store(true, Ordering::Release);
            }
            // No caller uses the socket after its end.
            let ended = if outcome.is_ready() { guard.take() } else { None };
            drop(guard);
            drop(ended);
            woken.drain(..).for_each(Waker::wake);
            outcome
        })
        .await
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
