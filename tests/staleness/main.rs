//! Checks that no page is stale after any fault.
//!
//! Two processes of the app share one database and two memcached servers, each behind a proxy that
//! disturbs the traffic. Writers add, complete, rename, delete and restore tasks, and readers look at
//! lists, filters and pages, while processes are killed and servers fail. A checker knows when each
//! write was acknowledged and judges every page. The wiki among the examples of `everfresh`, whose lists
//! and searches are in a group, is checked in the same way.
//!
//! A short form runs with the other tests. The long form:
//!
//! ```sh
//! cargo build --release --package everfresh --all-features --examples
//! STALENESS_FAULTS=1500 STALENESS_READS=1500000 cargo test --release --test staleness -- --nocapture
//! ```
//!
//! `STALENESS_PROTOCOL=meta` (or `text`) runs them with that protocol of memcached instead of the binary one.
//!
//! As a control, the test then runs "commit, then delete" as well: the proxies make every store
//! unconditional, which disables the leases. The checker must find stale pages there; otherwise the
//! other runs would be no proof.

#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used
)]

mod checker;
mod cluster;
mod faults;
mod journal;
mod proxy;
mod subject;
mod writer;

use std::{collections::BTreeMap, env, sync::atomic::Ordering, thread, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use self::{
    cluster::{Cluster, Mode},
    faults::{FAULTS, Fault},
};

const READERS: usize = 3;
const WRITERS: usize = 2;

/// Number of faults in the short form.
const SHORT_FAULTS: u64 = 36;
/// Number of reads in the short form.
const SHORT_READS: u64 = 7_500;
/// Number of faults in "commit, then delete".
const CONTROL_FAULTS: u64 = 24;
/// Number of reads in "commit, then delete".
const CONTROL_READS: u64 = 5_000;

/// Counts of one run.
struct Report {
    reads: u64,
    stale: u64,
    writes: u64,
    strict_writes: u64,
    faults: BTreeMap<Fault, usize>,
    /// Faults that began while a write was in flight.
    in_flight: usize,
    journal: String,
}

/// Returns the value of an environment variable, or `default` if it is absent or invalid.
fn setting(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn run(mode: Mode) -> Report {
    let faults = setting("STALENESS_FAULTS", SHORT_FAULTS);
    let reads = setting("STALENESS_READS", SHORT_READS);
    let (faults, reads) = match mode {
        // The runs with leases share the requested numbers.
        Mode::TwoServers | Mode::OneServer | Mode::Groups => (faults / 3, reads / 3),
        Mode::CommitThenDelete => (faults.min(CONTROL_FAULTS), CONTROL_READS),
    };
    let number = usize::try_from(faults).unwrap();
    let mut rng = StdRng::seed_from_u64(setting("STALENESS_SEED", 1));
    let cluster = Cluster::start(mode);
    let mut faults: Vec<_> = FAULTS.into_iter().cycle().take(number).collect();
    faults.shuffle(&mut rng);
    let (mut counts, mut in_flight) = (BTreeMap::new(), 0);
    thread::scope(|scope| {
        for reader in 0..READERS {
            let cluster = &cluster;
            scope.spawn(move || cluster.read_until_over(reader));
        }
        for writer in 0..WRITERS {
            let cluster = &cluster;
            scope.spawn(move || cluster.write_until_over(writer));
        }
        scope.spawn(|| cluster.watch_the_clock());
        for fault in faults {
            in_flight += usize::from(cluster.cause(fault, &mut rng));
            *counts.entry(fault).or_insert(0) += 1;
            // Lets pages be cached again, so that they can be stale after the next fault.
            thread::sleep(Duration::from_millis(rng.random_range(200..1000)));
        }
        while cluster.reads.load(Ordering::Relaxed) < reads {
            thread::sleep(Duration::from_millis(10));
        }
        cluster.is_over.store(true, Ordering::Relaxed);
    });
    let (writes, strict_writes) = cluster.checker.writes();
    Report {
        reads: cluster.reads.load(Ordering::Relaxed),
        stale: cluster.stale.load(Ordering::Relaxed),
        writes,
        strict_writes,
        faults: counts,
        in_flight,
        journal: cluster.journal.report(),
    }
}

fn print(title: &str, report: &Report) {
    println!(
        "{title}: {} stale of {} reads ({} per million), {} writes, {} of them visible at \
         once, {} faults, {} of them with a write in flight: {:?}",
        report.stale,
        report.reads,
        report.stale * 1_000_000 / report.reads.max(1),
        report.writes,
        report.strict_writes,
        report.faults.values().sum::<usize>(),
        report.in_flight,
        report.faults,
    );
}

#[test]
fn no_fault_makes_a_page_stale_but_commit_then_delete_does() {
    let runs = [
        ("leases and a ledger, two servers", Mode::TwoServers),
        ("leases and a ledger, one server", Mode::OneServer),
        ("groups, leases and a ledger", Mode::Groups),
    ];
    let fresh = runs.map(|(title, mode)| {
        let report = run(mode);
        print(title, &report);
        // At once: the other runs take long.
        assert_eq!(report.stale, 0, "{}", report.journal);
        report
    });
    let control = run(Mode::CommitThenDelete);
    print("commit, then delete", &control);
    for report in fresh {
        let faults = report.faults.values().sum::<usize>();
        assert!(report.in_flight * 2 >= faults, "too few faults hit a write");
        assert!(report.strict_writes * 2 >= report.writes, "most writes had a second's grace");
    }
    assert!(control.stale > 0, "the checker finds no stale page even without leases");
}
