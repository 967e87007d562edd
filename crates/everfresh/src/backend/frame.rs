//! The stored form of an entry: a frame around its body. Pure.
//!
//! Any other bytes under a key (another version's, another program's, damaged ones, an attacker's) are
//! not an entry: a miss, never code, never a panic. A MAC over the key and the whole frame seals it:
//! without the secret, an entry can neither be forged nor moved to another key. Without a secret the
//! seal is only a checksum.

use std::hash::Hasher;

use bytes::{BufMut, Bytes, BytesMut};
use siphasher::{sip::SipHasher24, sip128};

/// The first bytes of every frame, with the version of its layout.
const MAGIC: [u8; 3] = [0xac, 0xca, 3];
const ENTRY: u8 = 0;
const LEASE: u8 = 1;
/// An entry with the time at which its lifetime ends before its body.
const AGING: u8 = 2;

/// The length of a frame without its body: magic, kind, schema, fingerprint, seal.
pub(crate) const HEADER: usize = SEAL_AT + 8;
const SEAL_AT: usize = 3 + 1 + 8 + 16;

/// The keys that seal frames.
#[derive(Clone, Copy)]
pub(crate) struct Secret {
    /// `None`: only this process can write entries, and frames are not sealed.
    current: Option<SipKey>,
    /// The key before a rotation; it opens frames only.
    previous: Option<SipKey>,
}

impl Default for Secret {
    fn default() -> Self {
        Self { current: Some(SipKey::default()), previous: None }
    }
}

/// The two halves of a SipHash-2-4 key.
#[derive(Clone, Copy, Default)]
struct SipKey(u64, u64);

impl SipKey {
    fn new(key: [u8; 16]) -> Self {
        let half = |at: usize| key[at..at + 8].iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        Self(half(0), half(8))
    }

    fn seal(self, key: &str, header: &[u8], body: &[u8]) -> u64 {
        let mut hasher = SipHasher24::new_with_keys(self.0, self.1);
        hasher.write(&header[..SEAL_AT]);
        hasher.write_usize(key.len());
        hasher.write(key.as_bytes());
        hasher.write(body);
        hasher.finish()
    }
}

/// The key of fingerprints: 128 bits by `SipHash`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FingerprintKey(pub(crate) u64, pub(crate) u64);

impl FingerprintKey {
    pub(crate) fn hasher(self) -> sip128::SipHasher24 {
        sip128::SipHasher24::new_with_keys(self.0, self.1)
    }
}

/// The conditions under which an entry may be used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Stamp {
    /// The version of the body's type or template.
    pub(crate) schema: u64,
    /// A fingerprint of the input of the body, where the key does not tell it.
    pub(crate) fingerprint: u128,
}

/// Identifies a lease.
pub(crate) type LeaseId = u128;

/// The content of valid bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Frame {
    Entry {
        stamp: Stamp,
        body: Bytes,
        /// When its lifetime ends, in milliseconds since 1970, if it may be served stale after that.
        fresh_until: Option<u64>,
    },
    Lease {
        id: LeaseId,
        /// When it ends, in milliseconds since 1970. Its bytes may outlast it: if they are written
        /// again, the server does not know their lifetime.
        ends_at: u64,
    },
}

impl Secret {
    pub(crate) fn new(current: [u8; 16], previous: Option<[u8; 16]>) -> Self {
        Self { current: Some(SipKey::new(current)), previous: previous.map(SipKey::new) }
    }

    /// The secret of entries that never leave this process.
    pub(crate) fn unneeded() -> Self {
        Self { current: None, previous: None }
    }

    /// Derives the key for fingerprints from the key for seals. Fingerprints are keyed because an attacker who
    /// chooses values could otherwise search for two values with the same fingerprint.
    pub(crate) fn fingerprint_key(self) -> FingerprintKey {
        let sip = self.current.unwrap_or_default();
        let half = |number| {
            let mut hasher = SipHasher24::new_with_keys(sip.0, sip.1);
            hasher.write(b"everfresh fingerprint");
            hasher.write_u8(number);
            hasher.finish()
        };
        FingerprintKey(half(0), half(1))
    }

    /// Returns the frame of an entry under this key of the backend.
    pub(crate) fn entry(self, key: &str, stamp: Stamp, body: &[u8]) -> Bytes {
        self.frame(key, ENTRY, stamp, body)
    }

    /// Returns the frame of an entry that may be served stale after a time in milliseconds since 1970.
    pub(crate) fn aging_entry(
        self,
        key: &str,
        stamp: Stamp,
        body: &[u8],
        fresh_until: u64,
    ) -> Bytes {
        self.frame(key, AGING, stamp, &[&fresh_until.to_be_bytes(), body].concat())
    }

