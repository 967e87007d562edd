//! Entries that have outlived their lifetime, and are served while one caller computes them again.
//!
//! Only an entry with a lifetime of its own is served stale. A write that deletes it, or forgets its group, ends it
//! as any other: then it is not served at all. The new value takes the place of the stale entry by the
//! token of that entry, so the entry itself is the lease of the computation: a deletion in between changes the
//! token, and the value, which may have been read before, is not stored.

use super::{
    beside::beside,
    flight::{Leader, Lease, Role},
    landing::Encoded,
    lease::Filler,
};
use crate::{
    backend::{
        entries::{Lookup, Slot},
        types::CasToken,
    },
    cache::lifetime::Term,
};

/// The right to compute a stale entry again, which one caller of all processes has at a time. It ends with its
/// caller in this process; other processes wait until the reservation is deleted or over.
pub(crate) struct Refresh<'a> {
    filler: Filler<'a>,
    slot: Slot<'a>,
    /// The state of the stale entry.
    token: CasToken,
    /// The epoch of the cache in which it was found.
    epoch: u64,
    /// The deletions that this process had made by then.
    since: u64,
    _leader: Leader,
    /// The key that tells other processes of it.
    reservation: String,
}

impl<'a> Filler<'a> {
    /// Computes the value of a stale entry with this token, unless another caller does, and stores it. Returns
    /// `None` if the stale entry is to be served: another caller computes, or the computation has failed.
    pub(crate) async fn refresh<T, E>(
        self,
        slot: Slot<'_>,
        token: Option<CasToken>,
        encode: impl Fn(&T) -> Option<Encoded>,
        compute: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Option<T> {
        let refresh = self.begin_refresh(slot, token).await?;
        let Ok(value) = self.timed(slot.key, compute).await else {
            refresh.fail().await;
            return None;
        };
        refresh.land(encode(&value)).await;
        Some(value)
    }

    /// Reserves the computation of a stale entry with this token; `None` if another caller has done so.
    pub(crate) async fn begin_refresh(
        self,
        slot: Slot<'a>,
        token: Option<CasToken>,
    ) -> Option<Refresh<'a>> {
        let token = match token {
            Some(token) => token,
            // A batch does not tell tokens with every protocol.
            None => match self.entries.look_up(slot).await {
                Lookup::Stale(_, Some(token)) => token,
                _ => return None,
            },
        };
        let (epoch, since) = (self.entries.epoch(), self.deletions.now());
        let Role::Leader(leader) = self.flights.enter(&format!("{} refresh", slot.key)) else {
            return None;
        };
        let reservation = format!("{}%refresh", slot.key);
        let term = Term::from(Some(self.entries.lease_lifetime()));
        let is_first = self.entries.add(Slot::unstamped(&reservation), &[], term).await;
        let refresh =
            Refresh { filler: self, slot, token, epoch, since, _leader: leader, reservation };
        is_first.unwrap_or(false).then_some(refresh)
    }
}

impl Refresh<'_> {
    /// Stores the new value in place of the stale entry, or deletes that if there is no new one.
    pub(crate) async fn land(self, encoded: Option<Encoded>) {
        let landing = self.filler.landing(self.slot);
        let lease = Some(Lease::of_entry(self.token, self.epoch, self.since));
        let (entries, reservation) = (self.filler.entries.clone(), self.reservation);
        beside(async move {
            landing.land(lease, None, encoded).await;
            entries.delete_many(&[reservation]).await;
        })
        .await;
    }

    /// Lets the next caller try again.
    pub(crate) async fn fail(self) {
        self.filler.entries.warn_of_failure(self.slot.key);
        let (entries, reservation) = (self.filler.entries.clone(), self.reservation);
        beside(async move { entries.delete_many(&[reservation]).await }).await;
    }
}
