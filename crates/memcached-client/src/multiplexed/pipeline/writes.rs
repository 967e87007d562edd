//! How the bytes of requests are divided into writes, and so into records of TLS.

use std::collections::VecDeque;

/// The most bytes of several requests in one record: memcached reads into a buffer of 16 KiB.
const MAX_BYTES: usize = 16 * 1024;

/// The number of operations up to which each is written by itself. The server answers the first one while
/// the next is written; written together, they would make client and server wait for each other in turns.
/// With more operations the time of the writes is longer than such a wait.
const FEW: usize = 8;

/// The offsets at which the bytes to write are divided.
///
/// Without TLS, between the operations if they are few ([`FEW`]).
///
/// With TLS, each write is a record. It holds only whole requests, or ends with the one that it holds a part
/// of: memcached (1.6.18 at least) waits for the socket after it has read a value, even if the rest of the
/// same record, which it has decrypted already, holds the next request. That would be answered only when
/// more bytes arrive.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    is_tls: bool,
    /// The beginning of the last write.
    start: usize,
    ends: VecDeque<usize>,
}

impl Writes {
    pub(crate) fn new(is_tls: bool) -> Self {
        Self { is_tls, ..Self::default() }
    }

    /// Notes that the bytes from `start` to `end` are a request.
    pub(super) fn add(&mut self, start: usize, end: usize) {
        if self.is_tls && end - self.start > MAX_BYTES && start > self.start {
            self.ends.push_back(start);
            self.start = start;
        }
    }

    /// Notes that the bytes before `end` are whole operations.
    pub(super) fn end_operation(&mut self, end: usize) {
        if !self.is_tls && self.ends.len() <= FEW && self.ends.back().copied().unwrap_or(0) != end {
            self.ends.push_back(end);
        }
    }

    pub(super) fn clear(&mut self) {
        self.start = 0;
        self.ends.clear();
    }

    /// Moves the offsets to `other`, which belongs to the bytes that are taken to be written.
    pub(super) fn move_to(&mut self, other: &mut Self) {
        other.ends.clear();
        std::mem::swap(&mut self.ends, &mut other.ends);
        if !self.is_tls && other.ends.len() > FEW {
            other.ends.clear();
        }
        (other.start, self.start) = (0, 0);
    }

    /// Returns how many of the next `length` bytes are to be written together. [`Writes::written`] tells
    /// how many have been.
    pub(crate) fn next(&self, length: usize) -> usize {
        self.ends.front().map_or(length, |end| end - self.start)
    }

    /// Reports that bytes have been written.
    pub(crate) fn written(&mut self, bytes: usize) {
        self.start += bytes;
        if self.ends.front().is_some_and(|end| *end <= self.start) {
            self.ends.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The writes of requests with these lengths.
    fn writes(is_tls: bool, lengths: &[usize]) -> Vec<usize> {
        let (mut pushed, mut taken, mut end) = (Writes::new(is_tls), Writes::default(), 0);
        for length in lengths {
            pushed.add(end, end + length);
            end += length;
            pushed.end_operation(end);
        }
        pushed.move_to(&mut taken);
        let mut writes = Vec::new();
        while end > 0 {
            writes.push(taken.next(end));
            end -= taken.next(end);
            taken.written(writes[writes.len() - 1]);
        }
        writes
    }

    #[test]
    fn requests_share_a_record_while_they_fit() {
        assert_eq!(writes(true, &[1000; 16]), [16_000]);
        assert_eq!(writes(true, &[1000; 20]), [16_000, 4000]);
    }

    #[test]
    fn a_large_request_shares_its_records_with_no_other() {
        assert_eq!(writes(true, &[10, 50_000, 10]), [10, 50_000, 10]);
        assert_eq!(writes(true, &[50_000, 50_000]), [50_000, 50_000]);
    }

    #[test]
    fn without_tls_few_operations_are_written_one_by_one_and_many_together() {
        assert_eq!(writes(false, &[10, 50_000, 10]), [10, 50_000, 10]);
        assert_eq!(writes(false, &[10; 8]), [10; 8]);
        assert_eq!(writes(false, &[10; 9]), [90]);
    }

    #[test]
    fn a_part_of_a_record_may_be_written() {
        let (mut pushed, mut taken) = (Writes::new(true), Writes::default());
        pushed.add(0, 100);
        pushed.add(100, 20_000);
        pushed.move_to(&mut taken);
        taken.written(60);
        assert_eq!(taken.next(19_940), 40);
        taken.written(40);
        assert_eq!(taken.next(19_900), 19_900);
    }
}
