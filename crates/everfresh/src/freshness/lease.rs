//! Computes missing values such that nothing stale is ever stored.
//!
//! Before a value is computed, its key is reserved by a lease. The value is stored only if the lease
//! is still there, untouched: a deletion of the key in between deletes the lease, and the value, which
//! may have been read before, is not kept. The rules are those of "Scaling Memcache at Facebook",
//! section 3.2.1, with the token checked by compare-and-swap.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::time::timeout;

use super::{
    beside::beside,
    flight::{Flights, JoinOutcome, Leader, Place, Role, StaleLease},
    landing::{Encoded, Landing, Lease},
};
use crate::{
    backend::{
        entries::{Entries, Lookup, Slot},
        frame::LeaseId,
        leases::Reserved,
        types::{Holder, SwapOutcome},
    },
    cache::{deletions::Deletions, events::CacheEventKind},
};

/// The pause between two lookups of an entry that another process computes.
const WAIT_STEP: Duration = Duration::from_millis(5);

/// The largest number of these pauses: 100 ms in all.
const MAX_WAIT_STEPS: u32 = 20;

/// Attempts to reserve a key that changes each time.
const MAX_ATTEMPTS: u32 = 3;

/// The computation of a value that is to be stored.
pub(super) struct Filling {
    /// Whether it has computed another value for it.
    has_computed: Cell<bool>,
    /// The key of the value, unless it is one of a batch.
    key: Option<String>,
    /// [`Deletions::now`] at its begin.
    since: u64,
    deletions: Deletions,
}

tokio::task_local! {
    static FILLING: Filling;
}

/// Returns whether the task computes a value that is to be stored. What that is made of is likely to be missing,
/// too: after a write, or in an empty cache.
pub(crate) fn is_within_computation() -> bool {
    FILLING.try_with(|_| ()).is_ok()
}

/// Returns whether the task computes a value to be stored, and has computed another value for it. A fragment of that
/// other value is missing everywhere, unless another process has just rendered it.
#[cfg_attr(not(feature = "tera"), expect(dead_code, reason = "asked by fragments"))]
pub(crate) fn is_made_of_new_value() -> bool {
    FILLING.try_with(|filling| filling.has_computed.get()).unwrap_or(false)
}

/// Returns whether the task computes a value that will not be stored, because this process has deleted its key
/// since. The values and fragments within it are not worth storing either.
pub(crate) fn is_outdated() -> bool {
    let is_outdated = |filling: &Filling| {
        let Filling { key, since, deletions, .. } = filling;
        key.as_ref().is_some_and(|key| deletions.has_deleted(key, *since))
    };
    FILLING.try_with(is_outdated).unwrap_or(false)
}

/// Runs the computation of a value that is to be stored.
pub(super) async fn within_computation<F: Future>(filling: Filling, computation: F) -> F::Output {
    let output = FILLING.scope(filling, computation).await;
    // Outside of any other computation there is nothing to note.
    let _ = FILLING.try_with(|filling| filling.has_computed.set(true));
    output
}

/// The outcome of reserving a slot.
pub(super) enum Prepared {
    /// Compute. Without a lease, the value is not stored.
    Leads(Leader, Option<Lease>),
    /// An entry was there instead.
    Found(Bytes),
}

enum LeaseAttempt {
    Acquired(Lease),
    /// An entry was there instead.
    Hit(Bytes),
    /// Another computation holds the lease.
    Taken(Holder),
    Failed,
}

/// A value that was found or has been computed.
pub(crate) enum FillOutcome<T, F> {
    /// The body of a stored value, and the computation, which was not needed.
    Cached(Bytes, F),
    Computed {
        value: T,
        /// Whether it is known to be stored: an answer does not wait for servers.
        #[cfg_attr(not(feature = "actix"), expect(dead_code, reason = "told to visitors"))]
        is_stored: bool,
    },
}

/// Fills slots of `entries`, one computation per key at a time.
#[derive(Clone, Copy)]
pub(crate) struct Filler<'a> {
    pub(crate) entries: &'a Entries,
    pub(crate) flights: &'a Flights,
    pub(crate) deletions: &'a Deletions,
}

impl Slot<'_> {
    /// The name under which equal computations are shared: key, schema and fingerprint.
    pub(super) fn flight_key(&self) -> String {
        format!("{} {:x} {:x}", self.key, self.stamp.schema, self.stamp.fingerprint)
    }
}

