//! Where entries are stored. A backend is one file with the operations below, registered by its `mod`
//! and one line in `backends!`.
//!
//! Knows bytes and keys only; [`entries`] is the only caller.

pub(crate) mod entries;
mod epoch;
#[cfg(feature = "testing")]
pub(crate) mod failing;
pub(crate) mod frame;
pub(crate) mod leases;
#[cfg(feature = "memcached")]
pub(crate) mod memcached;
pub(crate) mod memory;
mod not_kept;
pub(crate) mod null;
pub(crate) mod types;

use std::time::Duration;

use bytes::Bytes;

use self::types::{
    BackendError, CasToken, Delta, FoundOrAdded, NewNumber, StoredBytes, SwapOutcome,
};

/// Declares [`Backend`] with one variant per backend, the name of each, and `dispatch!`, which calls
/// a method of whichever backend there is. (`$d` stands for the `$` of that macro.)
macro_rules! backends {
    ($d:tt $($(#[$condition:meta])* $backend:ident($type:ty) => $name:literal),+ $(,)?) => {
        #[derive(Debug)]
        pub(crate) enum Backend {
            $($(#[$condition])* $backend($type),)+
        }

        macro_rules! dispatch {
            ($d backend:ident => $d call:expr) => {
                match $d backend {
                    $($(#[$condition])* Backend::$backend($d backend) => $d call,)+
                }
            };
        }

        impl Backend {
            pub(crate) fn name(&self) -> &'static str {
                match self {
                    $($(#[$condition])* Self::$backend(_) => $name,)+
                }
            }
        }

        $($(#[$condition])* impl From<$type> for Backend {
            fn from(backend: $type) -> Self {
                Self::$backend(backend)
            }
        })+
    };
}

backends! { $
    Memory(memory::Memory) => "memory",
    #[cfg(feature = "memcached")]
    Memcached(memcached::Memcached) => "memcached",
    Null(null::Null) => "none",
    #[cfg(feature = "testing")]
    Failing(failing::Failing) => "failing",
}

/// Declares each operation once: its name, arguments and result.
macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) -> $output:ty;)+) => {
        impl Backend {
            $($(#[$doc])*
            async fn $name(&self, $($argument: $type),*) -> $output {
                let backend = self;
                dispatch!(backend => backend.$name($($argument),*).await)
            })+
        }
    };
}

operations! {
    /// Reads an entry; with its token if `with_token`.
    get(key: &str, with_token: bool) -> Result<Option<StoredBytes>, BackendError>;
    get_many(keys: &[&str]) -> Vec<Result<Option<StoredBytes>, BackendError>>;
    set_many(
        entries: &[(String, Bytes)],
        lifetime: Option<Duration>
    ) -> Vec<Result<(), BackendError>>;
    /// Stores bytes if there is no entry, and returns their token if they were stored.
    add(
        key: &str,
        bytes: &Bytes,
        lifetime: Option<Duration>
    ) -> Result<Option<CasToken>, BackendError>;
    /// Reads an entry with its token, or stores bytes if there is none, in one round trip where the backend
    /// can. The meta protocol of memcached stores an empty value instead.
    get_or_add(
        key: &str,
        bytes: &Bytes,
        lifetime: Duration
    ) -> Result<FoundOrAdded, BackendError>;
    /// Stores bytes if the entry still is in the state of the token.
    swap(
        key: &str,
        bytes: &Bytes,
        lifetime: Option<Duration>,
        token: CasToken
    ) -> Result<SwapOutcome, BackendError>;
    /// Deletes the entry if it still is in the state of the token.
    delete_if_unchanged(key: &str, token: CasToken) -> Result<(), BackendError>;
    /// Deletes entries. Each deletion is confirmed or has failed.
    delete_many(keys: &[String]) -> Vec<Result<(), BackendError>>;
    /// Changes a number that is stored as decimal digits, or stores a new one if there is none. Returns the
    /// number; `None` if nothing can be stored.
    count(key: &str, delta: Delta, new: NewNumber) -> Result<Option<u64>, BackendError>;
    /// Deletes all entries, of other programs too.
    clear() -> Result<(), BackendError>;
}

impl Backend {
    /// Returns whether other processes see the same entries.
    pub(crate) fn is_shared(&self) -> bool {
        let backend = self;
        dispatch!(backend => backend.is_shared())
    }

    /// Returns whether this is the null backend, so that a lookup would be a waste.
    fn is_null(&self) -> bool {
        matches!(self, Self::Null(_))
    }

    /// Returns whether [`delete_many`](Self::delete_many) deletes these keys in order.
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
