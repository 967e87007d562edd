//! One computation at a time per key, over all workers of a process.
//!
//! The first task that misses a key leads and computes; others join and wait for its result. Whether
//! a joiner may use the leader's result is a question of order:
//!
//! - If the computation began after the joiner came, it has seen every write that had been answered
//!   by then.
//! - If it began before, but its result was *stored* after the joiner came, no key that makes it
//!   wrong had been deleted until then, so no such write had been answered either.
//! - Otherwise it goes with the next flight, in which it has had a place since it came: that one begins after this
//!   one, so its result is right for all that have a place. The first of them to wake leads it.
//!
//! A flight that is on its way to the store takes no joiners.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::watch;

use super::LEASE_LIFETIME;
use crate::backend::{
    entries::Slot,
    frame::LeaseId,
    types::{CasToken, Holder},
};

/// The number of entries beyond which no more leases are remembered; forgetting one only costs
/// another wait.
const MAX_REMEMBERED: usize = 1000;

/// The result of a flight.
#[derive(Clone, Debug)]
enum Outcome {
    Pending,
    Computed {
        body: Bytes,
        stored: bool,
    },
    /// The computation failed, or its result is not for joiners.
    Unusable,
}

/// The right to store a value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    pub(super) id: LeaseId,
    pub(super) token: CasToken,
    /// The epoch of the cache in which it was taken.
    pub(super) epoch: u64,
    /// [`Deletions::now`](crate::cache::deletions::Deletions::now) before it was taken.
    pub(super) since: u64,
}

impl PartialEq for Lease {
    /// Ids are random numbers.
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Lease {}

impl Lease {
    /// The right to replace a stale entry.
    pub(super) fn of_entry(token: CasToken, epoch: u64, since: u64) -> Self {
        Self { id: 0, token, epoch, since }
    }
}

/// A lease that a leader has left for the next one, which need not wait for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LeftLease {
    /// Its holder, in this process, was dropped: the next leader may take it over.
    Abandoned(LeaseId),
    /// Another process holds it, and this process has waited for it once, until then.
    WaitedFor(Holder, Instant),
    /// It was acquired for the next leader.
    Ready(Lease),
}

impl LeftLease {
    /// Returns whether the next leader may take over the lease of `holder`. If its holder is still
    /// computing, the holder's store fails, and that computation is wasted.
    pub(crate) fn is_free(self, holder: Holder, lease_lifetime: Duration) -> bool {
        match (self, holder) {
            (Self::Abandoned(id), Holder::Named(holder)) => id == holder,
            // Perhaps that of the leader in this process that is gone.
            (Self::Abandoned(_), Holder::Unnamed(_)) => true,
            // An empty entry has no end time, and another program may have stored it without a lifetime.
            (Self::WaitedFor(known, since), Holder::Unnamed(_)) => {
                known == holder && since.elapsed() >= lease_lifetime
            }
            (Self::WaitedFor(..), Holder::Named(_)) | (Self::Ready(_), _) => false,
        }
    }

    /// Returns whether this process has waited for the lease of `holder`.
    pub(crate) fn was_waited_for(self, holder: Holder) -> bool {
        matches!(self, Self::WaitedFor(known, _) if known == holder)
    }
}

#[derive(Debug)]
enum Flight {
    Running {
        begun: bool,
        outcome: watch::Receiver<Outcome>,
        /// The next flight, if a task has a place in it.
        next: Option<watch::Sender<Outcome>>,
    },
    /// Tasks have places, but none leads it yet. `lease` is for the one that will.
    Waiting {
        outcome: watch::Sender<Outcome>,
        lease: Option<LeftLease>,
    },
    Ended {
        lease: LeftLease,
        since: Instant,
    },
}

impl Slot<'_> {
    /// The name under which equal computations are shared: key, schema and fingerprint.
    pub(super) fn flight_key(&self) -> String {
        format!("{} {:x} {:x}", self.key, self.stamp.schema, self.stamp.fingerprint)
    }
}

/// The computations that are under way in this process.
/// Cloning shares them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flights(Arc<Mutex<HashMap<String, Flight>>>);

/// The part of a task that has missed a key.
pub(crate) enum Role {
    Leader(Leader),
    Joiner(Joiner),
}

