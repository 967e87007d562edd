//! Computing what is missing, such that nothing stale is ever stored.
//!
//! Before the value is computed the key is reserved by a lease. The value is stored only if the
//! lease is still there, untouched: whoever deletes the key in between deletes the lease, and the
//! value, which may have been read before, is not kept. (The rules are those of "Scaling Memcache
//! at Facebook", section 3.2.1, with the token checked by compare-and-swap.)

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::timeout;

use crate::{
    backend::frame::{Frame, LeaseId, Stamp},
    backend::{Mark, Swapped},
    cache::Cache,
    cache::stats::Event,
    freshness::flight::{Landed, Leader, Role, Spent},
};

/// How long a lease reserves its key: longer than computations should take.
pub(crate) const LIFETIME: Duration = Duration::from_secs(10);

/// A pause between two looks at an entry that somebody else computes.
const WAIT_STEP: Duration = Duration::from_millis(5);

/// How many such pauses at most.
const WAIT_STEPS: u32 = 20;

/// How often an entry is looked at that changes each time.
const TRIES: u32 = 3;

/// What is under a key.
#[derive(Debug)]
pub(crate) enum Lookup {
    Hit(Bytes, Option<Mark>),
    /// Nothing, or bytes that are not the entry, with their mark.
    Miss(Option<Mark>),
    Leased(LeaseId, Option<Mark>),
    Failed,
}

/// The right to store a value.
#[derive(Debug)]
struct Lease {
    id: LeaseId,
    mark: Mark,
}

enum Acquired {
    Lease(Lease),
    Hit(Bytes),
    /// Somebody else's.
    Taken(LeaseId),
    Failed,
}

/// A value, as it was found or as it has just been computed.
pub(crate) enum Filled<T, F> {
    /// The stored form, and the computation, which was not needed.
    Stored(Bytes, F),
    Fresh {
        value: T,
        #[cfg_attr(not(feature = "actix"), expect(dead_code, reason = "told to visitors"))]
        is_stored: bool,
    },
}

/// A value in its stored form.
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) lifetime: Option<Duration>,
    /// In bytes, for the statistics.
    pub(crate) size: usize,
}

/// What is to be filled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot<'a> {
    /// As the backend knows it.
    pub(crate) key: &'a str,
    pub(crate) stamp: Stamp,
}

impl Slot<'_> {
    /// What is computed together: the same key, of the same schema and fingerprint.
    fn flight(&self) -> String {
        format!("{} {:x} {:x}", self.key, self.stamp.schema, self.stamp.fingerprint)
    }
}

impl Cache {
    pub(crate) async fn lookup(&self, slot: Slot<'_>) -> Lookup {
        let found = match self.backend().get(slot.key, true).await {
            Ok(Some(found)) => found,
            Ok(None) => return Lookup::Miss(None),
            Err(failure) => {
                self.failed(failure);
                return Lookup::Failed;
            }
        };
        match self.secret().open(slot.key, &found.bytes) {
            Some(Frame::Entry { stamp, body }) if stamp == slot.stamp => {
                Lookup::Hit(body, found.mark)
            }
            Some(Frame::Lease(id)) => Lookup::Leased(id, found.mark),
            _ => Lookup::Miss(found.mark),
        }
    }

    /// The value of `slot`, given what was found there; computed if need be, together with all who
    /// want it at the same time. A value that `encode` gives no stored form is not kept.
    pub(crate) async fn fill<T, E, F: AsyncFnOnce() -> Result<T, E>>(
        &self,
        slot: Slot<'_>,
        found: Lookup,
        encode: impl Fn(&T) -> Option<Encoded>,
        compute: F,
    ) -> Result<Filled<T, F>, E> {
        let mut found = Some(found);
        let mut has_waited = false;
        loop {
            match self.flights().enter(&slot.flight()) {
                Role::Leader(leader) => {
                    // What was found before waiting for another leader is out of date.
                    let found = match found.take() {
                        Some(found) => found,
                        None => self.lookup(slot).await,
                    };
                    return self.lead(slot, leader, found, encode, compute).await;
                }
                Role::Joiner(joiner) => {
                    self.count(Event::Wait);
                    found = None;
                    match timeout(LIFETIME, joiner.landed()).await {
                        Ok(Landed::Value(body)) => return Ok(Filled::Stored(body, compute)),
                        // Once more together: who joins a computation before it begins can take
                        // whatever comes of it.
                        Ok(Landed::Alone) if !has_waited => has_waited = true,
                        Ok(Landed::Again) => {}
                        Ok(Landed::Alone) | Err(_) => {
                            return self.alone(slot, encode, compute).await;
                        }
                    }
                }
            }
        }
    }

    async fn lead<T, E, F: AsyncFnOnce() -> Result<T, E>>(
        &self,
        slot: Slot<'_>,
        mut leader: Leader<'_>,
        found: Lookup,
        encode: impl Fn(&T) -> Option<Encoded>,
        compute: F,
    ) -> Result<Filled<T, F>, E> {
        let lease = match self.acquire_or_wait(slot, &mut leader, found).await {
            Acquired::Lease(lease) => Some(lease),
            Acquired::Hit(body) => {
                // It was read before some who wait had joined.
                leader.found_nothing();
                return Ok(Filled::Stored(body, compute));
            }
            Acquired::Taken(_) | Acquired::Failed => None,
        };
        if lease.is_some() {
            leader.begin();
        } else {
            // Nothing will be stored: who comes from now on would wait for nothing.
            leader.close();
        }
        let computed = self.timed(compute).await;
        leader.close();
        let mut is_stored = false;
        if let Some(encoded) = computed.as_ref().ok().and_then(&encode) {
            let (stored, lease) = self.store(slot, lease, &encoded).await;
            is_stored = stored;
            leader.settle(lease);
            leader.computed(encoded.bytes.into(), stored);
        } else {
            let lease = self.release(slot, lease).await;
            leader.settle(lease);
            leader.found_nothing();
        }
        computed.map(|value| Filled::Fresh { value, is_stored })
    }

