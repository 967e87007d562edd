//! The memory of large values, which is used again when their readers have dropped them. Otherwise the allocator
//! returns it to the operating system and gets it back page by page, which takes longer than reading the value.

use bytes::BytesMut;

use super::connection::READ_BLOCK;

/// The size from which a value gets a buffer of its own, in bytes.
pub(super) const LARGE: usize = READ_BLOCK;

/// The space for the first read after a large value, in bytes. Of the next value, which is likely to be large as
/// well, little is read before it gets its own buffer.
const HEAD_BLOCK: usize = READ_BLOCK / 8;

/// The largest value whose buffer is kept, in bytes.
const LARGEST: usize = 1024 * 1024;

/// The number of buffers that a connection keeps: one in which a reader still has its value, and one for the
/// next value.
const BUFFERS: usize = 2;

/// Buffers whose values have been delivered.
#[derive(Debug, Default)]
pub(super) struct Spares([BytesMut; BUFFERS]);

impl Spares {
    /// Keeps the buffer of a value of `length` bytes, of which `reading` is the rest, and moves the bytes in
    /// `reading` to a new block.
    pub(super) fn keep(&mut self, length: usize, reading: &mut BytesMut) {
        let mut next = BytesMut::with_capacity(HEAD_BLOCK.max(reading.len()));
        next.extend_from_slice(reading);
        let mut spare = std::mem::replace(reading, next);
        if length <= LARGEST {
            spare.clear();
            self.0.rotate_right(1);
            self.0[0] = spare;
        }
    }

    /// Moves the bytes in `reading` to a buffer that holds `length` bytes and that nobody uses any more, if there
    /// is one.
    pub(super) fn take(&mut self, length: usize, reading: &mut BytesMut) -> bool {
        let Some(spare) = self
            .0
            .iter_mut()
            .find_map(|spare| spare.try_reclaim(length).then(|| std::mem::take(spare)))
        else {
            return false;
        };
        let begun = std::mem::replace(reading, spare);
        reading.extend_from_slice(&begun);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a value of `length` bytes into `reading`, and returns it.
    fn read(length: usize, reading: &mut BytesMut) -> BytesMut {
        reading.resize(length, b'x');
        reading.split_to(length)
    }

    #[test]
    fn memory_is_used_again_when_the_value_is_dropped() {
        let (mut spares, mut reading) = (Spares::default(), BytesMut::new());
        let value = read(LARGE, &mut reading);
        let memory = value.as_ptr();
        spares.keep(LARGE, &mut reading);
        assert!(!spares.take(LARGE, &mut reading), "the value is in use");
        drop(value);
        reading.extend_from_slice(b"begun");
        assert!(spares.take(LARGE, &mut reading));
        assert_eq!((reading.as_ptr(), &reading[..]), (memory, &b"begun"[..]));
        assert!(!spares.take(LARGE, &mut BytesMut::new()), "it was taken");
    }

    #[test]
    fn bytes_after_the_value_are_kept() {
        let (mut spares, mut reading) = (Spares::default(), BytesMut::new());
        let _value = read(LARGE, &mut reading);
        reading.extend_from_slice(b"next");
        spares.keep(LARGE, &mut reading);
        assert_eq!(&reading[..], b"next");
    }

    #[test]
    fn a_longer_value_does_not_fit() {
        let (mut spares, mut reading) = (Spares::default(), BytesMut::new());
        drop(read(LARGE, &mut reading));
        spares.keep(LARGE, &mut reading);
        assert!(!spares.take(2 * LARGE, &mut reading));
    }

    #[test]
    fn the_memory_of_very_large_values_is_returned() {
        let (mut spares, mut reading) = (Spares::default(), BytesMut::new());
        drop(read(LARGEST + 1, &mut reading));
        spares.keep(LARGEST + 1, &mut reading);
        assert!(!spares.take(LARGE, &mut reading));
    }
}
