//! Adds and deletes tasks, and tells the checker from when each write must be visible.

use std::{
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use diesel::{dsl::sql, prelude::*, sql_types::BigInt};
use everfresh::REPLAY_AGE;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use test_support::http::Browser;

use crate::{
    checker::WriteKind,
    cluster::{Cluster, PROCESSES},
};

/// Number of tasks from which on writers delete instead of adding. A page of the wiki shows more.
const TASKS: usize = 8;

impl Cluster {
    pub fn write_until_over(&self, writer: usize) {
        let mut rng = StdRng::seed_from_u64(writer as u64);
        while !self.is_over.load(Ordering::Relaxed) {
            let gate = self.gate.read().unwrap();
            self.write(rng.random_range(0..PROCESSES));
            drop(gate);
            thread::sleep(Duration::from_millis(rng.random_range(0..30)));
        }
    }

    /// Adds a task, or deletes one if there are more than [`TASKS`].
    pub fn write(&self, process: usize) {
        let (name, kind) = if let Some(name) = self.checker.take_task_to_delete(TASKS) {
            (name, WriteKind::Delete)
        } else {
            let number = self.next_name.fetch_add(1, Ordering::Relaxed);
            (format!("t{number}"), WriteKind::Add)
        };
        let browser = Browser::new(&self.address(process));
        if kind == WriteKind::Delete {
            self.checker.delete_begins(&name);
        }
        let request = self.subject.write_request(self, kind, &name);
        let fields: Vec<_> =
            request.fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.writing.fetch_add(1, Ordering::SeqCst);
        self.journal.record(|| format!("process {process}: {kind:?} {name}"));
        let begun = SystemTime::now();
        let reply = browser.try_post_form(&request.path, &fields);
        let status = reply.map(|reply| reply.status);
        let answered = Instant::now();
        self.writing.fetch_sub(1, Ordering::SeqCst);
        // Without a success reply the database tells the outcome.
        let exists = match status {
            Some(303) => kind == WriteKind::Add,
            _ => self.subject.id(self, &name).is_some(),
        };
        let invalidated_at = self.invalidated_at(begun, answered);
        let grace = self.checker.write_ends(&name, exists, invalidated_at);
        self.journal
            .record(|| format!("process {process}: {kind:?} {name}: {status:?}, {grace:?}"));
    }

    /// Returns the time from which all cache entries invalidated by writes since `begun` are
    /// certainly deleted, or `None` if their ledger rows outlive [`REPLAY_AGE`].
    ///
    /// Before `REPLAY_AGE` only the writer itself can have removed its row, because its deletes
    /// succeeded before it answered: the time is `answered`. Later, another process may have
    /// replayed the row, and the time is when the row is seen to be removed.
    fn invalidated_at(&self, begun: SystemTime, answered: Instant) -> Option<Instant> {
        let since = begun.duration_since(UNIX_EPOCH).unwrap().as_millis();
        let until = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        // The database rounds its clock, hence the millisecond.
        let count = format!(
            "(SELECT COUNT(*) FROM cache_invalidations \
             WHERE created_at >= {since} - 1 AND created_at <= {until})"
        );
        let mut database = self.database();
        loop {
            let rows: i64 = diesel::select(sql::<BigInt>(&count)).first(&mut database).unwrap();
            // The clock is read after the rows: in the other order, a pause of this thread could
            // hide a replay.
            let may_be_replayed =
                begun.elapsed().unwrap() + Duration::from_millis(50) >= REPLAY_AGE;
            match rows {
                0 if may_be_replayed => return Some(Instant::now()),
                0 => return Some(answered),
                _ if may_be_replayed => return None,
                _ => thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}
