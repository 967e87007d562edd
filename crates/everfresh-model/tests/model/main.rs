//! A model of the rules of freshness. A model checker searches every order of events.
//!
//! A page is computed from a query and, in some tests, from a fragment; the query is computed from
//! the database. Readers request the page, writers change the database and invalidate the cache,
//! and drainers repeat the invalidations that are left in the ledger.
//!
//! Their steps are interleaved in every order, with a limited number of faults in between: a delete
//! or its confirmation is lost, the cache server restarts or evicts an entry, a lease expires (at the
//! server, or by the time in its bytes), a process is killed.
//!
//! The property `fresh` must hold in every state: a reader that begins after the invalidation of a
//! write has been confirmed gets a page that contains that write or a later one.
//!
//! A second model is about time: how long a row of the ledger can be left when one process replays it for all
//! ([`takeover`]).
//!
//! Each rule can be switched off. Then the search must find a violation; otherwise the property
//! would not depend on the rule, and the other results would be no proof.

#![allow(clippy::expect_used, clippy::print_stdout, clippy::unwrap_used)]

mod system;
mod takeover;

use stateright::{Checker, Model};
use system::{Page, Rule, Server, System};
use takeover::Takeover;

/// Searches all states of a system. If there is a violation, panics with the steps that lead to it.
/// Prints how often each kind of step was taken, and panics if one of `expected` was never taken,
/// because then the search would not cover it.
fn assert_always_fresh(name: &str, system: System, expected: &[&str]) {
    let taken = system.taken.clone();
    let checker = system.checker().threads(2).spawn_dfs().join();
    checker.assert_properties();
    let taken = taken.lock().unwrap();
    println!("{name}: {} states, steps taken: {taken:?}", checker.unique_state_count());
    for step in expected {
        assert!(taken.contains_key(step), "{name}: the step {step} was never taken");
    }
}

/// Searches a system until a state violates the property `fresh`. Returns whether there is one.
fn finds_a_violation(system: System) -> bool {
    let checker = system.checker().threads(2).spawn_dfs().join();
    checker.discovery("fresh").is_some()
}

/// A system with one writer, two readers and at most this many faults.
fn with_faults(faults: u8) -> System {
    System { writers: 1, readers: 2, faults, ..System::default() }
}

/// The steps that occur without faults.
const ORDINARY: [&str; 12] = [
    "ask",
    "get page",
    "lease page",
    "get query",
    "lease query",
    "read database",
    "store query",
    "store page",
    "commit",
    "delete query",
    "delete page",
    "answer",
];

/// The faults that occur in a system with leases, a writer and a drainer.
const FAULTS: [&str; 8] = [
    "delete fails",
    "confirmation of a delete is lost",
    "server restarts",
    "entry is evicted",
    "lease expires",
    "reader is killed",
    "writer is killed",
    "drainer is killed",
];

#[test]
fn two_writers_and_two_readers_in_two_processes_are_fresh() {
    let system = System { writers: 2, readers: 2, ..System::default() };
    assert_always_fresh("two processes", system, &ORDINARY);
}

#[test]
fn two_writers_and_two_readers_in_one_process_are_fresh() {
    let system = System { writers: 2, readers: 2, one_process: true, ..System::default() };
    assert_always_fresh("one process", system, &[&ORDINARY[..], &["join", "take"]].concat());
}

#[test]
fn a_writer_and_three_readers_in_one_process_are_fresh() {
    let system = System { writers: 1, readers: 3, one_process: true, ..System::default() };
    assert_always_fresh(
        "three readers",
        system,
        &[&ORDINARY[..], &["join", "take", "go on"]].concat(),
    );
}

#[test]
fn a_writer_a_drainer_and_readers_in_two_processes_are_fresh_despite_a_fault() {
    let system = System { drainers: 1, ..with_faults(1) };
    let expected = [&ORDINARY[..], &FAULTS[..], &["drain", "drained"]].concat();
    assert_always_fresh("two processes and a fault", system, &expected);
}

#[test]
fn a_writer_a_drainer_and_readers_in_one_process_are_fresh_despite_a_fault() {
    let system = System { one_process: true, drainers: 1, ..with_faults(1) };
    let expected = [&ORDINARY[..], &FAULTS[..], &["join", "take", "drained"]].concat();
    assert_always_fresh("one process and a fault", system, &expected);
}

#[test]
fn two_writers_a_reader_and_a_drainer_are_fresh_despite_a_fault() {
    let system = System { writers: 2, readers: 1, drainers: 1, faults: 1, ..System::default() };
    assert_always_fresh("two writers and a fault", system, &FAULTS);
}

#[test]
fn a_writer_a_reader_and_two_drainers_are_fresh_despite_two_faults() {
    let system = System { readers: 1, drainers: 2, ..with_faults(2) };
    assert_always_fresh("two drainers and two faults", system, &FAULTS);
}