impl Flights {
    fn flights(&self) -> MutexGuard<'_, HashMap<String, Flight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the flight of `key`, or starts it.
    pub(crate) fn enter(&self, key: &str) -> Role {
        let mut flights = self.flights();
        let (sender, left_lease) = match flights.remove(key) {
            Some(Flight::Running { begun, outcome, mut next }) => {
                let place = begun.then(|| {
                    let next = next.get_or_insert_with(|| watch::Sender::new(Outcome::Pending));
                    Place { flights: self.clone(), key: key.to_owned(), outcome: next.subscribe() }
                });
                let joiner = Joiner { outcome: outcome.clone(), place };
                flights.insert(key.to_owned(), Flight::Running { begun, outcome, next });
                return Role::Joiner(joiner);
            }
            Some(Flight::Waiting { outcome, lease }) => (outcome, lease),
            Some(Flight::Ended { lease, .. }) => {
                (watch::Sender::new(Outcome::Pending), Some(lease))
            }
            None => (watch::Sender::new(Outcome::Pending), None),
        };
        Role::Leader(self.lead(&mut flights, key, sender, left_lease))
    }

    /// Leads the flight in which `place` is, if none does, else joins it.
    pub(crate) fn take(&self, place: &Place) -> Role {
        let mut flights = self.flights();
        let key = place.key.as_str();
        match flights.remove(key) {
            Some(Flight::Waiting { outcome, lease }) if is_of(&outcome, place) => {
                Role::Leader(self.lead(&mut flights, key, outcome, lease))
            }
            other => {
                flights.extend(other.map(|flight| (key.to_owned(), flight)));
                Role::Joiner(Joiner { outcome: place.outcome.clone(), place: None })
            }
        }
    }

    /// Starts the flight of `key`, if there is none, no task has a place in it, and no lease has been acquired for it.
    pub(super) fn lead_if_free(&self, key: &str) -> Option<Leader> {
        let mut flights = self.flights();
        let left_lease = match flights.get(key) {
            None => None,
            Some(Flight::Ended { lease, .. }) if !matches!(lease, LeftLease::Ready(_)) => {
                Some(*lease)
            }
            Some(_) => return None,
        };
        let sender = watch::Sender::new(Outcome::Pending);
        Some(self.lead(&mut flights, key, sender, left_lease))
    }

    /// Takes back the lease that was left for the next leader. Returns whether it was still there.
    pub(super) fn withdraw(&self, key: &str, id: LeaseId) -> bool {
        let mut flights = self.flights();
        match flights.get(key) {
            Some(Flight::Ended { lease: LeftLease::Ready(lease), .. }) if lease.id == id => {
                flights.remove(key).is_some()
            }
            _ => false,
        }
    }

    fn lead(
        &self,
        flights: &mut HashMap<String, Flight>,
        key: &str,
        sender: watch::Sender<Outcome>,
        left_lease: Option<LeftLease>,
    ) -> Leader {
        let (key, outcome) = (key.to_owned(), sender.subscribe());
        flights.insert(key.clone(), Flight::Running { begun: false, outcome, next: None });
        let (ready, left_lease) = match left_lease {
            Some(LeftLease::Ready(lease)) => (Some(lease), Some(LeftLease::Abandoned(lease.id))),
            other => (None, other),
        };
        Leader { flights: self.clone(), key, sender, ready, left_lease, takes_joiners: true }
    }

    /// Ends a leader's flight, unless another leader may have replaced it, and remembers a lease for the
    /// next leader.
    fn end(&self, key: &str, takes_joiners: bool, lease: Option<LeftLease>) {
        let mut flights = self.flights();
        if takes_joiners
            && let Some(Flight::Running { next: Some(outcome), .. }) = flights.remove(key)
            && outcome.receiver_count() > 0
        {
            flights.insert(key.to_owned(), Flight::Waiting { outcome, lease: None });
        }
        if let Some(lease) = lease {
            remember(&mut flights, key, lease, Instant::now());
        }
    }
}

/// Remembers a lease for the next leader of its key, if there is room for it. One that was acquired for that leader
/// is always remembered: a computation that runs gives it up.
fn remember(flights: &mut HashMap<String, Flight>, key: &str, lease: LeftLease, now: Instant) {
    match flights.get_mut(key) {
        Some(Flight::Running { .. }) => return,
        Some(Flight::Waiting { lease: waiting, .. }) => {
            *waiting = Some(lease);
            return;
        }
        Some(Flight::Ended { .. }) | None => {}
    }
    if flights.len() >= MAX_REMEMBERED {
        flights.retain(|_, flight| match flight {
            Flight::Running { .. }
            | Flight::Waiting { .. }
            | Flight::Ended { lease: LeftLease::Ready(_), .. } => true,
            Flight::Ended { since, .. } => now.duration_since(*since) < LEASE_LIFETIME,
        });
    }
    if flights.len() < MAX_REMEMBERED || matches!(lease, LeftLease::Ready(_)) {
        flights.insert(key.to_owned(), Flight::Ended { lease, since: now });
    }
}

