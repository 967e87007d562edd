//! The link from one runtime to one server, with the protocol that it speaks.
//!
//! To add a transport, write a module with a type `Link` that has the operations below, and add it to
//! [`Link`]. To add an operation, add a line to `operations!`.

use std::sync::Arc;

use crate::{
    config::Config,
    error::Error,
    health::Health,
    multiplexed,
    types::{Cas, Deletion, NewCounter, StoreMode, Swap, Value, WireItem},
};
#[cfg(feature = "text")]
use crate::{config::Protocol, text};

/// The transports to one server. One that is not used opens no connection.
#[derive(Debug)]
pub(crate) struct Link {
    multiplexed: multiplexed::Link,
    #[cfg(feature = "text")]
    text: text::Link,
    #[cfg_attr(not(feature = "text"), expect(dead_code, reason = "there is one transport"))]
    health: Arc<Health>,
}

/// Declares each operation once: its name, arguments and result.
macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) -> $output:ty;)+) => {
        impl Link {
            $($(#[$doc])*
            pub(crate) async fn $name(&self, $($argument: $type),*) -> Result<$output, Error> {
                #[cfg(feature = "text")]
                if self.is_text() {
                    return self.text.$name($($argument),*).await;
                }
                let outcome = self.multiplexed.$name($($argument),*).await;
                // The first connection may have found out that the server speaks only the text protocol.
                // Nothing was written to it then.
                #[cfg(feature = "text")]
                if outcome.is_err() && self.is_text() {
                    return self.text.$name($($argument),*).await;
                }
                outcome
            })+
        }
    };
}

operations! {
    get(key: &[u8]) -> Option<Value>;
    get_with_cas(key: &[u8]) -> Option<Value>;
    get_many(keys: &[&[u8]]) -> Vec<Option<Value>>;
    /// Returns `None` if the condition of `mode` was not met, else the new CAS token if it is known.
    /// A transport may spend a round trip on the token only if `with_cas` is set.
    store(mode: StoreMode, item: WireItem<'_>, with_cas: bool) -> Option<Option<Cas>>;
    store_many(items: &[WireItem<'_>]) -> Vec<Result<(), Error>>;
    compare_and_swap(item: WireItem<'_>, cas: Cas) -> Swap;
    delete(key: &[u8]) -> Deletion;
    delete_if_unchanged(key: &[u8], cas: Cas) -> Swap;
    delete_many(keys: &[&[u8]]) -> Vec<Result<Deletion, Error>>;
    touch(key: &[u8], expiration: u32) -> bool;
    get_and_touch(key: &[u8], expiration: u32) -> Option<Value>;
    /// Adds `delta` if `up` is set, else subtracts it. If there is no entry, stores `new` and returns its
    /// value; returns `None` if there is none.
    count(key: &[u8], delta: u64, up: bool, new: Option<NewCounter>) -> Option<u64>;
    flush() -> ();
    version() -> String;
    stats() -> Vec<(String, String)>;
    noop() -> ();
}

impl Link {
    pub(crate) fn new(config: &Arc<Config>, server: usize, health: &Arc<Health>) -> Self {
        let shared = || (Arc::clone(config), server, Arc::clone(health));
        let new = |(config, server, health)| multiplexed::Link::new(config, server, health);
        Self {
            multiplexed: new(shared()),
            #[cfg(feature = "text")]
            text: text::Link::new(Arc::clone(config), server, Arc::clone(health)),
            health: Arc::clone(health),
        }
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
