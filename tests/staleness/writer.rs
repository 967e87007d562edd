//! Adds, changes, deletes and restores tasks, and tells the checker from when each write must be visible.

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
    checker::Change,
    cluster::{Cluster, PROCESSES},
    subject::{Operation, Subject, Task},
};

/// Number of tasks from which on writers change one instead of adding. A page shows more.
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

    /// Changes one task, or adds one if there are few.
    pub fn write(&self, process: usize) {
        let browser = Browser::new(&self.address(process));
        let taken = self.take_task();
        let Some(task) = taken else {
            let task = Task { name: self.new_name(), completed: false };
            self.carry_out(process, &browser, &Operation::Add, task);
            return;
        };
        let operation = match (self.subject, rand::random_range(0..8)) {
            (Subject::Wiki, _) | (_, 0..3) => Operation::Delete,
            (_, 3) => Operation::Rename(self.new_name()),
            _ => Operation::Complete(!task.completed),
        };
        let is_deleted = self.carry_out(process, &browser, &operation, task.clone());
        if is_deleted && self.subject == Subject::Tasklist && rand::random_bool(0.3) {
            self.carry_out(process, &browser, &Operation::Undo, task);
        }
    }

    fn new_name(&self) -> String {
        format!("t{}", self.next_name.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes one of the tasks, for exactly one writer to change. Returns `None` if there are few.
    fn take_task(&self) -> Option<Task> {
        let mut idle = self.idle.lock().unwrap();
        if idle.len() <= rand::random_range(0..=TASKS) {
            return None;
        }
        let at = rand::random_range(0..idle.len());
        Some(idle.swap_remove(at))
    }

    /// Carries out an operation, and makes the task available again. Returns whether it was answered, and
    /// the task is gone.
    fn carry_out(
        &self,
        process: usize,
        browser: &Browser,
        operation: &Operation,
        task: Task,
    ) -> bool {
        let changes = operation.changes(&task);
        let number = self.checker.write_begins(&changes);
        let request = self.subject.write_request(self, operation, &task);
        let fields: Vec<_> =
            request.fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.writing.fetch_add(1, Ordering::SeqCst);
        self.journal.record(|| format!("process {process}: {operation:?} {task:?}"));
        let begun = SystemTime::now();
        let reply = browser.try_post_form(&request.path, &fields);
        let status = reply.map(|reply| reply.status);
        let answered = Instant::now();
        self.writing.fetch_sub(1, Ordering::SeqCst);
        // Without a success reply the database tells the outcome.
        let was_answered = status == Some(303);
        let in_database = |(fact, _): Change| (fact.clone(), self.subject.is_true(self, &fact));
        let outcome: Vec<_> =
            if was_answered { changes } else { changes.into_iter().map(in_database).collect() };
        let invalidated_at = self.invalidated_at(begun, answered);
        let grace = self.checker.write_ends(number, &outcome, invalidated_at);
        self.journal.record(|| {
            format!("process {process}: {operation:?} {}: {status:?}, {grace:?}", task.name)
        });
        let is_applied = was_answered
            || outcome
                .iter()
                .all(|(fact, value)| operation.changes(&task).contains(&(fact.clone(), *value)));
        let left = match (is_applied, operation) {
            (true, operation) => operation.result(&task),
            (false, Operation::Add | Operation::Undo) => None,
            (false, _) => Some(task),
        };
        let is_gone = left.is_none();
        self.idle.lock().unwrap().extend(left);
        is_gone && was_answered
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