    /// For those who may not take what somebody else has computed.
    async fn alone<T, E, F: AsyncFnOnce() -> Result<T, E>>(
        &self,
        slot: Slot<'_>,
        encode: impl Fn(&T) -> Option<Encoded>,
        compute: F,
    ) -> Result<Filled<T, F>, E> {
        let found = self.lookup(slot).await;
        let lease = match self.acquire(slot, found, None, rand::random()).await {
            Acquired::Lease(lease) => Some(lease),
            Acquired::Hit(body) => return Ok(Filled::Stored(body, compute)),
            Acquired::Taken(_) | Acquired::Failed => None,
        };
        let computed = self.timed(compute).await;
        let mut is_stored = false;
        match computed.as_ref().ok().and_then(&encode) {
            Some(encoded) => (is_stored, _) = self.store(slot, lease, &encoded).await,
            None => drop(self.release(slot, lease).await),
        }
        computed.map(|value| Filled::Fresh { value, is_stored })
    }

    async fn timed<T, E>(&self, compute: impl AsyncFnOnce() -> Result<T, E>) -> Result<T, E> {
        let begun = Instant::now();
        let value = compute().await?;
        self.count(Event::Computed(begun.elapsed()));
        Ok(value)
    }

    /// Waits for whoever holds the lease, unless that has been done before.
    async fn acquire_or_wait(
        &self,
        slot: Slot<'_>,
        leader: &mut Leader<'_>,
        mut found: Lookup,
    ) -> Acquired {
        let spent = leader.spent();
        let mut steps = 0;
        loop {
            // Whoever leads next must know the lease, also if this one ends before it is told that
            // it has it.
            let id = rand::random();
            leader.leave(Some(Spent::Abandoned(id)));
            let acquired = self.acquire(slot, found, spent, id).await;
            let Acquired::Taken(other) = acquired else { return acquired };
            leader.leave(spent);
            if spent == Some(Spent::WaitedFor(other)) {
                return acquired;
            }
            if steps == WAIT_STEPS {
                leader.leave(Some(Spent::WaitedFor(other)));
                return acquired;
            }
            if steps == 0 {
                self.count(Event::Wait);
            }
            steps += 1;
            tokio::time::sleep(WAIT_STEP).await;
            found = self.lookup(slot).await;
        }
    }

    async fn acquire(
        &self,
        slot: Slot<'_>,
        mut found: Lookup,
        spent: Option<Spent>,
        id: LeaseId,
    ) -> Acquired {
        let frame = self.secret().lease(slot.key, id);
        for _ in 0..TRIES {
            let outcome = match found {
                Lookup::Hit(body, _) => return Acquired::Hit(body),
                Lookup::Failed => return Acquired::Failed,
                Lookup::Leased(own, Some(mark)) if own == id => {
                    return Acquired::Lease(Lease { id, mark });
                }
                Lookup::Leased(other, Some(mark)) if spent == Some(Spent::Abandoned(other)) => {
                    self.backend().swap(slot.key, &frame, Some(LIFETIME), mark).await
                }
                Lookup::Leased(other, _) => return Acquired::Taken(other),
                Lookup::Miss(Some(mark)) => {
                    self.backend().swap(slot.key, &frame, Some(LIFETIME), mark).await
                }
                Lookup::Miss(None) => {
                    let added = self.backend().add(slot.key, &frame, Some(LIFETIME)).await;
                    added.map(|mark| mark.map_or(Swapped::Lost, |mark| Swapped::Done(Some(mark))))
                }
            };
            match outcome {
                Ok(Swapped::Done(Some(mark))) => return Acquired::Lease(Lease { id, mark }),
                Ok(_) => found = self.lookup(slot).await,
                Err(failure) => {
                    self.failed(failure);
                    return Acquired::Failed;
                }
            }
        }
        Acquired::Failed
    }

    /// Whether the value was stored: only if nobody has touched the lease. And the lease, if it may
    /// still be there.
    async fn store(
        &self,
        slot: Slot<'_>,
        lease: Option<Lease>,
        Encoded { bytes, lifetime, size }: &Encoded,
    ) -> (bool, Option<LeaseId>) {
        let Some(lease) = lease.filter(|_| *lifetime != Some(Duration::ZERO)) else {
            self.count(Event::RefusedFill);
            return (false, None);
        };
        let frame = self.secret().entry(slot.key, slot.stamp, bytes);
        let outcome = self.backend().swap(slot.key, &frame, *lifetime, lease.mark).await;
        let stored = matches!(outcome, Ok(Swapped::Done(_)));
        self.count(if stored { Event::Fill { bytes: *size } } else { Event::RefusedFill });
        match outcome {
            Ok(_) => (stored, None),
            Err(failure) => {
                self.failed(failure);
                (false, self.release(slot, Some(lease)).await)
            }
        }
    }

    /// Lets others compute at once what this one has not. The lease, if it may still be there.
    async fn release(&self, slot: Slot<'_>, lease: Option<Lease>) -> Option<LeaseId> {
        let lease = lease?;
        let released = self.backend().delete_if_unchanged(slot.key, lease.mark).await;
        // If it fails, the lease ends by itself.
        released.inspect_err(|failure| self.failed(*failure)).err().map(|_| lease.id)
    }
}
