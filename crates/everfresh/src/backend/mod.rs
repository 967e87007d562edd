//! Backends: where entries are stored. For an app, [`Cache::memory`](crate::Cache::memory) and
//! [`Cache::memcached`](crate::Cache::memcached) are there; this module is for bringing another one.
//!
//! A backend knows bytes and keys only. Implement [`Backend`], start a cache by
//! [`Cache::with_backend`](crate::Cache::with_backend), and let
//! [`testing::backend_suite`](crate::testing::backend_suite) (feature `testing`) check it. The package
//! `everfresh-redis` is an example.
//!
//! # What entries need to stay fresh
//!
//! A value is stored by [`Backend::swap`] in place of a lease, only if the lease is still in the state in which it was
//! acquired. All that is promised follows from these rules, so a backend that breaks one serves stale entries:
//!
//! 1. Each operation on a key takes effect at one moment between its call and its result; all callers see the same
//!    order. A replica that lags behind, or a quorum that may lose a confirmed deletion, breaks this.
//! 2. A [`CasToken`] names one state of one key. Whatever changes the key, a deletion included, changes the token, and no
//!    token is ever used again: not after a deletion, an eviction, or a restart.
//! 3. A deletion is confirmed only when the entry is gone for all callers. An operation that has failed may have
//!    taken effect, or take effect later, but only if it is conditional, or deletes.
//! 4. A server that has restarted is empty. If it comes back with entries from before, with those that were
//!    deleted meanwhile, they are stale.

/// Gives the signatures of all operations of [`Backend`] to a macro.
macro_rules! operations {
    ($macro:ident) => {
        $macro! {
            get(key: &'a str, with_token: bool) -> Result<Option<StoredBytes>, BackendError>;
            get_many(keys: &'a [&'a str]) -> Vec<Result<Option<StoredBytes>, BackendError>>;
            set_many(
                entries: &'a [(String, Bytes)],
                lifetime: Option<Duration>
            ) -> Vec<Result<(), BackendError>>;
            add(
                key: &'a str,
                bytes: &'a Bytes,
                lifetime: Option<Duration>
            ) -> Result<Option<CasToken>, BackendError>;
            get_or_add(
                key: &'a str,
                bytes: &'a Bytes,
                lifetime: Duration
            ) -> Result<FoundOrAdded, BackendError>;
            swap(
                key: &'a str,
                bytes: &'a Bytes,
                lifetime: Option<Duration>,
                token: CasToken
            ) -> Result<SwapOutcome, BackendError>;
            delete_if_unchanged(key: &'a str, token: CasToken) -> Result<(), BackendError>;
            delete_many(keys: &'a [String]) -> Vec<Result<(), BackendError>>;
            count(key: &'a str, delta: Delta, new: NewNumber) -> Result<Option<u64>, BackendError>;
            clear() -> Result<(), BackendError>;
        }
    };
}

pub(crate) mod built_in;
mod clear;
mod contract;
pub(crate) mod custom;
pub(crate) mod entries;
mod epoch;
pub(crate) mod frame;
pub(crate) mod inspect;
pub(crate) mod leases;
mod named;
mod report;
pub(crate) mod types;

use std::time::Duration;

use bytes::Bytes;

#[cfg(feature = "testing")]
use self::built_in::failing;
#[cfg(feature = "memcached")]
use self::built_in::memcached;
use self::built_in::{memory, null};
pub use self::{
    contract::Backend,
    inspect::{Inspected, inspect, named_key},
    types::{BackendError, CasToken, Delta, FoundOrAdded, NewNumber, StoredBytes, SwapOutcome},
};

/// Declares [`AnyBackend`] with one variant per backend, and `dispatch!`, which calls a method of whichever backend
/// there is. (`$d` stands for the `$` of that macro.)
macro_rules! backends {
    ($d:tt $($(#[$condition:meta])* $backend:ident($type:ty)),+ $(,)?) => {
        pub(crate) enum AnyBackend {
            $($(#[$condition])* $backend($type),)+
        }

        macro_rules! dispatch {
            ($d backend:ident => $d call:expr) => {
                match $d backend {
                    $($(#[$condition])* AnyBackend::$backend($d backend) => $d call,)+
                }
            };
        }

        $($(#[$condition])* impl From<$type> for AnyBackend {
            fn from(backend: $type) -> Self {
                Self::$backend(backend)
            }
        })+
    };
}

backends! { $
    Memory(memory::Memory),
    #[cfg(feature = "memcached")]
    Memcached(memcached::Memcached),
    Null(null::Null),
    #[cfg(feature = "testing")]
    Failing(failing::Failing),
    Custom(custom::Custom),
}

/// Calls the operations of whichever backend there is.
macro_rules! dispatched {
    ($($name:ident($($argument:ident: $type:ty),*) -> $output:ty;)+) => {
        #[expect(clippy::needless_lifetimes, reason = "arguments have it, too")]
        impl AnyBackend {
            $(async fn $name<'a>(&'a self, $($argument: $type),*) -> $output {
                let backend = self;
                dispatch!(backend => backend.$name($($argument),*).await)
            })+
        }
    };
}

operations!(dispatched);

impl AnyBackend {
    pub(crate) fn name(&self) -> &'static str {
        let backend = self;
        dispatch!(backend => backend.name())
    }

    pub(crate) fn is_shared(&self) -> bool {
        let backend = self;
        dispatch!(backend => backend.is_shared())
    }

    /// Returns whether this is the null backend, so that a lookup would be a waste.
    fn is_null(&self) -> bool {
        matches!(self, Self::Null(_))
    }

    fn keeps_order(&self, keys: &[String]) -> bool {
        let backend = self;
        dispatch!(backend => backend.keeps_order(keys))
    }

    /// The client of the servers, if entries are there.
    #[cfg(feature = "memcached")]
    fn client(&self) -> Option<&memcached_client::Client> {
        match self {
            Self::Memcached(memcached) => Some(memcached.client()),
            _ => None,
        }
    }
}
