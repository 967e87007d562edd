//! Shows stored bytes to people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::frame::{Frame, Secret};

/// Bytes that a cache has stored under a key, taken apart by [`inspect`].
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Inspected {
    /// An entry.
    Entry {
        /// The version of its type or template, and of the cache.
        schema: u64,
        /// A fingerprint of its input, or of the generations of its groups; 0 without either.
        fingerprint: u128,
        /// When its lifetime ends, if it may be served stale after that.
        fresh_until: Option<SystemTime>,
        /// The value: `MessagePack`, or the text of a fragment. For a value at hand, the 16 bytes of its digest.
        body: Bytes,
    },
    /// A lease: a value is being computed.
    Lease {
        /// When it ends.
        ends_at: SystemTime,
    },
}

/// Takes apart the bytes of an entry or a lease, for a tool that shows them. The seal is not checked, so trust nothing that
/// it returns. Returns `None` for other bytes.
#[must_use]
pub fn inspect(bytes: &Bytes) -> Option<Inspected> {
    let time = |milliseconds| UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds));
    Some(match Secret::unneeded().open("", bytes)? {
        Frame::Entry { stamp, body, fresh_until } => Inspected::Entry {
            schema: stamp.schema,
            fingerprint: stamp.fingerprint,
            fresh_until: fresh_until.and_then(time),
            body,
        },
        Frame::Lease { ends_at, .. } => Inspected::Lease { ends_at: time(ends_at)? },
    })
}

/// Returns the key under which the bytes of a value at hand are stored, given the body of the entry that names it.
#[must_use]
pub fn named_key(body: &[u8]) -> Option<String> {
    Some(value_key(u128::from_be_bytes(body.try_into().ok()?)))
}

/// Returns the key of the bytes with this digest. No other key begins like this: elsewhere `%` is always followed by
/// two digits, or by another word.
pub(crate) fn value_key(digest: u128) -> String {
    format!("%value/{digest:032x}")
}
