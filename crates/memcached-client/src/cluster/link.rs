//! The link from one runtime to one server, with the protocol that it speaks.
//!
//! To add a transport, write a module with a type `Link` that has the operations below, and add it to
//! [`Link`]. To add an operation, add a line to `operations!`.

use std::{sync::Arc, time::Instant};

use crate::{
    config::Config,
    error::Error,
    events::{Event, Observed, Observer},
    health::Health,
    multiplexed,
    types::{Cas, Command, Deletion, NewCounter, Reservation, StoreMode, Swap, Value, WireItem},
};
#[cfg(feature = "text")]
use crate::{protocol::Protocol, text};

/// The transports to one server. One that is not used opens no connection.
#[derive(Debug)]
pub(crate) struct Link {
    multiplexed: multiplexed::Link,
    #[cfg(feature = "text")]
    text: text::Link,
    health: Arc<Health>,
    observer: Option<Observer>,
}

/// Declares each operation once: its name, arguments and result, the command for its event, and the bytes of
/// the values that it sends.
macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) -> $output:ty,
        $command:expr, $sent:expr;)+) => {
        impl Link {
            $($(#[$doc])*
            pub(crate) async fn $name(&self, $($argument: $type),*) -> Result<$output, Error> {
                let begun = self.begin();
                #[cfg(feature = "text")]
                if self.is_text() {
                    let outcome = self.text.$name($($argument),*).await;
                    self.end(begun, || $command, || $sent, &outcome);
                    return outcome;
                }
                #[cfg(feature = "text")]
                let is_first = self.health.protocol().is_none();
                let outcome = self.multiplexed.$name($($argument),*).await;
                // The first connection may have found out that the server speaks only the text protocol.
                // Nothing was written to it then, unlike to one that was in use.
                #[cfg(feature = "text")]
                let outcome = if outcome.is_err() && is_first && self.is_text() {
                    self.text.$name($($argument),*).await
                } else {
                    outcome
                };
                self.end(begun, || $command, || $sent, &outcome);
                outcome
            })+
        }
    };
}

operations! {
    get(key: &[u8]) -> Option<Value>, Command::Get, 0;
    get_with_cas(key: &[u8]) -> Option<Value>, Command::Get, 0;
    /// Returns [`Reservation::Reserved`] without a token if the server has none.
    get_or_reserve(item: WireItem<'_>) -> Reservation, Command::GetOrReserve, item.value.len();
    get_many(keys: &[&[u8]]) -> Vec<Option<Value>>, Command::GetMany, 0;
    /// Returns `None` if the condition of `mode` was not met, else the new CAS token if it is known.
    /// A transport may spend a round trip on the token only if `with_cas` is set.
    store(mode: StoreMode, item: WireItem<'_>, with_cas: bool) -> Option<Option<Cas>>,
        mode.command(), item.value.len();
    store_many(items: &[WireItem<'_>]) -> Vec<Result<(), Error>>,
        Command::SetMany, items.iter().map(|item| item.value.len()).sum();
    compare_and_swap(item: WireItem<'_>, cas: Cas) -> Swap,
        Command::CompareAndSwap, item.value.len();
    delete(key: &[u8]) -> Deletion, Command::Delete, 0;
    delete_if_unchanged(key: &[u8], cas: Cas) -> Swap, Command::DeleteIfUnchanged, 0;
    delete_many(keys: &[&[u8]]) -> Vec<Result<Deletion, Error>>, Command::DeleteMany, 0;
    touch(key: &[u8], expiration: u32) -> bool, Command::Touch, 0;
    get_and_touch(key: &[u8], expiration: u32) -> Option<Value>, Command::GetAndTouch, 0;
    /// Adds `delta` if `up` is set, else subtracts it. If there is no entry, stores `new` and returns its
    /// value; returns `None` if there is none.
    count(key: &[u8], delta: u64, up: bool, new: Option<NewCounter>) -> Option<u64>,
        count_command(up, new.is_some()), 0;
    flush() -> (), Command::Flush, 0;
    version() -> String, Command::Version, 0;
    stats() -> Vec<(String, String)>, Command::Stats, 0;
    noop() -> (), Command::Noop, 0;
}

fn count_command(up: bool, creates: bool) -> Command {
    match (up, creates) {
        (false, _) => Command::Decrement,
        (true, false) => Command::Increment,
        (true, true) => Command::IncrementOrInsert,
    }
}

impl Link {
    pub(crate) fn new(config: &Arc<Config>, server: usize, health: &Arc<Health>) -> Self {
        Self {
            multiplexed: multiplexed::Link::new(Arc::clone(config), server, Arc::clone(health)),
            #[cfg(feature = "text")]
            text: text::Link::new(Arc::clone(config), server, Arc::clone(health)),
            health: Arc::clone(health),
            observer: config.observer.clone(),
        }
    }

    /// Returns the time at which an operation begins, if there is an observer.
    fn begin(&self) -> Option<Instant> {
        self.observer.is_some().then(Instant::now)
    }

    /// Reports the end of an operation.
    fn end<T: Observed>(
        &self,
        begun: Option<Instant>,
        command: impl FnOnce() -> Command,
        sent: impl FnOnce() -> usize,
        result: &Result<T, Error>,
    ) {
        let (Some(observer), Some(begun)) = (&self.observer, begun) else { return };
        let (outcome, received) = result.observed();
        observer.observe(&Event::Operation {
            server: self.health.address(),
            command: command(),
            duration: begun.elapsed(),
            bytes: sent() + received,
            outcome,
        });
    }

    #[cfg(feature = "text")]
    fn is_text(&self) -> bool {
        self.health.protocol() == Some(Protocol::Text)
    }

    /// Returns the operations counted so far, in the order of the fields of
    /// [`ServerStatus`](crate::ServerStatus).
    pub(crate) fn counted(&self) -> [u64; 5] {
        let counted = self.multiplexed.counters.all();
        #[cfg(feature = "text")]
        let counted = {
            let of_text = self.text.counters.all();
            std::array::from_fn(|i| counted[i] + of_text[i])
        };
        counted
    }

    pub(crate) fn in_flight(&self) -> usize {
        let in_flight = self.multiplexed.in_flight();
        #[cfg(feature = "text")]
        let in_flight = in_flight + self.text.in_flight();
        in_flight
    }

    /// Ends the connection. That of the text protocol is served by no task, and closes when it is dropped.
    pub(crate) fn close(&self) {
        self.multiplexed.close();
    }
}
