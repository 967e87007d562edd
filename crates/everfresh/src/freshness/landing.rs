//! The end of a computation: its value is stored, or its lease given up.

use bytes::Bytes;

use super::flight::{Leader, Lease};
use crate::{
    backend::{
        entries::{Entries, Slot},
        frame::{LeaseId, Stamp},
        types::SwapOutcome,
    },
    cache::{deletions::Deletions, events::CacheEventKind, lifetime::Term},
};

/// The stored form of a value.
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) term: Term,
    /// Its size in bytes, for the statistics.
    pub(crate) size: usize,
    /// The key and bytes of a value that the entry names by a digest. They are stored together.
    pub(crate) named: Option<(String, Bytes)>,
}

/// The end of a computation, which its caller need not wait for.
pub(super) struct Landing {
    pub(super) entries: Entries,
    pub(super) deletions: Deletions,
    pub(super) key: String,
    pub(super) stamp: Stamp,
}

impl Landing {
    pub(super) fn slot(&self) -> Slot<'_> {
        Slot { key: &self.key, stamp: self.stamp }
    }

    /// Returns whether the value was stored.
    pub(super) async fn land(
        self,
        lease: Option<Lease>,
        leader: Option<Leader>,
        encoded: Option<Encoded>,
    ) -> bool {
        let Some(mut encoded) = encoded else {
            // The next computation need not wait until the lease expires.
            let lease = self.release(lease).await;
            if let Some(mut leader) = leader {
                leader.settle(lease);
                leader.finish_without_result();
            }
            return false;
        };
        let (is_stored, lease) = match lease {
            Some(lease) if self.may_store(&lease, encoded.term) => {
                self.store(lease, &mut encoded).await
            }
            lease => {
                self.entries.note(&self.key, CacheEventKind::NotKept, None);
                (false, self.release(lease).await)
            }
        };
        if let Some(mut leader) = leader {
            leader.settle(lease);
            leader.finish(encoded.bytes.into(), is_stored);
        }
        is_stored
    }

    /// Returns whether a value may be stored, as far as this process knows.
    fn may_store(&self, lease: &Lease, term: Term) -> bool {
        let is_cleared = lease.epoch != self.entries.epoch();
        !term.is_zero() && !is_cleared && !self.deletions.has_deleted(&self.key, lease.since)
    }

    /// Stores the value if the lease has not been touched. Returns whether it was stored, and the
    /// lease if it may still be there.
    async fn store(&self, lease: Lease, encoded: &mut Encoded) -> (bool, Option<LeaseId>) {
        if let Some((key, bytes)) = encoded.named.take() {
            // Both requests are sent in one round trip, the entry last: on the same server, a reader of the
            // entry finds the value. On another server a reader may miss the value, and compute it again.
            self.entries.put_named_beside(key, bytes, encoded.term.stored()).await;
        }
        let swap = self.entries.swap(self.slot(), &encoded.bytes, encoded.term, lease.token);
        let outcome = swap.await;
        let is_stored = matches!(outcome, Ok(SwapOutcome::Stored(_)));
        let stored = CacheEventKind::Fill { bytes: encoded.size };
        let kind = if is_stored { stored } else { CacheEventKind::NotKept };
        self.entries.note(&self.key, kind, None);
        match outcome {
            Ok(_) => (is_stored, None),
            Err(_) => (false, self.release(Some(lease)).await),
        }
    }

    /// Gives the lease up, so that other processes can compute at once. Returns the lease if it may
    /// still be there; it then expires by itself.
    async fn release(&self, lease: Option<Lease>) -> Option<LeaseId> {
        let lease = lease?;
        let released = self.entries.delete_if_unchanged(&self.key, lease.token).await;
        released.err().map(|_| lease.id)
    }
}
