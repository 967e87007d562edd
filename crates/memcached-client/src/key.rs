//! Keys as memcached takes them. Pure.

use std::{borrow::Cow, fmt::Write};

use sha2::{Digest, Sha256};
use thiserror::Error;

/// The longest key, in bytes (memcached's protocol.txt, "Keys").
pub const MAX_KEY_BYTES: usize = 250;

/// Stands between what is kept of a long key and its hash.
const MARK: &[u8] = b":sha256:";
const HASH_DIGITS: usize = 64;
/// What is kept of a long key: a hashed key is as long as a key may be.
const KEPT: usize = MAX_KEY_BYTES - MARK.len() - HASH_DIGITS;

/// Why a key cannot be used.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum KeyError {
    /// It has no bytes.
    #[error("it is empty")]
    Empty,
    /// In the text protocol it would end the key or the command; the binary one keeps to the same
    /// rule, so that both reach the same entries.
    #[error("byte {0} is white space or a control character")]
    Forbidden(usize),
    /// With the text protocol only: memcache-async takes keys as text.
    #[error("it is not UTF-8, which the text protocol's library wants")]
    NotUtf8,
}

/// The key as it is sent. One of more than [`MAX_KEY_BYTES`] is cut and completed by its SHA-256:
/// no two keys share an entry, whatever their bytes.
pub(crate) fn on_wire(key: &[u8]) -> Result<Cow<'_, [u8]>, KeyError> {
    if key.is_empty() {
        return Err(KeyError::Empty);
    }
    if let Some(at) = key.iter().position(|byte| *byte <= b' ' || *byte == 0x7f) {
        return Err(KeyError::Forbidden(at));
    }
    // A short key that looks like a hashed one is hashed as well, else somebody could name it.
    if key.len() > MAX_KEY_BYTES || looks_hashed(key) {
        Ok(Cow::Owned(hashed(key)))
    } else {
        Ok(Cow::Borrowed(key))
    }
}

fn looks_hashed(key: &[u8]) -> bool {
    key.len() == MAX_KEY_BYTES && key[KEPT..].starts_with(MARK)
}

fn hashed(key: &[u8]) -> Vec<u8> {
    let mut digits = String::with_capacity(HASH_DIGITS);
    for byte in Sha256::digest(key) {
        // Writing to a String cannot fail.
        let _ = write!(digits, "{byte:02x}");
    }
    [&key[..KEPT], MARK, digits.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_key_is_sent_as_it_is() {
        let longest = [b'k'; MAX_KEY_BYTES];
        assert_eq!(on_wire(&longest).as_deref(), Ok(&longest[..]));
        assert_eq!(on_wire("schlüssel".as_bytes()).as_deref(), Ok("schlüssel".as_bytes()));
    }

    #[test]
    fn a_long_key_is_hashed_and_stays_recognisable() {
        let key = [b"tasklist:".as_slice(), &[b'k'; 300]].concat();
        let sent = on_wire(&key).unwrap();
        assert_eq!(sent.len(), MAX_KEY_BYTES);
        assert!(sent.starts_with(b"tasklist:kkk"));
    }

    #[test]
    fn nobody_can_name_a_hashed_key() {
        let sent = on_wire(&[b'k'; 300]).unwrap().into_owned();
        assert_ne!(on_wire(&sent).unwrap().into_owned(), sent);
    }

    #[test]
    fn nothing_that_could_end_a_command_is_let_through() {
        assert_eq!(on_wire(b""), Err(KeyError::Empty));
        for byte in (0..=b' ').chain([0x7f]) {
            assert_eq!(on_wire(&[b'a', byte, b'b']), Err(KeyError::Forbidden(1)), "{byte}");
        }
        let long = [vec![b'k'; 300], b"\r\nflush_all\r\n".to_vec()].concat();
        assert_eq!(on_wire(&long), Err(KeyError::Forbidden(300)));
    }

    proptest! {
        #[test]
        fn two_keys_never_share_an_entry(a in key(), b in key()) {
            prop_assume!(a != b);
            prop_assert_ne!(on_wire(&a).unwrap(), on_wire(&b).unwrap());
        }

        #[test]
        fn what_is_sent_is_a_valid_key(key in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(sent) = on_wire(&key) {
                prop_assert!((1..=MAX_KEY_BYTES).contains(&sent.len()));
                prop_assert!(sent.iter().all(|b| *b > b' ' && *b != 0x7f));
            }
        }
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        (200..400_usize, prop::collection::vec(b'a'..=b'b', 1..4))
            .prop_map(|(length, end)| [vec![b'k'; length], end].concat())
    }
}