/// The right to compute. If it is dropped, its joiners lead or join again.
pub(crate) struct Leader {
    flights: Flights,
    key: String,
    sender: watch::Sender<Outcome>,
    /// The lease that was acquired for this leader.
    ready: Option<Lease>,
    /// A lease that the next leader must know of.
    left_lease: Option<LeftLease>,
    takes_joiners: bool,
}

impl Leader {
    /// The lease that was acquired for this leader.
    pub(super) fn ready(&self) -> Option<Lease> {
        self.ready
    }

    /// The lease that the leader before this one has left.
    pub(crate) fn left_lease(&self) -> Option<LeftLease> {
        self.left_lease
    }

    /// Sets the lease that the next leader must know of.
    pub(crate) fn leave(&mut self, lease: Option<LeftLease>) {
        self.left_lease = lease;
    }

    /// Reports what became of the leader's own lease: used or released, unless `lease` may still be
    /// there.
    pub(crate) fn settle(&mut self, lease: Option<LeaseId>) {
        if matches!(self.left_lease, Some(LeftLease::Abandoned(_))) {
            self.left_lease = lease.map(LeftLease::Abandoned);
        }
    }

    /// Reports that the computation begins now.
    pub(crate) fn begin(&self) {
        if let Some(Flight::Running { begun, .. }) = self.flights.flights().get_mut(&self.key) {
            *begun = true;
        }
    }

    /// Takes no more joiners.
    pub(crate) fn close(&mut self) {
        let takes_joiners = std::mem::take(&mut self.takes_joiners);
        self.flights.end(&self.key, takes_joiners, None);
    }

    /// Gives the result to the joiners.
    pub(crate) fn finish(self, body: Bytes, stored: bool) {
        self.end(Outcome::Computed { body, stored });
    }

    /// Sends the joiners away without a result.
    pub(crate) fn finish_without_result(self) {
        self.end(Outcome::Unusable);
    }

    fn end(mut self, outcome: Outcome) {
        self.close();
        self.sender.send_replace(outcome);
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.flights.end(&self.key, self.takes_joiners, self.left_lease);
    }
}

/// Waits for the result of a flight.
pub(crate) struct Joiner {
    outcome: watch::Receiver<Outcome>,
    /// Its place in the next flight, if it joined this one after the computation began.
    place: Option<Place>,
}

/// A place in a flight that has not begun.
pub(crate) struct Place {
    flights: Flights,
    key: String,
    outcome: watch::Receiver<Outcome>,
}

/// The result of a flight for a joiner, and how it goes on.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum JoinOutcome {
    /// Use this body.
    Value(Bytes),
    /// Take the place in the next flight, or compute by itself.
    NoValue,
    /// Lead or join again: the leader was dropped.
    LeaderGone,
}

impl Joiner {
    pub(crate) async fn outcome(&mut self) -> JoinOutcome {
        let outcome = self.outcome.wait_for(|outcome| !matches!(outcome, Outcome::Pending)).await;
        match outcome.as_deref() {
            Ok(Outcome::Computed { body, stored }) if *stored || self.place.is_none() => {
                JoinOutcome::Value(body.clone())
            }
            Ok(_) => JoinOutcome::NoValue,
            Err(_) => JoinOutcome::LeaderGone,
        }
    }

    pub(crate) fn into_place(self) -> Option<Place> {
        self.place
    }
}

/// Returns whether a place is in the flight with this outcome.
fn is_of(outcome: &watch::Sender<Outcome>, place: &Place) -> bool {
    outcome.subscribe().same_channel(&place.outcome)
}

