//! The rules of freshness as a model, searched for every order of events.
//!
//! A page is made of a query, and perhaps of a fragment; the query of the database. Writers, readers and drainers take their
//! steps in any order, and things go wrong in between: a delete fails or its answer is lost, the
//! cache server restarts or evicts, a lease expires, a process is killed. In every state it holds
//! that whoever asked after an invalidation had been confirmed sees that write, or a later one.
//!
//! Each rule can be switched off, and then the search must find a violation: otherwise the model
//! would prove nothing.

#![allow(clippy::expect_used, clippy::print_stdout, clippy::unwrap_used)]

mod system;

use stateright::{Checker, Model};
use system::{Rule, System};

/// Searches all of it; panics with the steps that lead to a violation. Prints how often each kind
/// of step was taken, and panics if one of `expected` never was.
fn is_always_fresh(name: &str, system: System, expected: &[&str]) {
    let taken = system.taken.clone();
    let checker = system.checker().threads(2).spawn_dfs().join();
    checker.assert_properties();
    let taken = taken.lock().unwrap();
    println!("{name}: {} states, steps taken: {taken:?}", checker.unique_state_count());
    for step in expected {
        assert!(taken.contains_key(step), "{name}: the step {step} was never taken");
    }
}

fn finds_a_violation(system: System) -> bool {
    let checker = system.checker().threads(2).spawn_dfs().join();
    checker.discovery("fresh").is_some()
}

/// A writer and two readers, and so many things that go wrong.
fn with_faults(faults: u8) -> System {
    System { writers: 1, readers: 2, faults, ..System::default() }
}

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

const FAULTS: [&str; 8] = [
    "delete fails",
    "delete is confirmed to nobody",
    "server restarts",
    "entry is evicted",
    "lease expires",
    "reader is killed",
    "writer is killed",
    "drainer is killed",
];

#[test]
fn two_writers_and_two_readers_in_two_processes_without_faults() {
    let system = System { writers: 2, readers: 2, ..System::default() };
    is_always_fresh("two processes", system, &ORDINARY);
}

#[test]
fn two_writers_and_two_readers_in_one_process_without_faults() {
    let system = System { writers: 2, readers: 2, one_process: true, ..System::default() };
    is_always_fresh("one process", system, &[&ORDINARY[..], &["join", "take"]].concat());
}

#[test]
fn a_writer_two_readers_in_two_processes_and_a_drainer_with_a_fault() {
    let system = System { drainers: 1, ..with_faults(1) };
    let expected = [&ORDINARY[..], &FAULTS[..], &["drain", "drained"]].concat();
    is_always_fresh("two processes and a fault", system, &expected);
}

#[test]
fn a_writer_two_readers_in_one_process_and_a_drainer_with_a_fault() {
    let system = System { one_process: true, drainers: 1, ..with_faults(1) };
    let expected = [&ORDINARY[..], &FAULTS[..], &["join", "take", "drained"]].concat();
    is_always_fresh("one process and a fault", system, &expected);
}

#[test]
fn two_writers_a_reader_and_a_drainer_with_a_fault() {
    let system = System { writers: 2, readers: 1, drainers: 1, faults: 1, ..System::default() };
    is_always_fresh("two writers and a fault", system, &FAULTS);
}

#[test]
fn a_writer_a_reader_and_two_drainers_with_two_faults() {
    let system = System { readers: 1, drainers: 2, ..with_faults(2) };
    is_always_fresh("two drainers and two faults", system, &FAULTS);
}

#[test]
fn pages_made_of_fragments_that_no_write_deletes() {
    let system = System { fragments: true, ..with_faults(1) };
    is_always_fresh("fragments and a fault", system, &["get fragment", "store fragment"]);
}

#[test]
fn without_leases_something_stale_is_found() {
    let system = System { without: Some(Rule::Lease), ..with_faults(0) };
    assert!(finds_a_violation(system));
}

#[test]
fn with_a_lease_that_outlives_its_connection_something_stale_is_found() {
    let without = Some(Rule::LeaseEndsWithConnection);
    // The third sees what the first has stored over the second's lease.
    let system = System { without, readers: 3, ..with_faults(1) };
    assert!(finds_a_violation(system));
}

#[test]
fn without_a_ledger_something_stale_is_found() {
    let system = System { without: Some(Rule::Ledger), ..with_faults(1) };
    assert!(finds_a_violation(system));
}

#[test]
fn with_the_page_deleted_before_the_query_something_stale_is_found() {
    // The first fills the query, the second the page, and the third sees it.
    let system = System { without: Some(Rule::InnerFirst), readers: 3, ..with_faults(0) };
    assert!(finds_a_violation(system));
}

#[test]
fn with_the_page_leased_after_the_query_was_read_something_stale_is_found() {
    let system = System { without: Some(Rule::LeaseBeforeReading), ..with_faults(0) };
    assert!(finds_a_violation(system));
}

#[test]
fn with_joiners_that_take_whatever_was_computed_something_stale_is_found() {
    let without = Some(Rule::Joiner);
    let system = System { without, one_process: true, ..with_faults(0) };
    assert!(finds_a_violation(system));
}

#[test]
fn with_fragments_that_serve_whatever_they_are_asked_for_something_stale_is_found() {
    let without = Some(Rule::Fingerprint);
    assert!(finds_a_violation(System { without, fragments: true, ..with_faults(0) }));
}
