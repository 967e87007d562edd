//! Many values that are computed together.
//!
//! Each is looked up, reserved and stored as any other. Only the computation is shared: it is called once, for all
//! values that are missing and that no other task computes.

use std::{collections::HashSet, time::Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::timeout_at;

use super::{
    computation::within_computation,
    flight::{JoinOutcome, Joiner, Leader, Lease, Role},
    landing::Encoded,
    lease::{Filler, Prepared},
};
use crate::{
    backend::entries::{Lookup, Slot},
    cache::events::{CacheEventKind, Stopwatch},
};

/// A value of a batch.
pub(crate) enum Filled<T> {
    /// The body of a stored value.
    Cached(Bytes),
    /// The computed value; `None` if the computation has none for this key.
    Computed(Option<T>),
}

/// A value that this task computes.
struct Led {
    index: usize,
    leader: Leader,
    lease: Option<Lease>,
}

impl Filler<'_> {
    /// Returns the value of each slot, given what was found there. `compute` gets the indices of the slots that are
    /// missing, and returns a value for each, in that order, or `None`. A value for which `encode` returns `None`
    /// is not stored.
    pub(crate) async fn fill_many<T, E>(
        self,
        slots: Vec<(Slot<'_>, Lookup)>,
        encode: impl Fn(&T) -> Option<Encoded>,
        compute: impl AsyncFn(&[usize]) -> Result<Vec<Option<T>>, E>,
    ) -> Result<Vec<Filled<T>>, E> {
        let mut filled: Vec<Option<Filled<T>>> = slots.iter().map(|_| None).collect();
        let keys: Vec<_> = slots.iter().map(|(slot, _)| *slot).collect();
        let (mut leading, mut waiting) = (Vec::new(), Vec::new());
        let (mut led, mut reserved) = (Vec::new(), HashSet::new());
        for (index, (slot, found)) in slots.into_iter().enumerate() {
            match self.flights.enter(&slot.flight_key()) {
                // Two slots of one key, with different stamps: only one can be reserved.
                Role::Leader(mut leader) if !reserved.insert(slot.key.to_owned()) => {
                    leader.close();
                    led.push(Led { index, leader, lease: None });
                }
                Role::Leader(leader) => leading.push((index, slot, found, leader)),
                Role::Joiner(joiner) => {
                    self.entries.counters().count_wait();
                    waiting.push((index, self.entries.stopwatch(), joiner));
                }
            }
        }
        // All reservations travel together.
        let prepared = leading.into_iter().map(|(index, slot, found, leader)| async move {
            (index, self.prepare(slot, found, leader, None).await)
        });
        for (index, prepared) in join_all(prepared).await {
            match prepared {
                Prepared::Leads(leader, lease) => led.push(Led { index, leader, lease }),
                Prepared::Found(body) => filled[index] = Some(Filled::Cached(body)),
            }
        }
        self.compute_led(&keys, led, &mut filled, &encode, &compute).await?;
        // Only now, so that two batches never wait for each other.
        self.await_joined(&keys, waiting, &mut filled, &compute).await?;
        Ok(filled.into_iter().map(|value| value.unwrap_or(Filled::Computed(None))).collect())
    }

    async fn compute_led<T, E>(
        self,
        keys: &[Slot<'_>],
        led: Vec<Led>,
        filled: &mut [Option<Filled<T>>],
        encode: impl Fn(&T) -> Option<Encoded>,
        compute: impl AsyncFn(&[usize]) -> Result<Vec<Option<T>>, E>,
    ) -> Result<(), E> {
        if led.is_empty() {
            return Ok(());
        }
        let indices: Vec<_> = led.iter().map(|led| led.index).collect();
        let begun = Instant::now();
        let computed = self.timed_many(indices.len(), async || compute(&indices).await).await;
        let is_slow = begun.elapsed() > self.entries.lease_lifetime();
        let (mut values, failed) = match computed {
            Ok(values) => (values.into_iter(), None),
            Err(error) => (Vec::new().into_iter(), Some(error)),
        };
        for Led { index, mut leader, lease } in led {
            let slot = keys[index];
            if lease.is_some() && is_slow {
                self.entries.warn_of_slow(slot.key, begun.elapsed());
            }
            leader.close();
            let value = values.next().flatten();
            let encoded = value.as_ref().and_then(&encode);
            self.land(slot, lease, Some(leader), encoded).await;
            filled[index] = Some(Filled::Computed(value));
        }
        failed.map_or(Ok(()), Err)
    }

    /// Waits for the values that other tasks compute. Computes those that they could not give, without storing them.
    async fn await_joined<T, E>(
        self,
        keys: &[Slot<'_>],
        joined: Vec<(usize, Stopwatch, Joiner)>,
        filled: &mut [Option<Filled<T>>],
        compute: impl AsyncFn(&[usize]) -> Result<Vec<Option<T>>, E>,
    ) -> Result<(), E> {
        let mut left = Vec::new();
        let deadline = tokio::time::Instant::now() + self.entries.lease_lifetime();
        for (index, stopwatch, mut joiner) in joined {
            let outcome = timeout_at(deadline, joiner.outcome()).await;
            self.entries.tell(keys[index].key, CacheEventKind::Wait, stopwatch.elapsed());
            match outcome {
                Ok(JoinOutcome::Value(body)) => filled[index] = Some(Filled::Cached(body)),
                _ => left.push(index),
            }
        }
        if !left.is_empty() {
            let values = self.timed_many(left.len(), async || compute(&left).await).await?;
            for (index, value) in left.into_iter().zip(values) {
                filled[index] = Some(Filled::Computed(value));
            }
        }
        Ok(())
    }

    /// Like [`timed`](Self::timed), for a computation of several values.
    async fn timed_many<T, E>(
        self,
        values: usize,
        compute: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let begun = Instant::now();
        let computed = within_computation(self.filling(None), compute()).await?;
        let number = u32::try_from(values).unwrap_or(u32::MAX);
        for _ in 0..values {
            self.entries.note("", CacheEventKind::Computed, Some(begun.elapsed() / number));
        }
        Ok(computed)
    }
}