impl Drop for Place {
    /// Removes a flight that has no leader and no other place.
    fn drop(&mut self) {
        let mut flights = self.flights.flights();
        if let Some(Flight::Waiting { outcome, lease }) = flights.get(&self.key)
            && is_of(outcome, self)
            && outcome.receiver_count() == 1
        {
            let lease = *lease;
            flights.remove(&self.key);
            if let Some(lease) = lease {
                remember(&mut flights, &self.key, lease, Instant::now());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leader(flights: &Flights, key: &str) -> Leader {
        match flights.enter(key) {
            Role::Leader(leader) => leader,
            Role::Joiner(_) => panic!("the flight has a leader already"),
        }
    }

    fn joiner(flights: &Flights, key: &str) -> Joiner {
        match flights.enter(key) {
            Role::Joiner(joiner) => joiner,
            Role::Leader(_) => panic!("the flight has no leader"),
        }
    }

    fn value() -> Bytes {
        Bytes::from_static(b"value")
    }

    #[tokio::test]
    async fn an_early_joiner_uses_the_result_stored_or_not() {
        let flights = Flights::default();
        let leader = leader(&flights, "k");
        let mut early = joiner(&flights, "k");
        leader.begin();
        leader.finish(value(), false);
        assert_eq!(early.outcome().await, JoinOutcome::Value(value()));
    }

    #[tokio::test]
    async fn a_late_joiner_uses_the_result_only_if_it_was_stored() {
        let flights = Flights::default();
        for (stored, expected) in
            [(true, JoinOutcome::Value(value())), (false, JoinOutcome::NoValue)]
        {
            let leader = leader(&flights, "k");
            leader.begin();
            let mut late = joiner(&flights, "k");
            leader.finish(value(), stored);
            assert_eq!(late.outcome().await, expected);
        }
    }

    fn place(mut joiner: Joiner) -> Place {
        assert!(!matches!(*joiner.outcome.borrow_and_update(), Outcome::Pending));
        joiner.into_place().expect("it came late")
    }

    #[tokio::test]
    async fn late_joiners_lead_and_join_the_next_flight_even_if_that_has_begun_when_they_wake() {
        let flights = Flights::default();
        let first = leader(&flights, "k");
        first.begin();
        let late = [joiner(&flights, "k"), joiner(&flights, "k")];
        first.finish(value(), false);
        let [one, other] = late.map(place);
        let Role::Leader(second) = flights.take(&one) else { panic!("nobody leads yet") };
        second.begin();
        let Role::Joiner(mut waiting) = flights.take(&other) else { panic!("one leads") };
        second.finish(value(), false);
        assert_eq!(waiting.outcome().await, JoinOutcome::Value(value()));
    }

    #[tokio::test]
    async fn a_new_request_leads_the_flight_in_which_late_joiners_have_places() {
        let flights = Flights::default();
        let mut first = leader(&flights, "k");
        first.begin();
        let late = joiner(&flights, "k");
        first.close();
        let second = leader(&flights, "k");
        second.begin();
        first.finish(value(), false);
        let Role::Joiner(mut waiting) = flights.take(&place(late)) else { panic!("one leads") };
        second.finish(value(), false);
        assert_eq!(waiting.outcome().await, JoinOutcome::Value(value()));
    }

    fn ready() -> LeftLease {
        let token = CasToken::Number(1);
        LeftLease::Ready(Lease { id: 1, token, epoch: 0, since: 0 })
    }

    #[test]
    fn a_flight_that_runs_or_in_which_a_task_has_a_place_is_not_free() {
        let flights = Flights::default();
        let first = leader(&flights, "k");
        first.begin();
        assert!(flights.lead_if_free("k").is_none());
        let late = joiner(&flights, "k");
        first.finish(value(), false);
        assert!(flights.lead_if_free("k").is_none());
        drop(late);
        assert!(flights.lead_if_free("k").is_some());
    }

    #[test]
    fn a_lease_for_the_next_leader_is_kept_whatever_is_remembered() {
        let flights = Flights::default();
        let leave = |key: &str, lease| leader(&flights, key).leave(Some(lease));
        leave("first", ready());
        for key in 0..2 * MAX_REMEMBERED {
            leave(&key.to_string(), LeftLease::Abandoned(2));
        }
        leave("last", ready());
        for key in ["first", "last"] {
            assert!(flights.lead_if_free(key).is_none());
            assert!(flights.withdraw(key, 1));
            assert!(flights.lead_if_free(key).is_some());
        }
    }

    #[test]
    fn a_flight_without_places_is_not_remembered() {
        let flights = Flights::default();
        let first = leader(&flights, "k");
        first.begin();
        let [one, other] = [joiner(&flights, "k"), joiner(&flights, "k")];
        drop(one);
        first.finish(value(), false);
        assert_eq!(flights.flights().len(), 1);
        drop(other);
        assert_eq!(flights.flights().len(), 0);
    }

    #[test]
    fn the_leader_of_a_flight_with_places_knows_the_lease_of_the_one_before() {
        let flights = Flights::default();
        let mut first = leader(&flights, "k");
        first.begin();
        let late = joiner(&flights, "k");
        first.leave(Some(LeftLease::Abandoned(7)));
        drop(first);
        let place = late.into_place().expect("it came late");
        let Role::Leader(second) = flights.take(&place) else { panic!("nobody leads yet") };
        assert_eq!(second.left_lease(), Some(LeftLease::Abandoned(7)));
    }

    #[test]
    fn a_flight_on_its_way_to_the_store_takes_no_joiners() {
        let flights = Flights::default();
        let mut first = leader(&flights, "k");
        first.begin();
        first.close();
        let second = leader(&flights, "k");
        first.finish(value(), true);
        let _joins_the_second = joiner(&flights, "k");
        drop(second);
    }

    #[tokio::test]
    async fn when_a_leader_is_dropped_the_next_one_knows_its_lease() {
        let flights = Flights::default();
        let mut first = leader(&flights, "k");
        let mut waiting = joiner(&flights, "k");
        first.leave(Some(LeftLease::Abandoned(7)));
        drop(first);
        assert_eq!(waiting.outcome().await, JoinOutcome::LeaderGone);
        assert_eq!(leader(&flights, "k").left_lease(), Some(LeftLease::Abandoned(7)));
    }

    /// Flights that remember as many leases as they can, all left at the same time.
    fn full(now: Instant) -> HashMap<String, Flight> {
        let mut flights = HashMap::new();
        for n in 0..MAX_REMEMBERED {
            remember(
                &mut flights,
                &n.to_string(),
                LeftLease::WaitedFor(Holder::Named(7), now),
                now,
            );
        }
        assert_eq!(flights.len(), MAX_REMEMBERED);
        flights
    }

    #[test]
    fn no_more_leases_are_remembered_than_the_limit() {
        let now = Instant::now();
        let mut flights = full(now);
        remember(&mut flights, "one more", LeftLease::WaitedFor(Holder::Named(7), now), now);
        assert!(!flights.contains_key("one more"));
        assert_eq!(flights.len(), MAX_REMEMBERED);
    }

    #[test]
    fn leases_that_have_ended_make_room() {
        let now = Instant::now();
        let mut flights = full(now);
        remember(
            &mut flights,
            "one more",
            LeftLease::WaitedFor(Holder::Named(7), now),
            now + LEASE_LIFETIME,
        );
        assert_eq!(flights.into_keys().collect::<Vec<_>>(), ["one more"]);
    }

    #[test]
    fn a_lease_does_not_replace_a_flight_that_is_running() {
        let flights = Flights::default();
        let mut first = leader(&flights, "k");
        first.leave(Some(LeftLease::Abandoned(7)));
        first.close();
        let _second = leader(&flights, "k");
        drop(first);
        let _joins_the_second = joiner(&flights, "k");
    }

    #[test]
    fn a_leader_that_used_its_lease_leaves_none() {
        for (left, expected) in [(None, None), (Some(8), Some(LeftLease::Abandoned(8)))] {
            let flights = Flights::default();
            let mut first = leader(&flights, "k");
            first.leave(Some(LeftLease::Abandoned(7)));
            first.settle(left);
            drop(first);
            assert_eq!(leader(&flights, "k").left_lease(), expected);
        }
    }

    #[test]
    fn a_lease_of_another_process_that_was_waited_for_stays_known() {
        let flights = Flights::default();
        let waited = LeftLease::WaitedFor(Holder::Named(7), Instant::now());
        let mut first = leader(&flights, "k");
        first.leave(Some(waited));
        first.settle(None);
        drop(first);
        assert_eq!(leader(&flights, "k").left_lease(), Some(waited));
    }

    #[test]
    fn flights_of_different_keys_are_independent() {
        let flights = Flights::default();
        let _one = leader(&flights, "one");
        let _other = leader(&flights, "other");
    }

    #[test]
    fn an_empty_lease_is_taken_over_from_a_leader_that_is_gone_or_after_its_lifetime() {
        let lifetime = Duration::from_secs(10);
        let [named, unnamed] = [Holder::Named(7), Holder::Unnamed(7)];
        for holder in [named, unnamed] {
            assert!(LeftLease::Abandoned(7).is_free(holder, lifetime));
        }
        assert!(!LeftLease::Abandoned(8).is_free(named, lifetime));
        let now = Instant::now();
        assert!(!LeftLease::WaitedFor(unnamed, now).is_free(unnamed, lifetime));
        assert!(LeftLease::WaitedFor(unnamed, now).is_free(unnamed, Duration::ZERO));
        assert!(!LeftLease::WaitedFor(unnamed, now).is_free(Holder::Unnamed(8), Duration::ZERO));
        assert!(
            !LeftLease::WaitedFor(named, now).is_free(named, Duration::ZERO),
            "it says its end"
        );
    }
}
