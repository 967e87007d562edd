//! One computation at a time for each key, over all workers of a process.
//!
//! The first who misses a key leads; others join, and wait for what the leader finds. Whether a
//! joiner may take the leader's result is a question of order:
//!
//! - The computation began after it joined: then it has seen every write that had been answered
//!   when the joiner came.
//! - It began before, but its result was *stored* after the joiner had come: then nothing that
//!   makes it wrong had been deleted from the cache until then, so no such write had been answered.
//! - Otherwise not: the joiner goes on by itself.
//!
//! Nobody can join once the result is on its way to the store.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use tokio::sync::watch;

use crate::backend::frame::LeaseId;

/// With so many entries, no more leases are remembered: to wait for one again is no harm.
const REMEMBERED: usize = 1000;

/// What a leader has found.
#[derive(Clone, Debug)]
enum Outcome {
    Unknown,
    Computed {
        body: Bytes,
        stored: bool,
    },
    /// It failed, or found something that joiners had better look for themselves.
    Nothing,
}

/// A lease of which nothing is to be hoped for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Spent {
    /// Its holder in this process is gone: it may be taken over.
    Abandoned(LeaseId),
    /// Somebody else's, which has been waited for once.
    WaitedFor(LeaseId),
}

#[derive(Debug)]
enum Entry {
    Running { begun: bool, outcome: watch::Receiver<Outcome> },
    Spent { lease: Spent, since: Instant },
}

/// What is being computed in this process.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<HashMap<String, Entry>>);

/// What somebody is who has missed a key.
pub(crate) enum Role<'a> {
    Leader(Leader<'a>),
    Joiner(Joiner),
}

impl Flights {
    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn enter(&self, key: &str) -> Role<'_> {
        let mut entries = self.entries();
        let spent = match entries.get(key) {
            Some(Entry::Running { begun, outcome }) => {
                return Role::Joiner(Joiner { is_early: !begun, outcome: outcome.clone() });
            }
            Some(Entry::Spent { lease, .. }) => Some(*lease),
            None => None,
        };
        let (tell, outcome) = watch::channel(Outcome::Unknown);
        entries.insert(key.to_owned(), Entry::Running { begun: false, outcome });
        let leader = Leader { flights: self, key: key.to_owned(), tell, spent, is_open: true };
        Role::Leader(leader)
    }

    /// Removes a leader's entry, if nobody could have taken its place, and leaves word of a lease.
    fn end(&self, key: &str, is_open: bool, lease: Option<Spent>) {
        let mut entries = self.entries();
        if is_open {
            entries.remove(key);
        }
        let Some(lease) = lease else { return };
        if entries.len() >= REMEMBERED {
            let is_recent = |entry: &Entry| match entry {
                Entry::Running { .. } => true,
                Entry::Spent { since, .. } => since.elapsed() < crate::freshness::lease::LIFETIME,
            };
            entries.retain(|_, entry| is_recent(entry));
        }
        if entries.len() < REMEMBERED && !matches!(entries.get(key), Some(Entry::Running { .. })) {
            entries.insert(key.to_owned(), Entry::Spent { lease, since: Instant::now() });
        }
    }
}

/// Whoever computes. If it is dropped, joiners try again.
pub(crate) struct Leader<'a> {
    flights: &'a Flights,
    key: String,
    tell: watch::Sender<Outcome>,
    /// What the leader before this one has left.
    spent: Option<Spent>,
    is_open: bool,
}