#[test]
fn pages_with_fragments_that_no_write_deletes_are_fresh_despite_a_fault() {
    let system = System { page: Page::WithFragment, ..with_faults(1) };
    assert_always_fresh("fragments and a fault", system, &["get fragment", "store fragment"]);
}

/// The steps that occur with a group, without faults.
const GROUPED: [&str; 4] = ["get group", "store page", "delete query", "delete group"];

#[test]
fn pages_of_a_group_are_fresh_in_two_processes() {
    let system = System { writers: 2, readers: 2, page: Page::Grouped, ..System::default() };
    assert_always_fresh("group, two processes", system, &GROUPED);
}

#[test]
fn pages_of_a_group_are_fresh_in_one_process() {
    let system = System {
        writers: 2,
        readers: 2,
        page: Page::Grouped,
        one_process: true,
        ..System::default()
    };
    assert_always_fresh("group, one process", system, &[&GROUPED[..], &["join", "take"]].concat());
}

#[test]
fn pages_of_a_group_are_fresh_despite_a_fault() {
    for one_process in [false, true] {
        let system = System { page: Page::Grouped, one_process, drainers: 1, ..with_faults(1) };
        let expected = [&GROUPED[..], &FAULTS[..], &["drain", "drained"]].concat();
        assert_always_fresh("group and a fault", system, &expected);
    }
}

/// The steps that occur with values at hand, without faults.
const AT_HAND: [&str; 3] = ["store bytes", "get bytes", "replace query"];

#[test]
fn pages_made_of_values_at_hand_are_fresh_in_two_processes() {
    let system = System { writers: 2, readers: 2, page: Page::OfValueAtHand, ..System::default() };
    assert_always_fresh("at hand, two processes", system, &AT_HAND);
}

#[test]
fn pages_made_of_values_at_hand_are_fresh_in_one_process() {
    let system = System {
        writers: 2,
        readers: 2,
        page: Page::OfValueAtHand,
        one_process: true,
        ..System::default()
    };
    assert_always_fresh("at hand, one process", system, &["use at hand"]);
}

#[test]
fn pages_made_of_values_at_hand_are_fresh_despite_a_fault() {
    let system = System { page: Page::OfValueAtHand, ..with_faults(1) };
    let expected = ["bytes are evicted", "replace query", "server restarts", "lease expires"];
    assert_always_fresh("at hand, two processes and a fault", system, &expected);
    let system =
        System { page: Page::OfValueAtHand, one_process: true, drainers: 1, ..with_faults(1) };
    assert_always_fresh("at hand, one process and a fault", system, &FAULTS);
}

/// The steps that occur if the query is reserved with the page, without faults.
const AHEAD: [&str; 2] = ["reserve ahead", "lease page after query"];

#[test]
fn a_query_may_be_reserved_ahead_of_the_page() {
    for one_process in [false, true] {
        let system =
            System { writers: 2, readers: 2, ahead: true, one_process, ..System::default() };
        assert_always_fresh("ahead", system, &AHEAD);
    }
    let system = System { ahead: true, readers: 3, ..with_faults(0) };
    assert_always_fresh("ahead, three processes", system, &[&AHEAD[..], &["give up"]].concat());
}

#[test]
fn a_query_may_be_reserved_ahead_of_the_page_despite_a_fault() {
    for one_process in [false, true] {
        let system = System { ahead: true, one_process, drainers: 1, ..with_faults(1) };
        assert_always_fresh("ahead and a fault", system, &[&AHEAD[..], &FAULTS[..]].concat());
    }
    let system = System { ahead: true, page: Page::OfValueAtHand, ..with_faults(1) };
    assert_always_fresh("ahead, at hand and a fault", system, &AHEAD);
}

#[test]
fn if_a_query_that_is_found_ahead_of_the_page_is_not_read_again_a_page_can_be_stale() {
    // The page that the first reader has stored is evicted, the second one stores a page from the query that it
    // had found before the write, and the third one gets that page.
    let without = Some(Rule::ReadAgain);
    let system = System { without, ahead: true, readers: 3, ..with_faults(1) };
    assert!(finds_a_violation(system));
}

#[test]
fn if_a_value_at_hand_is_used_without_reading_its_entry_a_page_can_be_stale() {
    let without = Some(Rule::Confirmation);
    let system = System { without, page: Page::OfValueAtHand, one_process: true, ..with_faults(0) };
    assert!(finds_a_violation(system));
}

#[test]
fn if_a_value_at_hand_is_named_by_its_key_a_page_can_be_stale() {
    let without = Some(Rule::Digest);
    assert!(finds_a_violation(System {
        without,
        page: Page::OfValueAtHand,
        readers: 3,
        ..with_faults(0)
    }));
}

#[test]
fn if_the_generation_is_read_after_the_data_a_page_can_be_stale() {
    let without = Some(Rule::GenerationFirst);
    assert!(finds_a_violation(System { without, page: Page::Grouped, ..with_faults(0) }));
}

