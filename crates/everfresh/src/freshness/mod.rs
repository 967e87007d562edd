//! Why entries stay fresh.
//!
//! - [`lease`]: a miss reserves the key before the value is computed. The value is stored only if the
//!   reservation has not been touched, so a value that may have been read before a write is not kept.
//! - [`landing`]: the value of a computation is stored, or its lease given up.
//! - [`flight`]: concurrent misses of one key in this process share one computation.
//! - [`group`]: entries carry the generation of their groups, which one deletion ends.
//! - [`many`]: several values are reserved and computed together.
//! - [`invalidation`]: a write deletes the keys of all entries that it makes wrong, inner levels first.
//! - [`mod@write`]: a write, its row in the ledger and its invalidation, in one call.
//! - [`replay`]: the ledger remembers the keys until their deletion has been confirmed. Of all processes, one
//!   reads it: `replay/heartbeat`.
//!
//! - [`stale`]: an entry with a lifetime of its own may be served for some time after it, while one caller
//!   computes it again.
//!
//! Answers do not wait for stores: [`mod@beside`]. After a deletion by this process, a page is looked up and reserved in
//! one round trip: `cache/deletions`. The first value that a page is made of is reserved with it, if it was missing the last time:
//! [`ahead`].
//!
//! The crate `everfresh-model` specifies them together.

use std::time::Duration;

pub(crate) mod ahead;
pub(crate) mod beside;
pub(crate) mod computation;
pub(crate) mod flight;
pub(crate) mod group;
pub(crate) mod invalidation;
pub(crate) mod landing;
pub(crate) mod lease;
pub(crate) mod many;
pub(crate) mod replay;
pub(crate) mod stale;
pub(crate) mod write;

/// The default of the time for which a lease reserves its key, and so of the longest computation that is
/// stored.
pub(crate) const LEASE_LIFETIME: Duration = Duration::from_secs(10);
