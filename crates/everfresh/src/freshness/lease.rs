//! Computes missing values such that nothing stale is ever stored.
//!
//! Before a value is computed, its key is reserved by a lease. The value is stored only if the lease
//! is still there, untouched: a deletion of the key in between deletes the lease, and the value, which
//! may have been read before, is not kept. The rules are those of "Scaling Memcache at Facebook",
//! section 3.2.1, with the token checked by compare-and-swap.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join;
use tokio::time::timeout;

use super::{
    ahead::{Ahead, Found, Input, Inputs, Reservation},
    beside::beside,
    computation::{Filling, within_computation},
    flight::{Flights, JoinOutcome, Leader, Lease, LeftLease, Place, Role},
    landing::{Encoded, Landing},
};
use crate::{
    backend::{
        entries::{Entries, Lookup, Slot},
        frame::{LeaseId, Stamp},
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

/// The outcome of reserving a slot.
#[expect(clippy::large_enum_variant, reason = "most are of the large one, and none is kept")]
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
    pub(crate) inputs: &'a Inputs,
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
        let mut ahead = None;
        let prepared = self.prepare(slot, found, leader, Some(&mut ahead)).await;
        let (mut leader, lease) = match prepared {
            Prepared::Leads(leader, lease) => (leader, lease),
            Prepared::Found(body) => return Ok(FillOutcome::Cached(body, compute)),
        };
        let begun = Instant::now();
        let computed = self.timed(slot.key, compute).await;
        if let Some(ahead) = ahead
            && let Some(input) = ahead.end().await
        {
            self.inputs.forget_vain(slot.key, &input);
        }
        if lease.is_some() && begun.elapsed() > self.entries.lease_lifetime() {
            self.entries.warn_of_slow(slot.key, begun.elapsed());
        }
        // No joiner may come between the computation and the store.
        leader.close();
        let encoded = computed.as_ref().ok().and_then(&encode);
        let is_stored = self.land(slot, lease, Some(leader), encoded).await;
        computed.map(|value| FillOutcome::Computed { value, is_stored })
    }

    /// Takes the lease before the input is read: a write after that deletes the lease. With `ahead`, the input is
    /// reserved with it, if it is likely to be missing.
    pub(super) async fn prepare(
        self,
        slot: Slot<'_>,
        found: Lookup,
        mut leader: Leader,
        ahead: Option<&mut Option<Ahead>>,
    ) -> Prepared {
        match self.acquire_or_wait(slot, &mut leader, found, ahead).await {
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
        Filling::new(key, self.deletions, self.inputs)
    }

    /// Acquires the lease. If another process holds it, waits for its entry, 100 ms at most and once
    /// per lease.
    async fn acquire_or_wait(
        self,
        slot: Slot<'_>,
        leader: &mut Leader,
        mut found: Lookup,
        mut ahead: Option<&mut Option<Ahead>>,
    ) -> LeaseAttempt {
        if let (Some(lease), Lookup::Unknown) = (leader.ready(), &found)
            && lease.epoch == self.entries.epoch()
            && !self.deletions.has_deleted(slot.key, lease.since)
        {
            return LeaseAttempt::Acquired(lease);
        }
        let left_lease = leader.left_lease();
        let mut steps = 0;
        loop {
            // The next leader must know this lease even if this task is dropped before it learns
            // that it has acquired it.
            let id = rand::random();
            leader.leave(Some(LeftLease::Abandoned(id)));
            let attempt = self.acquire_with_input(slot, found, left_lease, id, ahead.take()).await;
            let LeaseAttempt::Taken(other) = attempt else { return attempt };
            leader.leave(left_lease);
            if left_lease.is_some_and(|left| left.was_waited_for(other)) {
                return attempt;
            }
            if steps == MAX_WAIT_STEPS {
                // Its holder is slow or dead: later leaders do not wait for it again.
                leader.leave(Some(LeftLease::WaitedFor(other, Instant::now())));
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

    /// Acquires the lease and, with `ahead`, one for the value that this one is made of. That is given up if this one
    /// will not be computed now.
    async fn acquire_with_input(
        self,
        slot: Slot<'_>,
        found: Lookup,
        left_lease: Option<LeftLease>,
        id: LeaseId,
        ahead: Option<&mut Option<Ahead>>,
    ) -> LeaseAttempt {
        let is_missing = matches!(found, Lookup::Unknown | Lookup::Miss(_));
        let input = ahead.filter(|_| is_missing && self.entries.is_shared());
        let input = input.and_then(|ahead| Some((ahead, self.input_beside(slot.key)?)));
        let acquire = self.acquire(slot, found, left_lease, id);
        let Some((ahead, input)) = input else { return acquire.await };
        let both = join(acquire, self.reserve_ahead(input));
        let (attempt, reserved) = Box::pin(both).await;
        match attempt {
            LeaseAttempt::Acquired(_) | LeaseAttempt::Failed => *ahead = Some(reserved),
            LeaseAttempt::Hit(_) | LeaseAttempt::Taken(_) => _ = reserved.end().await,
        }
        attempt
    }

    /// Returns the value that the one with this key is made of, if both are on one server.
    fn input_beside(self, key: &str) -> Option<Input> {
        let input = self.inputs.of(key)?;
        self.entries.keeps_order(&[key.to_owned(), input.key.clone()]).then_some(input)
    }

    /// Reserves a value for the computation of another one, unless it is there or being computed.
    async fn reserve_ahead(self, input: Input) -> Ahead {
        let stamp = Stamp { schema: input.schema, fingerprint: 0 };
        let found = self.find_or_reserve(Slot { key: &input.key, stamp }).await;
        Ahead { input, found }
    }

    async fn find_or_reserve(self, slot: Slot<'_>) -> Found {
        let Some(mut leader) = self.flights.lead_if_free(&slot.flight_key()) else {
            return Found::Other;
        };
        let (left_lease, id) = (leader.left_lease(), rand::random());
        leader.leave(Some(LeftLease::Abandoned(id)));
        let (epoch, since) = (self.entries.epoch(), self.deletions.now());
        // Only a free key is reserved: the computation may not ask for the entry, so it must not be replaced yet.
        let found = match self.entries.look_up_or_reserve(slot, id).await {
            Reserved::By(token) => {
                let lease = Lease { id, token, epoch, since };
                leader.leave(Some(LeftLease::Ready(lease)));
                drop(leader);
                return Found::Nothing(Reservation::new(self.flights, lease, self.landing(slot)));
            }
            Reserved::Not(found) => found,
        };
        match found {
            // It may have been reserved all the same, so it stays abandoned.
            Lookup::Failed => Found::Other,
            Lookup::Leased(Holder::Named(own), _) if own == id => Found::Other,
            Lookup::Hit(..) => {
                leader.leave(left_lease);
                Found::Value
            }
            _ => {
                leader.leave(left_lease);
                Found::Other
            }
        }
    }

    async fn acquire(
        self,
        slot: Slot<'_>,
        mut found: Lookup,
        left_lease: Option<LeftLease>,
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
                    if left_lease
                        .is_some_and(|left| left.is_free(other, self.entries.lease_lifetime())) =>
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