#[test]
fn if_readers_of_different_generations_share_a_computation_a_page_can_be_stale() {
    let without = Some(Rule::SameGeneration);
    let system = System { without, page: Page::Grouped, one_process: true, ..with_faults(0) };
    assert!(finds_a_violation(system));
}

#[test]
fn without_leases_a_page_can_be_stale() {
    let system = System { without: Some(Rule::Lease), ..with_faults(0) };
    assert!(finds_a_violation(system));
}

#[test]
fn with_a_lease_that_outlives_its_connection_a_page_can_be_stale() {
    let without = Some(Rule::LeaseEndsWithConnection);
    // The third reader gets the page that the first one has stored over the second one's lease:
    // after the restart the server numbers its changes from the beginning.
    let system = System { without, readers: 3, ..with_faults(1) };
    assert!(finds_a_violation(system));
}

#[test]
fn with_tokens_that_never_recur_a_lease_may_outlive_its_connection() {
    let without = Some(Rule::LeaseEndsWithConnection);
    let system = System { without, server: Server::Redis, readers: 3, ..with_faults(1) };
    assert_always_fresh("redis, three readers and a fault", system, &["server restarts"]);
    let system =
        System { without, server: Server::Redis, writers: 2, drainers: 1, ..with_faults(1) };
    assert_always_fresh("redis, two writers and a fault", System { readers: 1, ..system }, &FAULTS);
}

#[test]
fn with_a_server_that_comes_back_with_old_entries_a_page_can_be_stale() {
    let system = System { server: Server::PersistentRedis, ..with_faults(1) };
    assert!(finds_a_violation(system));
}

#[test]
fn without_a_ledger_a_page_can_be_stale() {
    let system = System { without: Some(Rule::Ledger), ..with_faults(1) };
    assert!(finds_a_violation(system));
}

#[test]
fn if_the_page_is_deleted_before_the_query_a_page_can_be_stale() {
    // The first reader stores the query, the second one stores a page from it, and the third one
    // gets that page.
    let system = System { without: Some(Rule::InnerFirst), readers: 3, ..with_faults(0) };
    assert!(finds_a_violation(system));
}

#[test]
fn if_the_page_is_leased_after_the_query_is_read_a_page_can_be_stale() {
    let system = System { without: Some(Rule::LeaseBeforeReading), ..with_faults(0) };
    assert!(finds_a_violation(system));
}

#[test]
fn if_joiners_accept_every_result_a_page_can_be_stale() {
    let without = Some(Rule::Joiner);
    let system = System { without, one_process: true, ..with_faults(0) };
    assert!(finds_a_violation(system));
}

#[test]
fn without_fingerprints_of_fragments_a_page_can_be_stale() {
    let without = Some(Rule::Fingerprint);
    assert!(finds_a_violation(System { without, page: Page::WithFragment, ..with_faults(0) }));
}

/// Three processes of which one replays for all, with at most this many faults.
fn replays(faults: u8, bound: u8) -> Takeover {
    Takeover { processes: 3, faults, bound, is_first_cut_off: false, without: None }
}

/// Searches all states of a system for a row that is left longer than its bound.
fn assert_in_time(system: Takeover) {
    system.checker().threads(2).spawn_bfs().join().assert_properties();
}

fn finds_a_row_that_is_left(system: Takeover) -> bool {
    system.checker().threads(2).spawn_bfs().join().discovery("in time").is_some()
}

// The ages are in ticks of 50 ms.

#[test]
fn a_row_is_replayed_within_half_a_second_if_the_replaying_process_lives() {
    assert_in_time(replays(0, 9));
    assert!(finds_a_row_that_is_left(replays(0, 8)), "the bound is as low as it can be");
}

#[test]
fn a_row_is_replayed_within_a_second_if_the_replaying_process_dies_or_the_number_is_lost() {
    assert_in_time(replays(1, 19));
    assert!(finds_a_row_that_is_left(replays(1, 18)), "the bound is as low as it can be");
}

#[test]
fn a_row_is_replayed_by_a_process_that_can_reach_its_server() {
    assert_in_time(Takeover { is_first_cut_off: true, ..replays(0, 19) });
}

#[test]
fn if_a_number_never_goes_out_of_date_a_row_can_be_left() {
    let without = Some(takeover::Rule::Patience);
    assert!(finds_a_row_that_is_left(Takeover { without, ..replays(1, 30) }));
}

#[test]
fn if_a_process_adds_to_the_number_without_confirmation_a_row_can_be_left() {
    let without = Some(takeover::Rule::BeatAfterConfirmation);
    let system = Takeover { is_first_cut_off: true, without, ..replays(0, 30) };
    assert!(finds_a_row_that_is_left(system));
}

#[test]
fn if_processes_wait_for_a_number_that_they_cannot_read_a_row_can_be_left() {
    let without = Some(takeover::Rule::UnknownIsSilence);
    assert!(finds_a_row_that_is_left(Takeover { without, ..replays(1, 30) }));
}
