//! Leases: entries that reserve a key for the computation of its value.

use bytes::Bytes;

use super::{
    entries::{Entries, Lookup, Slot, milliseconds, now},
    frame::LeaseId,
    types::{BackendError, CasToken, FoundOrAdded, SwapOutcome},
};

/// The outcome of a lookup that reserves a free key.
#[derive(Debug)]
pub(crate) enum Reserved {
    /// The key was free, and this is the token of its lease.
    By(CasToken),
    Not(Lookup),
}

impl Entries {
    /// Reserves a key by a lease: a free key without a token, else in the state of the token.
    pub(crate) async fn reserve(
        &self,
        key: &str,
        id: LeaseId,
        token: Option<CasToken>,
    ) -> Result<SwapOutcome, BackendError> {
        let (frame, lifetime) = (self.lease(key, id), Some(self.lease_lifetime()));
        let backend = &self.shared.backend;
        let outcome = if let Some(token) = token {
            backend.swap(key, &frame, lifetime, token).await
        } else {
            let added = backend.add(key, &frame, lifetime).await;
            added.map(|token| {
                token.map_or(SwapOutcome::Changed, |token| SwapOutcome::Stored(Some(token)))
            })
        };
        self.checked(key, outcome)
    }

    /// Reads the state of a slot, or reserves its key by a lease if it is free. Counts neither a hit nor a
    /// miss.
    pub(crate) async fn look_up_or_reserve(&self, slot: Slot<'_>, id: LeaseId) -> Reserved {
        self.watch_epoch().await;
        let frame = self.lease(slot.key, id);
        let lifetime = self.lease_lifetime();
        match self
            .checked(slot.key, self.shared.backend.get_or_add(slot.key, &frame, lifetime).await)
        {
            Ok(FoundOrAdded::Found(stored)) => Reserved::Not(self.state(slot, Ok(Some(stored)))),
            Ok(FoundOrAdded::Added(Some(token))) => Reserved::By(token),
            // The state, or the token, is not known.
            Ok(FoundOrAdded::Added(None) | FoundOrAdded::Lost) => {
                Reserved::Not(self.look_up(slot).await)
            }
            Err(_) => Reserved::Not(Lookup::Failed),
        }
    }

    fn lease(&self, key: &str, id: LeaseId) -> Bytes {
        let ends_at = now().saturating_add(milliseconds(self.lease_lifetime()));
        self.shared.secret.lease(key, id, ends_at)
    }

    /// Deletes an entry or lease if it still is in the state of the token.
    pub(crate) async fn delete_if_unchanged(
        &self,
        key: &str,
        token: CasToken,
    ) -> Result<(), BackendError> {
        self.checked(key, self.shared.backend.delete_if_unchanged(key, token).await)
    }
}
