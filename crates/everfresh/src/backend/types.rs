//! Types that all backends share.

use std::time::Duration;

use bytes::Bytes;

use super::frame::LeaseId;

/// The reason that a backend did not carry out an operation. Callers of the cache see a miss.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum BackendError {
    /// The backend cannot be reached, or did not answer in time.
    Unavailable,
    /// The value is larger than the backend's limit.
    TooLarge {
        /// Bytes of the stored form, with the key where the backend counts it.
        bytes: usize,
        /// The largest number of bytes, if it is known.
        limit: Option<usize>,
    },
    /// The backend refused, or the key is not valid.
    Refused,
}

/// Identifies one state of one entry: [`swap`](super::Backend::swap) changes only that state.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum CasToken {
    /// A number that the backend never uses again.
    Number(u64),
    #[cfg(feature = "memcached")]
    /// The token of memcached.
    Memcached(memcached_client::Cas),
}

impl CasToken {
    /// Returns the number of the state.
    pub(crate) fn number(self) -> u64 {
        match self {
            Self::Number(number) => number,
            #[cfg(feature = "memcached")]
            Self::Memcached(cas) => cas.id(),
        }
    }
}

/// The holder of a lease.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Holder {
    /// The lease says who holds it.
    Named(LeaseId),
    /// The lease is an empty entry, which the meta protocol stores for a missing key. Holds the number of
    /// its token.
    Unnamed(u64),
}

/// The bytes of an entry, and its token if it was asked for.
#[derive(Clone, Debug)]
pub struct StoredBytes {
    /// The bytes as they were stored.
    pub bytes: Bytes,
    /// The token of their state.
    pub token: Option<CasToken>,
}

/// The outcome of a lookup that stores bytes if there is no entry.
#[derive(Clone, Debug)]
pub enum FoundOrAdded {
    /// There is an entry.
    Found(StoredBytes),
    /// There was no entry. The token of the bytes, where the backend tells it.
    Added(Option<CasToken>),
    /// There was no entry, but there is one now.
    Lost,
}

/// The outcome of a compare-and-swap.
#[derive(Clone, Copy, Debug)]
pub enum SwapOutcome {
    /// The value was stored. Its new token, where the backend tells it.
    Stored(Option<CasToken>),
    /// The entry had been changed or deleted; the value was not stored.
    Changed,
}

/// A number to be stored if it does not exist.
#[derive(Clone, Copy, Debug)]
pub struct NewNumber {
    /// The number.
    pub value: u64,
    /// Its lifetime; `None` if it is unlimited.
    pub lifetime: Option<Duration>,
}

/// A change of a number that is stored as decimal digits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Delta {
    /// Wraps around at 2⁶⁴, as memcached does.
    Up(u64),
    /// Stops at 0, as memcached does.
    Down(u64),
}

impl Delta {
    /// Returns the number after the change.
    #[must_use]
    pub fn apply(self, number: u64) -> u64 {
        match self {
            Self::Up(delta) => number.wrapping_add(delta),
            Self::Down(delta) => number.saturating_sub(delta),
        }
    }
}
