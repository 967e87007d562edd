//! How requests are divided into records of TLS.

use std::collections::VecDeque;

/// The most bytes of several requests in one record: memcached reads into a buffer of 16 KiB.
const MAX_BYTES: usize = 16 * 1024;

/// The offsets at which the bytes to write are divided, so that each record holds only whole requests, or
/// ends with the one that it holds a part of.
///
/// memcached (1.6.18 at least) waits for the socket after it has read a value, even if the rest of the same
/// record, which it has decrypted already, holds the next request. That would be answered only when more
/// bytes arrive.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// Whether the connection has TLS. Otherwise nothing is divided.
    enabled: bool,
    /// The beginning of the last record.
    start: usize,
    ends: VecDeque<usize>,
}

impl Records {
    pub(crate) fn new(enabled: bool) -> Self {
        Self { enabled, ..Self::default() }
    }

    /// Notes that the bytes from `start` to `end` are a request.
    pub(super) fn add(&mut self, start: usize, end: usize) {
        if self.enabled && end - self.start > MAX_BYTES && start > self.start {
            self.ends.push_back(start);
            self.start = start;
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
        (other.start, self.start) = (0, 0);
    }

    /// Returns how many of the next `length` bytes are to be written together. [`Records::written`] tells
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

    /// The records of requests with these lengths.
    fn records(enabled: bool, lengths: &[usize]) -> Vec<usize> {
        let (mut pushed, mut taken, mut end) = (Records::new(enabled), Records::default(), 0);
        for length in lengths {
            pushed.add(end, end + length);
            end += length;
        }
        pushed.move_to(&mut taken);
        let mut records = Vec::new();
        while end > 0 {
            records.push(taken.next(end));
            end -= taken.next(end);
            taken.written(records[records.len() - 1]);
        }
        records
    }

    #[test]
    fn requests_share_a_record_while_they_fit() {
        assert_eq!(records(true, &[1000; 16]), [16_000]);
        assert_eq!(records(true, &[1000; 20]), [16_000, 4000]);
    }

    #[test]
    fn a_large_request_shares_its_records_with_no_other() {
        assert_eq!(records(true, &[10, 50_000, 10]), [10, 50_000, 10]);
        assert_eq!(records(true, &[50_000, 50_000]), [50_000, 50_000]);
    }

    #[test]
    fn without_tls_everything_is_written_together() {
        assert_eq!(records(false, &[10, 50_000, 10]), [50_020]);
    }

    #[test]
    fn a_part_of_a_record_may_be_written() {
        let (mut pushed, mut taken) = (Records::new(true), Records::default());
        pushed.add(0, 100);
        pushed.add(100, 20_000);
        pushed.move_to(&mut taken);
        taken.written(60);
        assert_eq!(taken.next(19_940), 40);
        taken.written(40);
        assert_eq!(taken.next(19_900), 19_900);
    }
}
