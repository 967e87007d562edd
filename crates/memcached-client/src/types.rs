//! What a connection can do, whichever protocol it speaks.

use std::{
    num::NonZeroU64,
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use bytes::Bytes;

use crate::config::Protocol;

/// An operation of the client; [`Protocol::supports`] tells which protocol has it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is the client's method of that name")]
pub enum Command {
    Get,
    GetMany,
    Set,
    SetMany,
    Add,
    Replace,
    CompareAndSwap,
    Delete,
    DeleteMany,
    DeleteIfUnchanged,
    Touch,
    Increment,
    Decrement,
    Flush,
    Version,
    Stats,
    Noop,
    /// Values with flags other than 0.
    Flags,
}

impl Protocol {
    /// Whether `command` works with this protocol. What does not fails with
    /// [`Error::Unsupported`](crate::Error::Unsupported).
    #[must_use]
    pub fn supports(self, command: Command) -> bool {
        use Command::{Flags, Replace, Stats, Touch};
        !(self.is_text() && matches!(command, Flags | Replace | Stats | Touch))
    }
}

/// A value as it was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Value {
    /// The bytes: a slice of the buffer that they were read into, which lives as long as this.
    pub data: Bytes,
    /// What was stored with them; 0 with the text protocol.
    pub flags: u32,
    /// For [`Client::compare_and_swap`](crate::Client::compare_and_swap). `None` from
    /// [`Client::get`](crate::Client::get) with the text protocol, which has it only from
    /// [`Client::get_with_cas`](crate::Client::get_with_cas).
    pub cas: Option<Cas>,
}

/// A mark of one state of one entry, as seen through one connection.
///
/// A server counts these marks from 1 when it starts, so one that is older than the server could
/// fit a newer value. That is why a mark holds for the connection it came through and no other:
/// once that has been replaced, whatever is asked with the mark is answered with
/// [`Swap::ConnectionReplaced`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cas {
    id: NonZeroU64,
    connection: u64,
}

impl Cas {
    /// `None` from a server that keeps no such ids (`memcached -C`): it sends 0, which in a request
    /// would mean "whatever is there".
    pub(crate) fn new(id: u64, connection: u64) -> Option<Self> {
        NonZeroU64::new(id).map(|id| Self { id, connection })
    }

    pub(crate) fn id(self) -> u64 {
        self.id.get()
    }

    pub(crate) fn connection(self) -> u64 {
        self.connection
    }
}

/// The longest body of a response that is accepted: a claim of more than memcached's largest item is
/// garbage, and no memory is allocated for it.
pub(crate) const MAX_RESPONSE_BODY: usize = 128 * 1024 * 1024;

/// Returns a number for a connection that is unique within the process.
pub(crate) fn next_connection() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What became of a write that asked for an unchanged entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Swap {
    /// Done. The entry's new mark, where the protocol tells it.
    Done(Option<Cas>),
    /// Not done: the entry has been changed since.
    Changed,
    /// Not done: there is no entry any more.
    Missing,
    /// Not done, nothing was sent: the connection that the mark came through is no more.
    ConnectionReplaced,
}

/// What a delete found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Deletion {
    /// The entry was there, and is gone.
    Deleted,
    /// There was none.
    NotFound,
    /// There is none now; the text protocol does not tell whether there was.
    Gone,
}

/// How long an entry lives.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Expiration {
    /// Until it is deleted or evicted.
    #[default]
    Never,
    /// This long; fractions of a second count as a whole one.
    In(std::time::Duration),
    /// Until then.
    At(SystemTime),
}

/// Seconds up to which memcached takes a number for a duration (protocol.txt, "Expiration times").
const LONGEST_DURATION: u64 = 60 * 60 * 24 * 30;

/// A moment long ago.
pub(crate) const EXPIRED: u32 = 60 * 60 * 24 * 30 + 1;

