//! Knows what has been acknowledged, and when a page must show it.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

/// "Within one second", where a server could not be reached or a writer was killed.
const PUT_RIGHT: Duration = Duration::from_secs(1);

/// One task, by its name, which is never used again.
#[derive(Clone, Copy, Debug, Default)]
struct Task {
    /// From when on pages must show it.
    shown_from: Option<Instant>,
    delete_begun: bool,
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

/// What a page must show and must not, if it was asked for at this time.
pub struct Expected {
    at: Instant,
    shown: Vec<String>,
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
        state.alive.retain(|alive| alive != name);
        state.tasks.entry(name.to_owned()).or_default().delete_begun = true;
    }

    /// A write has been answered, or its process is dead and the database has told what has become
    /// of it. It must be seen from now on if it is certain that the cache knows.
    pub fn is_known(&self, name: &str, is_there: bool, is_certain: bool) -> Grace {
        let mut state = self.0.lock().unwrap();
        if is_there {
            // Also by a delete that has not come to pass.
            state.tasks.entry(name.to_owned()).or_default().delete_begun = false;
        }
        let now = Instant::now();
        if is_certain {
            state.strict += 1;
            state.settle(name, is_there, now);
            Grace::None
        } else if state.faults > 0 {
            state.waiting.push((name.to_owned(), is_there));
            Grace::ASecondAfterTheFault
        } else {
            state.settle(name, is_there, now + PUT_RIGHT);
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

    pub fn expected(&self) -> Expected {
        let state = self.0.lock().unwrap();
        let at = Instant::now();
        let is_shown = |name: &&String| {
            state.tasks.get(*name).and_then(|task| task.shown_from).is_some_and(|from| from <= at)
        };
        Expected { at, shown: state.alive.iter().filter(is_shown).cloned().collect() }
    }

    /// Why a page that was asked for then is stale.
    pub fn staleness(&self, expected: &Expected, page: &[&str]) -> Option<String> {
        let state = self.0.lock().unwrap();
        let missing = expected.shown.iter().find(|name| {
            !page.contains(&name.as_str())
                && state.tasks.get(*name).is_some_and(|task| !task.delete_begun)
        });
        if let Some(name) = missing {
            return Some(format!("{name} is missing"));
        }
        let ghost = page.iter().find(|name| {
            let task = state.tasks.get(**name);
            task.and_then(|task| task.gone_from).is_some_and(|from| from <= expected.at)
        });
        ghost.map(|name| format!("{name} is still there"))
    }
}

impl State {
    fn settle(&mut self, name: &str, is_there: bool, from: Instant) {
        let task = self.tasks.entry(name.to_owned()).or_default();
        if !is_there {
            task.gone_from = Some(from);
        } else if !task.delete_begun {
            task.shown_from = Some(from);
            if !self.alive.iter().any(|alive| alive == name) {
                self.alive.push(name.to_owned());
            }
        }
    }
}
