//! Commands, values and results of operations, common to both protocols.

use std::{
    num::NonZeroU64,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use crate::protocol::Protocol;

/// An operation of the client. [`Protocol::supports`] tells which protocol has it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is the client's method of that name")]
pub enum Command {
    Get,
    GetMany,
    GetOrReserve,
    Set,
    SetMany,
    Add,
    Replace,
    Append,
    Prepend,
    CompareAndSwap,
    Delete,
    DeleteMany,
    DeleteIfUnchanged,
    Touch,
    GetAndTouch,
    Increment,
    IncrementOrInsert,
    Decrement,
    Flush,
    Version,
    Stats,
    Noop,
    /// Values with flags other than 0.
    Flags,
}

impl Protocol {
    /// Returns whether the protocol has `command`. Other commands fail with
    /// [`Error::Unsupported`](crate::Error::Unsupported).
    #[must_use]
    pub fn supports(self, command: Command) -> bool {
        use Command::{Append, Flags, GetAndTouch, Prepend, Replace, Stats, Touch};
        !(self.is_text()
            && matches!(command, Append | Flags | GetAndTouch | Prepend | Replace | Stats | Touch))
    }
}

/// A value that the server returned.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Value {
    /// The bytes of the value. They are a slice of the buffer that they were read into, and keep
    /// the whole buffer in memory.
    pub data: Bytes,
    /// The flags that were stored with the value. Always 0 with the text protocol.
    pub flags: u32,
    /// The CAS token, for [`Client::compare_and_swap`](crate::Client::compare_and_swap). With the
    /// text protocol, only [`Client::get_with_cas`](crate::Client::get_with_cas) returns it.
    pub cas: Option<Cas>,
}

/// A CAS token: identifies one version of one entry, as read through one connection.
///
/// memcached numbers versions from 1 when it starts, so a number from before a restart could match
/// a newer value. A token is therefore valid only for the connection that it was read through. Once
/// that connection has been replaced, operations with the token return
/// [`Swap::ConnectionReplaced`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cas {
    id: NonZeroU64,
    connection: u64,
}

impl Cas {
    /// Returns `None` if `id` is 0, which a server without CAS (`memcached -C`) sends. In a request,
    /// 0 would make the write unconditional.
    pub(crate) fn new(id: u64, connection: u64) -> Option<Self> {
        NonZeroU64::new(id).map(|id| Self { id, connection })
    }

    /// Returns the number of the version, as the server tells it.
    #[must_use]
    pub fn id(self) -> u64 {
        self.id.get()
    }

    pub(crate) fn connection(self) -> u64 {
        self.connection
    }
}

/// Returns a number for a connection that is unique within the process.
pub(crate) fn next_connection() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The result of a write that requires an unchanged entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Swap {
    /// The write was carried out. Holds the new CAS token if the protocol returns it.
    Done(Option<Cas>),
    /// The write was refused because the entry has changed.
    Changed,
    /// The write was refused because there is no entry.
    Missing,
    /// The write was not sent because the connection of the CAS token has been replaced.
    ConnectionReplaced,
}

/// The result of [`Client::get_or_reserve`](crate::Client::get_or_reserve).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Reservation {
    /// There is an entry. It may be the placeholder of another client, which in the meta protocol has an
    /// empty value.
    Found(Value),
    /// There was no entry, and the key is reserved now. The token is `None` if the server has no CAS tokens
    /// (`memcached -C`), or the text protocol could not read it: the placeholder stays until it expires.
    Reserved(Option<Cas>),
    /// There was no entry, but another client has stored one meanwhile.
    Lost,
}

/// The result of a delete.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Deletion {
    /// The entry was deleted.
    Deleted,
    /// There was no entry.
    NotFound,
    /// There is no entry now. The text protocol does not tell whether there was one.
    Gone,
}

/// The lifetime of an entry.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Expiration {
    /// The entry lives until it is deleted or evicted.
    #[default]
    Never,
    /// The entry expires after this duration, rounded up to a whole second.
    In(Duration),
    /// The entry expires at this time.
    At(SystemTime),
}

/// The longest lifetime of a value on a server that stands in for another: 10 s.
pub const STAND_IN_LIFETIME: Duration = Duration::from_secs(10);

/// The longest duration in seconds; memcached reads a larger number as a unix time (protocol.txt,
/// "Expiration times").
const LONGEST_DURATION: u64 = 60 * 60 * 24 * 30;

/// A time in the past: an entry with it has expired at once.
pub(crate) const EXPIRED: u32 = 60 * 60 * 24 * 30 + 1;

