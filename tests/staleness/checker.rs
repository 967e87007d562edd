//! Judges pages by the acknowledged writes.

use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
    time::{Duration, Instant},
};

/// Time within which a write must be visible if a server was unreachable or the writer was killed
/// (README.md, "The promise").
const REPAIR_TIME: Duration = Duration::from_secs(1);

/// Age at which a page is judged. By then the writers have reported the writes that it must show.
pub const JUDGEMENT_DELAY: Duration = Duration::from_millis(500);

/// Time for which a deleted task is remembered. Longer than any page waits to be judged.
const DELETED_RETENTION: Duration = Duration::from_secs(30);

/// The times that decide whether a page must show a task. Tasks are identified by their names,
/// which are never reused.
#[derive(Clone, Copy, Debug, Default)]
struct Task {
    /// Pages requested from this time on must show the task.
    shown_from: Option<Instant>,
    delete_begun: Option<Instant>,
    /// Pages requested from this time on must not show the task.
    gone_from: Option<Instant>,
}

#[derive(Default)]
pub struct Checker(Mutex<Knowledge>);

#[derive(Default)]
struct Knowledge {
    tasks: HashMap<String, Task>,
    /// Existing tasks without a delete in flight.
    alive: Vec<String>,
    /// Tasks with a delete that began less than [`DELETED_RETENTION`] ago.
    deleting: VecDeque<(Instant, String)>,
    /// Number of current faults.
    faults: usize,
    /// Writes that ended during a fault, with the task's existence. They must be visible
    /// [`REPAIR_TIME`] after the fault.
    deferred: Vec<(String, bool)>,
    strict_writes: u64,
}

/// The time after its end within which a write must become visible.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Grace {
    None,
    OneSecond,
    OneSecondAfterFault,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WriteKind {
    Add,
    Delete,
}

/// A page that a reader received.
#[derive(Debug)]
pub struct PageView {
    pub process: usize,
    pub requested: Instant,
    pub received: Instant,
    pub names: Vec<String>,
}

impl Checker {
    pub fn fault_begins(&self) {
        self.0.lock().unwrap().faults += 1;
    }

    pub fn fault_ends(&self) {
        let mut knowledge = self.0.lock().unwrap();
        knowledge.faults -= 1;
        if knowledge.faults == 0 {
            for (name, exists) in std::mem::take(&mut knowledge.deferred) {
                knowledge.expect(&name, exists, Instant::now() + REPAIR_TIME);
            }
        }
    }

    pub fn delete_begins(&self, name: &str) {
        let mut knowledge = self.0.lock().unwrap();
        let now = Instant::now();
        knowledge.alive.retain(|alive| alive != name);
        knowledge.tasks.entry(name.to_owned()).or_default().delete_begun = Some(now);
        knowledge.deleting.push_back((now, name.to_owned()));
        while let Some((begun, _)) = knowledge.deleting.front() {
            if begun.elapsed() <= DELETED_RETENTION {
                break;
            }
            knowledge.deleting.pop_front();
        }
    }

    /// Records the outcome of a write, from its reply or from the database if the process died.
    ///
    /// The write must be visible from `invalidated_at`. `None` means that its invalidation is not
    /// confirmed: then it has a second, from now or from the end of the current faults.
    pub fn write_ends(&self, name: &str, exists: bool, invalidated_at: Option<Instant>) -> Grace {
        let mut knowledge = self.0.lock().unwrap();
        if exists {
            // Covers a delete that failed, too.
            knowledge.tasks.entry(name.to_owned()).or_default().delete_begun = None;
        }
        if let Some(from) = invalidated_at {
            knowledge.strict_writes += 1;
            knowledge.expect(name, exists, from);
            Grace::None
        } else if knowledge.faults > 0 {
            knowledge.deferred.push((name.to_owned(), exists));
            Grace::OneSecondAfterFault
        } else {
            knowledge.expect(name, exists, Instant::now() + REPAIR_TIME);
            Grace::OneSecond
        }
    }

    /// Removes the oldest existing task from the list and returns it, for exactly one writer to
    /// delete. Returns `None` if there are at most `keep` tasks.
    pub fn take_task_to_delete(&self, keep: usize) -> Option<String> {
        let mut knowledge = self.0.lock().unwrap();
        if knowledge.alive.len() <= keep {
            return None;
        }
        Some(knowledge.alive.remove(0))
    }

    /// Returns the number of writes with [`Grace::None`].
    pub fn strict_writes(&self) -> u64 {
        self.0.lock().unwrap().strict_writes
    }

    /// Returns why a page is stale, or `None` if it is not.
    pub fn staleness(&self, page: &PageView) -> Option<String> {
        let knowledge = self.0.lock().unwrap();
        let deleting = knowledge.deleting.iter().map(|(_, name)| name);
        for name in knowledge.alive.iter().chain(deleting) {
            let task = knowledge.tasks.get(name).copied().unwrap_or_default();
            let must_be_shown = task.shown_from.is_some_and(|from| from <= page.requested)
                && task.delete_begun.is_none_or(|begun| begun > page.received);
            if must_be_shown && !page.names.contains(name) {
                return Some(format!("{name} is missing"));
            }
        }
        for name in &page.names {
            let gone_from = knowledge.tasks.get(name).and_then(|task| task.gone_from);
            if gone_from.is_some_and(|from| from <= page.requested) {
                return Some(format!("{name} is still there"));
            }
        }
        None
    }
}

impl Knowledge {
    /// Sets the time from which pages must show a task, or must not.
    fn expect(&mut self, name: &str, exists: bool, from: Instant) {
        let task = self.tasks.entry(name.to_owned()).or_default();
        if !exists {
            task.gone_from = Some(from);
        } else if task.delete_begun.is_none() {
            task.shown_from.get_or_insert(from);
            if !self.alive.iter().any(|alive| alive == name) {
                self.alive.push(name.to_owned());
            }
        }
    }
}
