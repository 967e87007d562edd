//! The link from one runtime to one server, with either protocol.
//!
//! To add a transport, write a module with a type `Link` that has the operations below, and add a
//! line to `transports!`. To add an operation, add a line to `operations!`.

use std::sync::Arc;

#[cfg(feature = "text")]
use crate::text;
use crate::{
    binary,
    config::{Config, Protocol, ServerAddress},
    error::Error,
    health::{Counters, Health, Outage},
    types::{Cas, Deletion, StoreMode, Swap, Value, WireItem},
};

/// Declares [`Link`], with one variant per transport, and `dispatch!`, which calls a method of the
/// variant. Variants are named as in [`Protocol`]; `$d` stands for the `$` of `dispatch!`.
macro_rules! transports {
    ($d:tt $($(#[$condition:meta])* $protocol:ident => $transport:ident),+ $(,)?) => {
        #[derive(Debug)]
        pub(crate) enum Link {
            $($(#[$condition])* $protocol($transport::Link),)+
        }

        macro_rules! dispatch {
            ($d link:ident => $d call:expr) => {
                match $d link {
                    $($(#[$condition])* Link::$protocol($d link) => $d call,)+
                }
            };
        }

        impl Link {
            pub(crate) fn new(config: &Arc<Config>, server: usize, health: &Arc<Health>) -> Self {
                let (config, health) = (Arc::clone(config), Arc::clone(health));
                match config.protocol {
                    $($(#[$condition])* Protocol::$protocol => {
                        Self::$protocol($transport::Link::new(config, server, health))
                    })+
                }
            }

            /// Connects, logs in and waits for a reply, on a new connection that is closed again.
            pub(crate) async fn check(
                address: &ServerAddress,
                config: &Config,
            ) -> Result<(), Outage> {
                match config.protocol {
                    $($(#[$condition])* Protocol::$protocol => {
                        $transport::establish(address, config).await.map(drop)
                    })+
                }
            }
        }
    };
}

transports! { $
    Binary => binary,
    #[cfg(feature = "text")]
    Text => text,
}

/// Declares each operation once: its name, arguments and result.
macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) -> $output:ty;)+) => {
        impl Link {
            $($(#[$doc])*
            pub(crate) async fn $name(&self, $($argument: $type),*) -> Result<$output, Error> {
                let link = self;
                dispatch!(link => link.$name($($argument),*).await)
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
    /// Adds `delta` if `up` is set, else subtracts it. Returns `None` if there is no entry.
    count(key: &[u8], delta: u64, up: bool) -> Option<u64>;
    flush() -> ();
    version() -> String;
    stats() -> Vec<(String, String)>;
    noop() -> ();
}

impl Link {
    pub(crate) fn counters(&self) -> &Counters {
        let link = self;
        dispatch!(link => &link.counters)
    }

    pub(crate) fn in_flight(&self) -> usize {
        let link = self;
        dispatch!(link => link.in_flight())
    }

    /// Ends the connection.
    pub(crate) fn close(&self) {
        let link = self;
        dispatch!(link => link.close());
    }
}