/// Returns a lifetime as memcached parses it in a line of text. A time after 2038 becomes 0, which means
/// never: it is parsed as a signed number of 32 bits there, and would expire the entry at once.
pub(crate) fn lifetime_in_text(lifetime: u32) -> u32 {
    if i32::try_from(lifetime).is_err() { 0 } else { lifetime }
}

impl Expiration {
    /// Returns the number for a server, cut to [`STAND_IN_LIFETIME`] if it stands in for another.
    pub(crate) fn on_server(self, stand_in: bool) -> u32 {
        let now = SystemTime::now();
        let limited = if stand_in { self.at_most(STAND_IN_LIFETIME, now) } else { self };
        limited.on_wire(now)
    }

    /// Returns the number that memcached expects, at the time `now`.
    pub(crate) fn on_wire(self, now: SystemTime) -> u32 {
        let unix_time = |time: SystemTime| {
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
                    _ => now.checked_add(duration).map_or(u32::MAX, unix_time),
                }
            }
            Self::At(time) => unix_time(time),
        }
    }

    /// Returns the lifetime, cut to `limit` from `now`.
    pub(crate) fn at_most(self, limit: Duration, now: SystemTime) -> Self {
        let within = match self {
            Self::Never => false,
            Self::In(duration) => duration <= limit,
            Self::At(time) => time <= now + limit,
        };
        if within { self } else { Self::In(limit) }
    }
}

/// A value to store. Bytes convert into an item without flags that never expires.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Item<'a> {
    /// The value.
    pub value: &'a [u8],
    /// Flags, which the server returns with the value and does not interpret. Default: 0.
    pub flags: u32,
    /// The lifetime. Default: [`Expiration::Never`].
    pub expiration: Expiration,
}

impl Item<'_> {
    /// Sets the lifetime.
    #[must_use]
    pub fn expires_in(self, lifetime: Duration) -> Self {
        Self { expiration: Expiration::In(lifetime), ..self }
    }

    /// Sets the flags.
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

/// An item with a valid key and size and the lifetime in memcached's format.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WireItem<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) flags: u32,
    pub(crate) expiration: u32,
}

impl WireItem<'_> {
    /// Returns flags and lifetime in the layout of the binary protocol.
    pub(crate) fn extras(&self) -> [u8; 8] {
        let mut extras = [0; 8];
        extras[..4].copy_from_slice(&self.flags.to_be_bytes());
        extras[4..].copy_from_slice(&self.expiration.to_be_bytes());
        extras
    }
}

/// The condition under which an item is stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum StoreMode {
    Set,
    Add,
    Replace,
    Append,
    Prepend,
}

impl StoreMode {
    pub(crate) fn command(self) -> Command {
        match self {
            Self::Set => Command::Set,
            Self::Add => Command::Add,
            Self::Replace => Command::Replace,
            Self::Append => Command::Append,
            Self::Prepend => Command::Prepend,
        }
    }
}

/// The entry that a counter becomes if there is none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewCounter {
    pub(crate) value: u64,
    /// In memcached's format, and not [`u32::MAX`], which in a request means that no entry is created.
    pub(crate) expiration: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 60 * 60 * 24;

    fn wire(expiration: Expiration) -> u32 {
        expiration.on_wire(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
    }

    #[test]
    fn lifetimes_of_more_than_30_days_are_sent_as_a_unix_time() {
        assert_eq!(wire(Expiration::Never), 0);
        assert_eq!(wire(Expiration::In(Duration::from_secs(60))), 60);
        assert_eq!(wire(Expiration::In(Duration::from_secs(30 * DAY))), 2_592_000);
        assert_eq!(wire(Expiration::In(Duration::from_secs(30 * DAY + 1))), 1_802_592_001);
        assert_eq!(wire(Expiration::In(Duration::MAX)), u32::MAX);
    }

    #[test]
    fn a_fraction_of_a_second_is_rounded_up() {
        assert_eq!(wire(Expiration::In(Duration::from_millis(1))), 1);
        assert_eq!(wire(Expiration::In(Duration::from_millis(1001))), 2);
        assert_eq!(wire(Expiration::In(Duration::ZERO)), EXPIRED);
    }

    #[test]
    fn a_time_is_never_sent_as_a_duration() {
        assert_eq!(wire(Expiration::At(SystemTime::UNIX_EPOCH)), EXPIRED);
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
        assert_eq!(wire(Expiration::At(then)), 1_900_000_000);
    }

    #[test]
    fn a_lifetime_on_a_stand_in_is_cut_to_the_limit() {
        let (limit, now) = (Duration::from_secs(10), SystemTime::now());
        assert_eq!(Expiration::Never.at_most(limit, now), Expiration::In(limit));
        let short = Expiration::In(Duration::from_secs(9));
        assert_eq!(short.at_most(limit, now), short);
    }
}
