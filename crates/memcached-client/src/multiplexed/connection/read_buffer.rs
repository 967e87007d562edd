//! The bytes that a connection has read.
//!
//! Small values share a block, a large one has a buffer of its own. The memory of large values is used again when
//! their readers have dropped them. Otherwise the allocator returns it to the operating system and gets it back page
//! by page, which takes longer than reading the value.

use bytes::BytesMut;

use super::super::binary::HEADER;

/// The least space for a read, in bytes. Small values share a block.
const BLOCK: usize = 32 * 1024;

/// The most memory that is allocated for a value before it arrives, in bytes.
const AHEAD: usize = 1024 * 1024;

/// The size from which a value has a buffer of its own, in bytes.
pub(super) const LARGE: usize = BLOCK;

/// The largest value whose buffer is kept, in bytes.
const LARGEST: usize = 1024 * 1024;

/// The space for the first read after a large value, in bytes. Of the next value, which is likely to be large as
/// well, little is read before it gets its own buffer.
const HEAD_BLOCK: usize = BLOCK / 8;

/// The space after a large value, in bytes. It holds the head of the next response, whose length is then known. And a
/// read that does not fill its buffer shows that the socket is empty, which saves another read.
const AFTER: usize = 1024;

/// The number of buffers that a connection keeps: one in which a reader still has its value, and one for the
/// next value.
const SPARES: usize = 2;

#[derive(Debug)]
pub(super) struct ReadBuffer {
    /// Bytes that are not yet decoded, with space for the next read.
    pub(super) bytes: BytesMut,
    /// Buffers whose values have been delivered.
    spares: [BytesMut; SPARES],
}

impl ReadBuffer {
    pub(super) fn new() -> Self {
        Self { bytes: BytesMut::with_capacity(BLOCK), spares: Default::default() }
    }

    /// Keeps the buffer of a large value of `length` bytes, of which `bytes` is the rest, and moves these
    /// bytes to a new block.
    pub(super) fn keep(&mut self, length: usize) {
        let mut next = BytesMut::with_capacity(HEAD_BLOCK.max(self.bytes.len()));
        next.extend_from_slice(&self.bytes);
        let mut spare = std::mem::replace(&mut self.bytes, next);
        if length <= LARGEST {
            spare.clear();
            self.spares.rotate_right(1);
            self.spares[0] = spare;
        }
    }

    /// Makes room for the rest of a response of `needed` bytes, or for the next one if that is 0.
    pub(super) fn make_room(&mut self, needed: usize) {
        let missing = needed.saturating_sub(self.bytes.len());
        if needed >= LARGE && (self.space() >= missing || self.use_spare(needed + AFTER)) {
            return;
        }
        // The buffer at most doubles in each step, because the length is not to be trusted until the bytes
        // arrive.
        let ahead = AHEAD.max(self.bytes.len());
        let after = if needed >= LARGE { AFTER } else { 0 };
        self.bytes.reserve((missing + after).min(ahead).max(HEADER));
        // Start a new block when the old one is nearly full, so that reads do not become tiny.
        if self.space() < BLOCK / 8 && missing < BLOCK {
            self.bytes.reserve(BLOCK);
        }
    }

    fn space(&self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }

    /// Moves the bytes to a buffer that holds `length` bytes and is free again, if there is one.
    fn use_spare(&mut self, length: usize) -> bool {
        let free = self
            .spares
            .iter_mut()
            .find_map(|spare| spare.try_reclaim(length).then(|| std::mem::take(spare)));
        let Some(spare) = free else { return false };
        let begun = std::mem::replace(&mut self.bytes, spare);
        self.bytes.extend_from_slice(&begun);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a value of `length` bytes, and delivers it.
    fn deliver(length: usize, buffer: &mut ReadBuffer) -> BytesMut {
        buffer.make_room(length);
        buffer.bytes.resize(length, b'x');
        let value = buffer.bytes.split_to(length);
        buffer.keep(length);
        value
    }

    #[test]
    fn memory_is_used_again_when_the_value_is_dropped() {
        let mut buffer = ReadBuffer::new();
        let value = deliver(2 * LARGE, &mut buffer);
        let memory = value.as_ptr();
        buffer.make_room(2 * LARGE);
        assert_ne!(buffer.bytes.as_ptr(), memory, "the value is in use");
        drop(value);
        let mut buffer = ReadBuffer { bytes: BytesMut::from(&b"begun"[..]), ..buffer };
        buffer.make_room(2 * LARGE);
        assert_eq!((buffer.bytes.as_ptr(), &buffer.bytes[..]), (memory, &b"begun"[..]));
    }

    #[test]
    fn room_is_made_once_for_a_value_that_arrives_in_parts() {
        let mut buffer = ReadBuffer::new();
        drop([deliver(2 * LARGE, &mut buffer), deliver(2 * LARGE, &mut buffer)]);
        buffer.make_room(2 * LARGE);
        let memory = buffer.bytes.as_ptr();
        buffer.bytes.extend_from_slice(b"begun");
        buffer.make_room(2 * LARGE);
        assert_eq!(buffer.bytes.as_ptr(), memory);
    }

    #[test]
    fn bytes_after_the_value_are_kept() {
        let mut buffer = ReadBuffer::new();
        buffer.bytes.resize(LARGE, b'x');
        let _value = buffer.bytes.split_to(LARGE);
        buffer.bytes.extend_from_slice(b"next");
        buffer.keep(LARGE);
        assert_eq!(&buffer.bytes[..], b"next");
    }

    #[test]
    fn a_large_value_leaves_room_for_the_head_of_the_next_response() {
        let mut buffer = ReadBuffer::new();
        buffer.make_room(2 * LARGE);
        assert!(buffer.space() >= 2 * LARGE + AFTER, "a new buffer has room");
        drop(deliver(2 * LARGE, &mut buffer));
        buffer.make_room(2 * LARGE + 1);
        assert!(buffer.space() > 2 * LARGE + AFTER, "a buffer without this room is not used again");
    }

    #[test]
    fn a_longer_value_does_not_fit() {
        let mut buffer = ReadBuffer::new();
        drop(deliver(LARGE, &mut buffer));
        assert!(!buffer.use_spare(3 * LARGE));
    }

    #[test]
    fn the_memory_of_very_large_values_is_returned() {
        let mut buffer = ReadBuffer::new();
        drop(deliver(LARGEST + 1, &mut buffer));
        assert!(!buffer.use_spare(LARGE));
    }
}