    /// Returns the frame of a lease, which reserves a key for one computation.
    pub(crate) fn lease(self, key: &str, id: LeaseId, ends_at: u64) -> Bytes {
        let mut body = [0; 24];
        body[..16].copy_from_slice(&id.to_be_bytes());
        body[16..].copy_from_slice(&ends_at.to_be_bytes());
        self.frame(key, LEASE, Stamp::default(), &body)
    }

    fn frame(self, key: &str, kind: u8, stamp: Stamp, body: &[u8]) -> Bytes {
        let mut frame = BytesMut::with_capacity(HEADER + body.len());
        frame.put_slice(&MAGIC);
        frame.put_u8(kind);
        frame.put_u64(stamp.schema);
        frame.put_u128(stamp.fingerprint);
        frame.put_u64(self.current.map_or(0, |sip| sip.seal(key, &frame, body)));
        frame.put_slice(body);
        frame.freeze()
    }

    /// Reads a frame; `None` if the bytes are not a frame of this key. The body is a slice of
    /// `bytes`.
    pub(crate) fn open(self, key: &str, bytes: &Bytes) -> Option<Frame> {
        let (header, body) = bytes.split_at_checked(HEADER)?;
        let number = |at: usize| header[at..at + 8].try_into().map(u64::from_be_bytes).ok();
        let seal = number(SEAL_AT)?;
        let mut keys = self.current.into_iter().chain(self.previous);
        let is_sealed =
            self.current.is_none() || keys.any(|sip| sip.seal(key, header, body) == seal);
        if header[..3] != MAGIC || !is_sealed {
            return None;
        }
        let stamp = || {
            let fingerprint = header[12..28].try_into().map(u128::from_be_bytes).ok()?;
            Some(Stamp { schema: number(4)?, fingerprint })
        };
        match header[3] {
            ENTRY => {
                let body = bytes.slice(HEADER..);
                Some(Frame::Entry { stamp: stamp()?, body, fresh_until: None })
            }
            AGING => {
                let (time, _) = body.split_first_chunk()?;
                let body = bytes.slice(HEADER + time.len()..);
                let fresh_until = Some(u64::from_be_bytes(*time));
                Some(Frame::Entry { stamp: stamp()?, body, fresh_until })
            }
            LEASE => {
                let (id, ends_at) = body.split_at_checked(16)?;
                Some(Frame::Lease {
                    id: LeaseId::from_be_bytes(id.try_into().ok()?),
                    ends_at: u64::from_be_bytes(ends_at.try_into().ok()?),
                })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_frame_is_read_as_it_was_written(
            schema in any::<u64>(),
            fingerprint in any::<u128>(),
            body in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let stamp = Stamp { schema, fingerprint };
            let secret = Secret::new(*b"sixteen letters!", None);
            let read = secret.open("k", &secret.entry("k", stamp, &body));
            let body = Bytes::from(body);
            let expected = Frame::Entry { stamp, body: body.clone(), fresh_until: None };
            prop_assert_eq!(read, Some(expected));
            let read = secret.open("k", &secret.aging_entry("k", stamp, &body, schema));
            prop_assert_eq!(read, Some(Frame::Entry { stamp, body, fresh_until: Some(schema) }));
        }

        #[test]
        fn a_lease_keeps_its_id_and_its_end(id in any::<u128>(), ends_at in any::<u64>()) {
            let secret = Secret::default();
            let read = secret.open("k", &secret.lease("k", id, ends_at));
            prop_assert_eq!(read, Some(Frame::Lease { id, ends_at }));
        }

        #[test]
        fn a_damaged_moved_or_forged_frame_is_refused(
            body in prop::collection::vec(any::<u8>(), 0..100),
            at in any::<prop::sample::Index>(),
            bit in 0_u8..8,
        ) {
            let secret = Secret::new(*b"sixteen letters!", None);
            let frame = secret.entry("k", Stamp::default(), &body);
            prop_assert_eq!(secret.open("other", &frame), None);
            prop_assert_eq!(Secret::default().open("k", &frame), None);
            let next = Secret::new(*b"sixteen numbers!", Some(*b"sixteen letters!"));
            prop_assert!(next.open("k", &frame).is_some());
            let mut damaged = frame.to_vec();
            damaged[at.index(frame.len())] ^= 1_u8 << bit;
            prop_assert_eq!(secret.open("k", &damaged.into()), None);
            prop_assert_eq!(secret.open("k", &frame.slice(..frame.len() - 1)), None);
        }

        #[test]
        fn no_bytes_cause_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), framed in any::<bool>()) {
            let mut bytes = bytes;
            if framed && bytes.len() >= 3 {
                bytes[..3].copy_from_slice(&MAGIC);
            }
            let _ = Secret::default().open("k", &bytes.into());
        }
    }
}
