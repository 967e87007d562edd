//! Reserves the input of a computation together with its result.
//!
//! After a write, a page and the value that it is made of are missing together. The page must be reserved before that
//! value is read, but the two reservations may be made in any order, because both precede the computation. So they
//! travel in one round trip: if the first value that a computation asks for was missing, it is remembered, and reserved
//! together with the result the next time. An entry that is found there instead may have been read before the page was
//! reserved, so it is not used: the computation looks it up again.
//!
//! Both must be on one server. On two, each of two processes would often reserve one of them, and wait for the other.
//! On one server that is rare, because memcached mostly processes a batch without interruption, and short, because the
//! process that does not get the page releases the value at once.
//!
//! The reservation belongs to no task: the first one that asks for the value in this process computes it. Other processes
//! wait for it, as for any lease, so only a value is reserved that the computation asks for before it waits for anything
//! else. If no task has asked for it by the end of the computation, it is given up.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::runtime::Handle;

use super::{
    beside::beside,
    flight::{Flights, Lease},
    landing::Landing,
};
use crate::backend::entries::Slot;

/// The number of computations beyond which all are forgotten, which only costs each a round trip.
const MAX_COMPUTATIONS: usize = 1000;

/// The values that were missing together with the one that is made of them, by the key of that one: those of one cache.
/// Cloning shares them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inputs(Arc<Mutex<HashMap<String, Input>>>);

/// The value that a computation is likely to ask for first. It is in no group: the generations of groups must be read
/// before the value is reserved.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Input {
    pub(super) key: String,
    pub(super) schema: u64,
}

impl Inputs {
    fn inputs(&self) -> MutexGuard<'_, HashMap<String, Input>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether these belong to the same cache.
    pub(super) fn are_those_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(super) fn of(&self, computed: &str) -> Option<Input> {
        self.inputs().get(computed).cloned()
    }

    pub(super) fn remember(&self, computed: &str, input: Slot<'_>) {
        let input = Input { key: input.key.to_owned(), schema: input.stamp.schema };
        let mut inputs = self.inputs();
        if inputs.get(computed) == Some(&input) {
            return;
        }
        if inputs.len() >= MAX_COMPUTATIONS {
            inputs.clear();
        }
        inputs.insert(computed.to_owned(), input);
    }

    /// Forgets the input of a computation that asks for it late.
    pub(super) fn forget(&self, computed: &str) {
        self.inputs().remove(computed);
    }

    /// Forgets an input that was asked for in vain, unless the computation has asked for another one since.
    pub(super) fn forget_vain(&self, computed: &str, input: &Input) {
        let mut inputs = self.inputs();
        if inputs.get(computed) == Some(input) {
            inputs.remove(computed);
        }
    }
}

/// The state of an input when its reservation was requested.
pub(super) enum Found {
    Nothing(Reservation),
    /// Perhaps a value that is older than the reservation of the result.
    Value,
    /// A lease or another entry, no answer, or another task of this process that computes it.
    Other,
}

/// An input that was asked for when the result was reserved.
pub(super) struct Ahead {
    pub(super) input: Input,
    pub(super) found: Found,
}

impl Ahead {
    /// Releases an unused reservation at the end of the computation. Returns the input if the next computation should not
    /// reserve it ahead.
    pub(super) async fn end(self) -> Option<Input> {
        let is_in_vain = match self.found {
            Found::Nothing(reservation) => reservation.give_up().await,
            Found::Value => true,
            Found::Other => false,
        };
        is_in_vain.then_some(self.input)
    }
}

/// A lease for the first task that asks for the value.
pub(super) struct Reservation {
    flights: Flights,
    lease: Lease,
    /// The way to give the lease up.
    landing: Option<Landing>,
}

impl Reservation {
    /// Holds a lease that was left for the next leader.
    pub(super) fn new(flights: &Flights, lease: Lease, landing: Landing) -> Self {
        Self { flights: flights.clone(), lease, landing: Some(landing) }
    }

    /// Returns the way to give the lease up, if it was not used.
    fn withdraw(&mut self) -> Option<Landing> {
        let landing = self.landing.take()?;
        self.flights.withdraw(&landing.slot().flight_key(), self.lease.id).then_some(landing)
    }

    /// Gives the lease up, if it was not used. Returns whether it was not.
    async fn give_up(mut self) -> bool {
        let Some(landing) = self.withdraw() else { return false };
        // The first poll sends the request, before later requests of this task.
        beside(landing.land(Some(self.lease), None, None)).await;
        true
    }
}

impl Drop for Reservation {
    /// Gives the lease up if the computation was cancelled. Without a runtime the lease expires by itself.
    fn drop(&mut self) {
        if let Some(landing) = self.withdraw()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(landing.land(Some(self.lease), None, None));
        }
    }
}