impl Leader<'_> {
    /// The lease that was given up before, in whatever way.
    pub(crate) fn spent(&self) -> Option<Spent> {
        self.spent
    }

    /// What is to be known of a lease by whoever leads next.
    pub(crate) fn leave(&mut self, lease: Option<Spent>) {
        self.spent = lease;
    }

    /// The leader's own lease has been used or given back, unless it may still be there.
    pub(crate) fn settle(&mut self, lease: Option<LeaseId>) {
        if matches!(self.spent, Some(Spent::Abandoned(_))) {
            self.spent = lease.map(Spent::Abandoned);
        }
    }

    /// The computation begins now.
    pub(crate) fn begin(&self) {
        if let Some(Entry::Running { begun, .. }) = self.flights.entries().get_mut(&self.key) {
            *begun = true;
        }
    }

    /// Lets nobody join any more.
    pub(crate) fn close(&mut self) {
        let is_open = std::mem::take(&mut self.is_open);
        self.flights.end(&self.key, is_open, None);
    }

    /// Hands the result to those who have joined.
    pub(crate) fn computed(self, body: Bytes, stored: bool) {
        self.end(Outcome::Computed { body, stored });
    }

    /// Sends those who have joined to look for themselves.
    pub(crate) fn found_nothing(self) {
        self.end(Outcome::Nothing);
    }

    fn end(mut self, outcome: Outcome) {
        self.close();
        self.tell.send_replace(outcome);
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        self.flights.end(&self.key, self.is_open, self.spent);
    }
}

/// Whoever waits.
pub(crate) struct Joiner {
    /// The computation had not begun.
    is_early: bool,
    outcome: watch::Receiver<Outcome>,
}

/// What waiting has led to.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Landed {
    /// The value.
    Value(Bytes),
    /// None that may be taken.
    Alone,
    /// The leader is gone: lead or join again.
    Again,
}

impl Joiner {
    pub(crate) async fn landed(mut self) -> Landed {
        let outcome = self.outcome.wait_for(|outcome| !matches!(outcome, Outcome::Unknown)).await;
        match outcome.as_deref() {
            Ok(Outcome::Computed { body, stored }) if *stored || self.is_early => {
                Landed::Value(body.clone())
            }
            Ok(_) => Landed::Alone,
            Err(_) => Landed::Again,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leader<'a>(flights: &'a Flights, key: &str) -> Leader<'a> {
        match flights.enter(key) {
            Role::Leader(leader) => leader,
            Role::Joiner(_) => panic!("somebody leads already"),
        }
    }

    fn joiner(flights: &Flights, key: &str) -> Joiner {
        match flights.enter(key) {
            Role::Joiner(joiner) => joiner,
            Role::Leader(_) => panic!("nobody leads"),
        }
    }

    fn value() -> Bytes {
        Bytes::from_static(b"value")
    }

    #[tokio::test]
    async fn who_joined_before_the_computation_takes_its_result_stored_or_not() {
        let flights = Flights::default();
        let leader = leader(&flights, "k");
        let early = joiner(&flights, "k");
        leader.begin();
        leader.computed(value(), false);
        assert_eq!(early.landed().await, Landed::Value(value()));
    }

    #[tokio::test]
    async fn who_joined_during_the_computation_takes_its_result_only_if_it_was_stored() {
        let flights = Flights::default();
        for (stored, expected) in [(true, Landed::Value(value())), (false, Landed::Alone)] {
            let leader = leader(&flights, "k");
            leader.begin();
            let late = joiner(&flights, "k");
            leader.computed(value(), stored);
            assert_eq!(late.landed().await, expected);
        }
    }

    #[test]
    fn nobody_joins_a_result_that_is_on_its_way_to_the_store() {
        let flights = Flights::default();
        let mut first = leader(&flights, "k");
        first.begin();
        first.close();
        let second = leader(&flights, "k");
        first.computed(value(), true);
        let _joins_the_second = joiner(&flights, "k");
        drop(second);
    }

    #[tokio::test]
    async fn when_the_leader_goes_away_somebody_else_leads_and_knows_of_its_lease() {
        let flights = Flights::default();
        let mut first = leader(&flights, "k");
        let waiting = joiner(&flights, "k");
        first.leave(Some(Spent::Abandoned(7)));
        drop(first);
        assert_eq!(waiting.landed().await, Landed::Again);
        assert_eq!(leader(&flights, "k").spent(), Some(Spent::Abandoned(7)));
    }

    #[test]
    fn different_keys_do_not_wait_for_each_other() {
        let flights = Flights::default();
        let _one = leader(&flights, "one");
        let _other = leader(&flights, "other");
    }
}
