//! Why entries stay fresh.
//!
//! - [`lease`]: a miss reserves the key before the value is computed. The value is stored only if the
//!   reservation has not been touched, so a value that may have been read before a write is not kept.
//! - [`flight`]: concurrent misses of one key in this process share one computation.
//! - [`invalidation`]: a write deletes the keys of all entries that it makes wrong, inner levels first.
//! - [`replay`]: the ledger remembers the keys until their deletion has been confirmed.
//!
//! `tests/model` specifies the four together.

use std::time::Duration;

pub(crate) mod flight;
pub(crate) mod invalidation;
pub(crate) mod lease;
pub(crate) mod replay;

/// The time for which a lease reserves its key, and so the longest computation that is stored.
pub(crate) const LEASE_LIFETIME: Duration = Duration::from_secs(10);
