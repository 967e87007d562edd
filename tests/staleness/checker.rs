//! Knows what has been acknowledged, and when a page must show it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
    time::{Duration, Instant},
};

/// "Within one second", where a server could not be reached or a writer was killed.
const PUT_RIGHT: Duration = Duration::from_secs(1);

/// How long after it was asked for a page is judged: by then writers have found out what had to be
/// seen when.
pub const JUDGED_AFTER: Duration = Duration::from_millis(500);

/// Longer than pages wait to be judged.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// One task, by its name, which is never used again.
#[derive(Clone, Copy, Debug, Default)]
struct Task {
    /// From when on pages must show it.
    shown_from: Option<Instant>,
    delete_begun: Option<Instant>,
    /// From when on no page must show it.
    gone_from: Option<Instant>,
}

#[derive(Default)]
pub struct Checker(Mutex<State>);

#[derive(Default)]
struct State {
    tasks: HashMap<String, Task>,
    /// Those that are there and that nobody has begun to delete.
    alive: Vec<String>,
    /// Those that somebody has begun to delete not long ago.
    leaving: VecDeque<(Instant, String)>,
    faults: usize,
    /// Known during a fault that is not over, and whether it is there: put right when it is over.
    waiting: Vec<(String, bool)>,
    /// Writes after which no page may be stale for any time.
    strict: u64,
}

/// From when on a write must be seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Grace {
    None,
    ASecond,
    ASecondAfterTheFault,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Write {
    Add,
    Delete,
}

/// A page that somebody has seen.
#[derive(Debug)]
pub struct Seen {
    pub process: usize,
    pub asked: Instant,
    pub received: Instant,
    pub names: Vec<String>,
}

impl Checker {
    /// A server begins to make trouble.
    pub fn fault_begins(&self) {
        self.0.lock().unwrap().faults += 1;
    }

    pub fn fault_ends(&self) {
        let mut state = self.0.lock().unwrap();
        state.faults -= 1;
        if state.faults == 0 {
            for (name, is_there) in std::mem::take(&mut state.waiting) {
                state.settle(&name, is_there, Instant::now() + PUT_RIGHT);
            }
        }
    }

    pub fn delete_begins(&self, name: &str) {
        let mut state = self.0.lock().unwrap();
        let now = Instant::now();
        state.alive.retain(|alive| alive != name);
        state.tasks.entry(name.to_owned()).or_default().delete_begun = Some(now);
        state.leaving.push_back((now, name.to_owned()));
        while state.leaving.front().is_some_and(|(begun, _)| begun.elapsed() > FORGOTTEN_AFTER) {
            state.leaving.pop_front();
        }
    }

    /// A write has been answered, or its process is dead and the database has told what has become
    /// of it. It must be seen from when it is certain that the cache knows.
    pub fn is_known(&self, name: &str, is_there: bool, certain_from: Option<Instant>) -> Grace {
        let mut state = self.0.lock().unwrap();
        if is_there {
            // Also by a delete that has not come to pass.
            state.tasks.entry(name.to_owned()).or_default().delete_begun = None;
        }
        if let Some(from) = certain_from {
            state.strict += 1;
            state.settle(name, is_there, from);
            Grace::None
        } else if state.faults > 0 {
            state.waiting.push((name.to_owned(), is_there));
            Grace::ASecondAfterTheFault
        } else {
            state.settle(name, is_there, Instant::now() + PUT_RIGHT);
            Grace::ASecond
        }
    }

    /// A task that may be deleted, and that nobody else will.
    pub fn take_one(&self, at_least: usize) -> Option<String> {
        let mut state = self.0.lock().unwrap();
        if state.alive.len() <= at_least {
            return None;
        }
        Some(state.alive.remove(0))
    }

    /// How many writes had to be seen at once, without a second's grace.
    pub fn strict_writes(&self) -> u64 {
        self.0.lock().unwrap().strict
    }

    /// Why a page was stale.
    pub fn staleness(&self, page: &Seen) -> Option<String> {
        let state = self.0.lock().unwrap();
        let leaving = state.leaving.iter().map(|(_, name)| name);
        let must_be_shown = |name: &&String| {
            let task = state.tasks.get(*name).copied().unwrap_or_default();
            task.shown_from.is_some_and(|from| from <= page.asked)
                && task.delete_begun.is_none_or(|begun| begun > page.received)
        };
        let mut expected = state.alive.iter().chain(leaving).filter(must_be_shown);
        if let Some(name) = expected.find(|name| !page.names.contains(name)) {
            return Some(format!("{name} is missing"));
        }
        let ghost = page.names.iter().find(|name| {
            let task = state.tasks.get(*name);
            task.and_then(|task| task.gone_from).is_some_and(|from| from <= page.asked)
        });
        ghost.map(|name| format!("{name} is still there"))
    }
}

impl State {
    fn settle(&mut self, name: &str, is_there: bool, from: Instant) {
        let task = self.tasks.entry(name.to_owned()).or_default();
        if !is_there {
            task.gone_from = Some(from);
        } else if task.delete_begun.is_none() {
            task.shown_from.get_or_insert(from);
            if !self.alive.iter().any(|alive| alive == name) {
                self.alive.push(name.to_owned());
            }
        }
    }
}