impl Filler<'_> {
    /// Returns the value of `slot`, given what was found there: computes it, or shares a computation
    /// that is under way. A value for which `encode` returns `None` is not stored.
    pub(crate) async fn fill<T, E, F: AsyncFnOnce() -> Result<T, E>>(
        self,
        slot: Slot<'_>,
        found: Lookup,
        encode: impl Fn(&T) -> Option<Encoded>,
        compute: F,
    ) -> Result<FillOutcome<T, F>, E> {
        let mut found = Some(found);
        let mut has_joined = false;
        let mut place: Option<Place> = None;
        loop {
            let role = match place.take() {
                Some(place) => self.flights.take(&place),
                None => self.flights.enter(&slot.flight_key()),
            };
            match role {
                Role::Leader(leader) => {
                    // After waiting for another leader, the first lookup is out of date: look up and
                    // reserve the key in one round trip.
                    let found = found.take().unwrap_or(Lookup::Unknown);
                    return self.lead(slot, leader, found, encode, compute).await;
                }
                Role::Joiner(mut joiner) => {
                    found = None;
                    self.entries.counters().count_wait();
                    let stopwatch = self.entries.stopwatch();
                    let outcome = timeout(self.entries.lease_lifetime(), joiner.outcome()).await;
                    self.entries.tell(slot.key, CacheEventKind::Wait, stopwatch.elapsed());
                    match outcome {
                        Ok(JoinOutcome::Value(body)) => {
                            return Ok(FillOutcome::Cached(body, compute));
                        }
                        // Once more: the next flight has a result for all that had a place in it.
                        Ok(JoinOutcome::NoValue) if !has_joined => has_joined = true,
                        Ok(JoinOutcome::LeaderGone) => {}
                        Ok(JoinOutcome::NoValue) | Err(_) => {
                            return self.compute_alone(slot, encode, compute).await;
                        }
                    }
                    place = joiner.into_place();
                }
            }
        }
    }

    async fn lead<T, E, F: AsyncFnOnce() -> Result<T, E>>(
        self,
        slot: Slot<'_>,
        leader: Leader,
        found: Lookup,
        encode: impl Fn(&T) -> Option<Encoded>,
        compute: F,
    ) -> Result<FillOutcome<T, F>, E> {
        let (mut leader, lease) = match self.prepare(slot, found, leader).await {
            Prepared::Leads(leader, lease) => (leader, lease),
            Prepared::Found(body) => return Ok(FillOutcome::Cached(body, compute)),
        };
        let begun = Instant::now();
        let computed = self.timed(slot.key, compute).await;
        if lease.is_some() && begun.elapsed() > self.entries.lease_lifetime() {
            self.entries.warn_of_slow(slot.key, begun.elapsed());
        }
        // No joiner may come between the computation and the store.
        leader.close();
        let encoded = computed.as_ref().ok().and_then(&encode);
        let is_stored = self.land(slot, lease, Some(leader), encoded).await;
        computed.map(|value| FillOutcome::Computed { value, is_stored })
    }

    /// Takes the lease before the input is read: a write after that deletes the lease.
    pub(super) async fn prepare(
        self,
        slot: Slot<'_>,
        found: Lookup,
        mut leader: Leader,
    ) -> Prepared {
        match self.acquire_or_wait(slot, &mut leader, found).await {
            LeaseAttempt::Acquired(lease) => {
                // From here on joiners are late: they need the result to be stored.
                leader.begin();
                Prepared::Leads(leader, Some(lease))
            }
            LeaseAttempt::Hit(body) => {
                // It may have been read before some joiners came, so it is not for them.
                leader.finish_without_result();
                Prepared::Found(body)
            }
            LeaseAttempt::Taken(_) | LeaseAttempt::Failed => {
                // Nothing will be stored, so a late joiner would wait in vain.
                leader.close();
                Prepared::Leads(leader, None)
            }
        }
    }

    /// Computes without a flight, for a joiner that may not use a shared result.
    async fn compute_alone<T, E, F: AsyncFnOnce() -> Result<T, E>>(
        self,
        slot: Slot<'_>,
        encode: impl Fn(&T) -> Option<Encoded>,
        compute: F,
    ) -> Result<FillOutcome<T, F>, E> {
        let lease = match self.acquire(slot, Lookup::Unknown, None, rand::random()).await {
            LeaseAttempt::Acquired(lease) => Some(lease),
            LeaseAttempt::Hit(body) => return Ok(FillOutcome::Cached(body, compute)),
            LeaseAttempt::Taken(_) | LeaseAttempt::Failed => None,
        };
        let computed = self.timed(slot.key, compute).await;
        let encoded = computed.as_ref().ok().and_then(&encode);
        let is_stored = self.land(slot, lease, None, encoded).await;
        computed.map(|value| FillOutcome::Computed { value, is_stored })
    }

    pub(crate) async fn timed<T, E>(
        self,
        key: &str,
        compute: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let begun = Instant::now();
        let value = within_computation(self.filling(Some(key)), compute()).await?;
        self.entries.note(key, CacheEventKind::Computed, Some(begun.elapsed()));
        Ok(value)
    }

    pub(super) fn filling(self, key: Option<&str>) -> Filling {
        let (key, deletions) = (key.map(str::to_owned), self.deletions.clone());
        Filling { has_computed: Cell::new(false), key, since: deletions.now(), deletions }
    }

    /// Acquires the lease. If another process holds it, waits for its entry, 100 ms at most and once
    /// per lease.
    async fn acquire_or_wait(
        self,
        slot: Slot<'_>,
        leader: &mut Leader,
        mut found: Lookup,
    ) -> LeaseAttempt {
        let stale_lease = leader.stale_lease();
        let mut steps = 0;
        loop {
            // The next leader must know this lease even if this task is dropped before it learns
            // that it has acquired it.
            let id = rand::random();
            leader.leave(Some(StaleLease::Abandoned(id)));
            let attempt = self.acquire(slot, found, stale_lease, id).await;
            let LeaseAttempt::Taken(other) = attempt else { return attempt };
            leader.leave(stale_lease);
            if stale_lease.is_some_and(|stale| stale.was_waited_for(other)) {
                return attempt;
            }
            if steps == MAX_WAIT_STEPS {
                // Its holder is slow or dead: later leaders do not wait for it again.
                leader.leave(Some(StaleLease::WaitedFor(other, Instant::now())));
                return attempt;
            }
            if steps == 0 {
                self.entries.note(slot.key, CacheEventKind::Wait, None);
            }
            steps += 1;
            tokio::time::sleep(WAIT_STEP).await;
            found = self.entries.look_up(slot).await;
        }
    }

    async fn acquire(
        self,
        slot: Slot<'_>,
        mut found: Lookup,
        stale_lease: Option<StaleLease>,
        id: LeaseId,
    ) -> LeaseAttempt {
        let (epoch, since) = (self.entries.epoch(), self.deletions.now());
        let acquired = |token| LeaseAttempt::Acquired(Lease { id, token, epoch, since });
        for _ in 0..MAX_ATTEMPTS {
            let token = match found {
                Lookup::Hit(body, _) => return LeaseAttempt::Hit(body),
                Lookup::Failed => return LeaseAttempt::Failed,
                // An earlier attempt succeeded, but its token was not known.
                Lookup::Leased(Holder::Named(own), Some(token)) if own == id => {
                    return acquired(token);
                }
                Lookup::Leased(other, Some(token))
                    if stale_lease
                        .is_some_and(|s| s.is_free(other, self.entries.lease_lifetime())) =>
                {
                    Some(token)
                }
                Lookup::Leased(other, _) => return LeaseAttempt::Taken(other),
                // Over bytes that are not a valid entry the token makes sure that they are still
                // the same bytes; a free key needs no token.
                Lookup::Miss(token) | Lookup::Stale(_, token) => token,
                Lookup::Unknown => match self.entries.look_up_or_reserve(slot, id).await {
                    Reserved::By(token) => return acquired(token),
                    Reserved::Not(state) => {
                        found = state;
                        continue;
                    }
                },
            };
            match self.entries.reserve(slot.key, id, token).await {
                Ok(SwapOutcome::Stored(Some(token))) => {
                    return acquired(token);
                }
                // Lost the race, or the token is not known: look again.
                Ok(_) => found = self.entries.look_up(slot).await,
                Err(_) => return LeaseAttempt::Failed,
            }
        }
        LeaseAttempt::Failed
    }

    /// Stores the value, or gives the lease up if there is none to be stored, without waiting for it. Returns
    /// whether the value is known to be stored.
    pub(super) async fn land(
        self,
        slot: Slot<'_>,
        lease: Option<Lease>,
        leader: Option<Leader>,
        encoded: Option<Encoded>,
    ) -> bool {
        beside(self.landing(slot).land(lease, leader, encoded)).await.unwrap_or(false)
    }

    pub(super) fn landing(self, slot: Slot<'_>) -> Landing {
        let (entries, deletions) = (self.entries.clone(), self.deletions.clone());
        Landing { entries, deletions, key: slot.key.to_owned(), stamp: slot.stamp }
    }
}
