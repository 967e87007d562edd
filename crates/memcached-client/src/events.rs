//! Events for observers: one per operation, and one when a server goes down or comes back.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    address::ServerAddress,
    error::Error,
    types::{Cas, Command, Deletion, Reservation, Swap, Value},
};

/// Something that happened between the client and a server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An operation has ended. A batch is one operation on each of its servers. An operation whose future
    /// was dropped, or that was not sent because the server is down, has no event.
    Operation {
        /// The server.
        server: &'a ServerAddress,
        /// The operation.
        command: Command,
        /// The time from the call to the reply.
        duration: Duration,
        /// Bytes of the values that were sent and received.
        bytes: usize,
        /// What became of it.
        outcome: Outcome<'a>,
    },
    /// A server has gone down. Its operations fail at once until it is up again.
    Down {
        /// The server.
        server: &'a ServerAddress,
        /// The cause, as a message for people.
        reason: &'a str,
    },
    /// A server that was down is used again.
    Up {
        /// The server.
        server: &'a ServerAddress,
    },
}

/// What became of an operation.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Outcome<'a> {
    /// It was carried out. A lookup has found `hits` of `keys` keys; other operations have 0 of 0.
    Done {
        /// Number of keys that were found.
        hits: usize,
        /// Number of keys that were looked up.
        keys: usize,
    },
    /// Its condition was not met: there was an entry, or none, or another one.
    NotDone,
    /// It has failed.
    Failed(&'a Error),
}

/// Receives the events of a client, on the task that has called the operation. It must not block.
///
/// ```
/// use memcached_client::{Config, Event, Observer, ServerAddress};
///
/// let mut config = Config::new(ServerAddress::parse_list("127.0.0.1:11211").unwrap());
/// config.observer = Some(Observer::new(|event| {
///     if let Event::Operation { command, duration, .. } = event {
///         println!("{command:?} took {duration:?}");
///     }
/// }));
/// ```
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn(&Event<'_>) + Send + Sync>);

impl Observer {
    /// Creates an observer from a function.
    pub fn new(observe: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(observe))
    }

    /// Creates an observer that emits each operation as an event of the crate `tracing` at the level `DEBUG`,
    /// and each change of a server at `WARN` or `INFO`, with the target `memcached_client`.
    #[cfg(feature = "tracing")]
    #[must_use]
    pub fn tracing() -> Self {
        Self::new(|event| match event {
            Event::Operation { server, command, duration, bytes, outcome } => {
                let (hits, keys, error) = match outcome {
                    Outcome::Done { hits, keys } => (Some(hits), Some(keys), None),
                    Outcome::NotDone => (None, None, None),
                    Outcome::Failed(error) => (None, None, Some(error.to_string())),
                };
                tracing::debug!(
                    target: "memcached_client",
                    %server, ?command, ?duration, bytes, hits, keys, error, "operation"
                );
            }
            Event::Down { server, reason } => {
                tracing::warn!(target: "memcached_client", %server, reason, "server is down");
            }
            Event::Up { server } => {
                tracing::info!(target: "memcached_client", %server, "server is up again");
            }
        })
    }

    pub(crate) fn observe(&self, event: &Event<'_>) {
        (self.0)(event);
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

/// The result of an operation, for its event.
pub(crate) trait Observed {
    /// Returns the outcome and the bytes of the values that were received.
    fn observed(&self) -> (Outcome<'_>, usize);
}

const DONE: (Outcome<'_>, usize) = (Outcome::Done { hits: 0, keys: 0 }, 0);

impl<T: Observed> Observed for Result<T, Error> {
    fn observed(&self) -> (Outcome<'_>, usize) {
        self.as_ref().map_or_else(|error| (Outcome::Failed(error), 0), T::observed)
    }
}

impl Observed for Option<Value> {
    fn observed(&self) -> (Outcome<'_>, usize) {
        let hits = usize::from(self.is_some());
        (Outcome::Done { hits, keys: 1 }, self.as_ref().map_or(0, |value| value.data.len()))
    }
}

impl Observed for Vec<Option<Value>> {
    fn observed(&self) -> (Outcome<'_>, usize) {
        let found = self.iter().flatten();
        let (hits, keys) = (found.clone().count(), self.len());
        (Outcome::Done { hits, keys }, found.map(|value| value.data.len()).sum())
    }
}

/// The first failure of a batch stands for all.
impl<T: Observed> Observed for Vec<Result<T, Error>> {
    fn observed(&self) -> (Outcome<'_>, usize) {
        let error = self.iter().find_map(|outcome| outcome.as_ref().err());
        error.map_or(DONE, |error| (Outcome::Failed(error), 0))
    }
}

fn done_if(condition: bool) -> (Outcome<'static>, usize) {
    if condition { DONE } else { (Outcome::NotDone, 0) }
}

impl Observed for Option<Option<Cas>> {
    fn observed(&self) -> (Outcome<'_>, usize) {
        done_if(self.is_some())
    }
}

impl Observed for Option<u64> {
    fn observed(&self) -> (Outcome<'_>, usize) {
        done_if(self.is_some())
    }
}

impl Observed for Swap {
    fn observed(&self) -> (Outcome<'_>, usize) {
        done_if(matches!(self, Self::Done(_)))
    }
}

impl Observed for Reservation {
    fn observed(&self) -> (Outcome<'_>, usize) {
        match self {
            Self::Found(value) => (Outcome::Done { hits: 1, keys: 1 }, value.data.len()),
            Self::Reserved(_) => (Outcome::Done { hits: 0, keys: 1 }, 0),
            Self::Lost => (Outcome::NotDone, 0),
        }
    }
}

impl Observed for Deletion {
    fn observed(&self) -> (Outcome<'_>, usize) {
        done_if(*self != Self::NotFound)
    }
}

impl Observed for bool {
    fn observed(&self) -> (Outcome<'_>, usize) {
        done_if(*self)
    }
}

impl Observed for () {
    fn observed(&self) -> (Outcome<'_>, usize) {
        DONE
    }
}

impl Observed for String {
    fn observed(&self) -> (Outcome<'_>, usize) {
        DONE
    }
}

impl Observed for Vec<(String, String)> {
    fn observed(&self) -> (Outcome<'_>, usize) {
        DONE
    }
}
