//! The stored form of entries and numbers. Pure.
//!
//! An entry is a marker, a token and its bytes. A number is the decimal digits of a signed integer, which Redis counts;
//! numbers from 2⁶³ on are negative (two's complement).

use bytes::{BufMut, Bytes, BytesMut};
use everfresh::backend::{CasToken, StoredBytes};

/// The first byte of an entry. No number begins with it.
pub(crate) const MARKER: u8 = 0xef;

/// The length of marker and token.
const HEADER: usize = 9;

/// Returns a random token and the entry with it.
pub(crate) fn new_entry(bytes: &[u8]) -> (CasToken, Bytes) {
    let token: u64 = rand::random();
    let mut entry = BytesMut::with_capacity(HEADER + bytes.len());
    entry.put_slice(&header(token));
    entry.put_slice(bytes);
    (CasToken::Number(token), entry.freeze())
}

/// Returns the first bytes of an entry in this state; `None` for a token of another backend.
pub(crate) fn header_of(token: CasToken) -> Option<[u8; HEADER]> {
    match token {
        CasToken::Number(token) => Some(header(token)),
        _ => None,
    }
}

fn header(token: u64) -> [u8; HEADER] {
    let mut header = [MARKER; HEADER];
    header[1..].copy_from_slice(&token.to_be_bytes());
    header
}

/// Returns bytes in the form in which they are stored: a number if they are the usual digits of one.
pub(crate) fn stored_form(bytes: &Bytes) -> Bytes {
    let digits = str::from_utf8(bytes).ok();
    let number = digits.and_then(|digits| digits.parse::<u64>().ok());
    match number.filter(|number| number.to_string().as_bytes() == bytes.as_ref()) {
        Some(number) => signed(number).to_string().into(),
        None => new_entry(bytes).1,
    }
}

/// Reads an entry or a number.
pub(crate) fn read(stored: Bytes) -> StoredBytes {
    if let Some((header, _)) = stored.split_at_checked(HEADER)
        && let [MARKER, token @ ..] = header
        && let Ok(token) = token.try_into()
    {
        let token = Some(CasToken::Number(u64::from_be_bytes(token)));
        return StoredBytes { bytes: stored.slice(HEADER..), token };
    }
    // Numbers, and bytes that another program has stored, have no token.
    StoredBytes {
        bytes: number(&stored).map_or(stored, |number| number.to_string().into()),
        token: None,
    }
}

/// Reads a number.
pub(crate) fn number(stored: &[u8]) -> Option<u64> {
    let number: i64 = str::from_utf8(stored).ok()?.parse().ok()?;
    Some(number.cast_unsigned())
}

/// Returns a number as Redis counts it.
pub(crate) fn signed(number: u64) -> i64 {
    number.cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_they_were_stored() {
        for bytes in
            ["", "0", "7", "007", "-1", "18446744073709551615", "18446744073709551616", "x"]
        {
            let stored = stored_form(&Bytes::copy_from_slice(bytes.as_bytes()));
            assert_eq!(read(stored).bytes, bytes);
        }
        let binary = Bytes::from_static(&[MARKER, 0, 255]);
        assert_eq!(read(stored_form(&binary)).bytes, binary);
    }

    #[test]
    fn an_entry_has_the_token_that_it_was_stored_with() {
        let (token, entry) = new_entry(b"value");
        let found = read(entry.clone());
        assert_eq!(found.bytes, "value");
        assert_eq!(header_of(found.token.unwrap()), header_of(token));
        assert!(entry.starts_with(&header_of(token).unwrap()));
    }

    #[test]
    fn a_number_is_counted_by_redis_as_a_signed_one() {
        assert_eq!(stored_form(&Bytes::from_static(b"18446744073709551615")), "-1");
        assert_eq!(number(b"-1"), Some(u64::MAX));
        assert_eq!(number(b"x"), None);
    }
}