impl Expiration {
    /// The number that memcached takes, at the time `now`.
    pub(crate) fn on_wire(self, now: SystemTime) -> u32 {
        let moment = |time: SystemTime| {
            let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            u32::try_from(since_epoch.as_secs()).unwrap_or(u32::MAX).max(EXPIRED)
        };
        match self {
            Self::Never => 0,
            Self::In(duration) => {
                let seconds =
                    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0));
                match u32::try_from(seconds) {
                    Ok(0) => EXPIRED,
                    Ok(short) if seconds <= LONGEST_DURATION => short,
                    _ => now.checked_add(duration).map_or(u32::MAX, moment),
                }
            }
            Self::At(time) => moment(time),
        }
    }

    /// Not later than `limit` from now.
    pub(crate) fn at_most(self, limit: std::time::Duration, now: SystemTime) -> Self {
        let within = match self {
            Self::Never => false,
            Self::In(duration) => duration <= limit,
            Self::At(time) => time <= now + limit,
        };
        if within { self } else { Self::In(limit) }
    }
}

/// A value to be stored. Bytes alone are one without flags that never expires.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Item<'a> {
    /// The value.
    pub value: &'a [u8],
    /// Opaque to the server, given back with the value. Default: 0.
    pub flags: u32,
    /// Default: [`Expiration::Never`].
    pub expiration: Expiration,
}

impl Item<'_> {
    /// The same, for so long.
    #[must_use]
    pub fn expires_in(self, lifetime: std::time::Duration) -> Self {
        Self { expiration: Expiration::In(lifetime), ..self }
    }

    /// The same, with flags.
    #[must_use]
    pub fn flags(self, flags: u32) -> Self {
        Self { flags, ..self }
    }
}

impl<'a, T: AsRef<[u8]> + ?Sized> From<&'a T> for Item<'a> {
    fn from(value: &'a T) -> Self {
        Self { value: value.as_ref(), ..Self::default() }
    }
}

/// An item whose key and size have been checked and whose lifetime has been counted out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checked<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) flags: u32,
    pub(crate) expiration: u32,
}

impl Checked<'_> {
    /// Flags and lifetime, as the binary protocol has them.
    pub(crate) fn extras(&self) -> [u8; 8] {
        let mut extras = [0; 8];
        extras[..4].copy_from_slice(&self.flags.to_be_bytes());
        extras[4..].copy_from_slice(&self.expiration.to_be_bytes());
        extras
    }
}

/// The ways to store one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum StoreMode {
    Set,
    Add,
    Replace,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DAY: u64 = 60 * 60 * 24;

    fn wire(expiration: Expiration) -> u32 {
        expiration.on_wire(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
    }

    #[test]
    fn lifetimes_of_up_to_30_days_are_durations_and_longer_ones_moments() {
        assert_eq!(wire(Expiration::Never), 0);
        assert_eq!(wire(Expiration::In(Duration::from_secs(60))), 60);
        assert_eq!(wire(Expiration::In(Duration::from_secs(30 * DAY))), 2_592_000);
        assert_eq!(wire(Expiration::In(Duration::from_secs(30 * DAY + 1))), 1_802_592_001);
        assert_eq!(wire(Expiration::In(Duration::MAX)), u32::MAX);
    }

    #[test]
    fn a_fraction_of_a_second_is_not_for_ever() {
        assert_eq!(wire(Expiration::In(Duration::from_millis(1))), 1);
        assert_eq!(wire(Expiration::In(Duration::from_millis(1001))), 2);
        assert_eq!(wire(Expiration::In(Duration::ZERO)), EXPIRED);
    }

    #[test]
    fn a_moment_is_never_taken_for_a_duration() {
        assert_eq!(wire(Expiration::At(SystemTime::UNIX_EPOCH)), EXPIRED);
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
        assert_eq!(wire(Expiration::At(then)), 1_900_000_000);
    }

    #[test]
    fn a_stand_in_keeps_nothing_for_longer_than_it_may() {
        let (limit, now) = (Duration::from_secs(10), SystemTime::now());
        assert_eq!(Expiration::Never.at_most(limit, now), Expiration::In(limit));
        let short = Expiration::In(Duration::from_secs(9));
        assert_eq!(short.at_most(limit, now), short);
    }
}
