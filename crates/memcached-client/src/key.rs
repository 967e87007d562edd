//! Validates keys, and hashes long ones. Does no I/O.

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// The longest key, in bytes (memcached's protocol.txt, "Keys").
pub const MAX_KEY_BYTES: usize = 250;

/// Separates the prefix of a long key from its hash.
const SEPARATOR: &[u8] = b":sha256:";
/// The length of a SHA-256 in Base64 without padding.
const HASH_DIGITS: usize = 43;
/// The length of the prefix of a long key, in bytes. It makes a hashed key [`MAX_KEY_BYTES`] long.
const PREFIX: usize = MAX_KEY_BYTES - SEPARATOR.len() - HASH_DIGITS;

/// The reason why a key is not valid.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum KeyError {
    /// The key is empty.
    #[error("it is empty")]
    Empty,
    /// The key contains white space or a control character, at this index. In the text protocol
    /// it would end the key or the command. The binary protocol has the same rule, so that both
    /// reach the same entries.
    #[error("byte {0} is white space or a control character; encode it, for example as %20")]
    Forbidden(usize),
    /// The key is not UTF-8, which the text protocol requires because memcache-async takes keys as
    /// `str`.
    #[error("it is not UTF-8; use the binary protocol for arbitrary bytes")]
    NotUtf8,
}

/// The longest key that is shown, in characters.
const MAX_SHOWN: usize = 100;

/// Returns a key for a message: escaped, and cut if it is long.
pub(crate) fn shown(key: &[u8]) -> String {
    let text = String::from_utf8_lossy(key);
    let mut shown: String = text.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// Returns the key as it is sent. A key of more than [`MAX_KEY_BYTES`] is replaced by its beginning
/// and its SHA-256, so that different keys never share an entry.
pub(crate) fn on_wire(key: &[u8]) -> Result<Cow<'_, [u8]>, KeyError> {
    if key.is_empty() {
        return Err(KeyError::Empty);
    }
    if let Some(at) = key.iter().position(|byte| *byte <= b' ' || *byte == 0x7f) {
        return Err(KeyError::Forbidden(at));
    }
    // A key in the format of a hashed key is hashed too; otherwise it would share the entry of the
    // long key with that hash.
    if key.len() > MAX_KEY_BYTES || looks_hashed(key) {
        Ok(Cow::Owned(hashed(key)))
    } else {
        Ok(Cow::Borrowed(key))
    }
}

fn looks_hashed(key: &[u8]) -> bool {
    key.len() == MAX_KEY_BYTES && key[PREFIX..].starts_with(SEPARATOR)
}

fn hashed(key: &[u8]) -> Vec<u8> {
    let digits = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(key));
    [&key[..PREFIX], SEPARATOR, digits.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_key_is_sent_unchanged() {
        let longest = [b'k'; MAX_KEY_BYTES];
        assert_eq!(on_wire(&longest).as_deref(), Ok(&longest[..]));
        assert_eq!(on_wire("schlüssel".as_bytes()).as_deref(), Ok("schlüssel".as_bytes()));
    }

    #[test]
    fn a_long_key_is_hashed_and_keeps_its_beginning() {
        let key = [b"tasklist:".as_slice(), &[b'k'; 300]].concat();
        let sent = on_wire(&key).unwrap();
        assert_eq!(sent.len(), MAX_KEY_BYTES);
        assert!(sent.starts_with(b"tasklist:kkk"));
    }

    #[test]
    fn a_key_in_the_format_of_a_hashed_key_is_hashed_again() {
        let sent = on_wire(&[b'k'; 300]).unwrap().into_owned();
        assert_ne!(on_wire(&sent).unwrap().into_owned(), sent);
    }

    #[test]
    fn a_key_is_shown_escaped_and_cut() {
        assert_eq!(shown(b"a key\r\n\xff"), "a key\\r\\n\u{fffd}");
        assert_eq!(shown(&[b'k'; 101]), "k".repeat(100) + "…");
        assert_eq!(shown(&[b'k'; 100]), "k".repeat(100));
    }

    #[test]
    fn bytes_that_could_end_a_command_are_refused() {
        assert_eq!(on_wire(b""), Err(KeyError::Empty));
        for byte in (0..=b' ').chain([0x7f]) {
            assert_eq!(on_wire(&[b'a', byte, b'b']), Err(KeyError::Forbidden(1)), "{byte}");
        }
        let long = [vec![b'k'; 300], b"\r\nflush_all\r\n".to_vec()].concat();
        assert_eq!(on_wire(&long), Err(KeyError::Forbidden(300)));
    }

    proptest! {
        #[test]
        fn different_keys_never_share_an_entry(a in key(), b in key()) {
            prop_assume!(a != b);
            prop_assert_ne!(on_wire(&a).unwrap(), on_wire(&b).unwrap());
        }

        #[test]
        fn the_key_that_is_sent_is_always_valid(key in prop::collection::vec(any::<u8>(), 0..600)) {
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
