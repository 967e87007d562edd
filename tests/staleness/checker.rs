//! Knows what has been acknowledged, and when a page must show it.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

/// "Within one second", where a server could not be reached or a writer was killed.
const PUT_RIGHT: Duration = Duration::from_secs(1);

/// So long after a fault of a server a process may still think that it is out.
pub const SUSPICION: Duration = Duration::from_millis(2500);

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
    last_fault: Option<Instant>,
    /// Acknowledged during a fault that is not over: put right when it is.
    waiting: Vec<(String, Write)>,
    /// Writes after which no page may be stale for any time.
    strict: u64,
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
        state.last_fault = Some(Instant::now());
        if state.faults == 0 {
            for (name, write) in std::mem::take(&mut state.waiting) {
                state.settle(&name, write, Instant::now() + PUT_RIGHT);
            }
        }
    }

    pub fn delete_begins(&self, name: &str) {
        let mut state = self.0.lock().unwrap();
        state.alive.retain(|alive| alive != name);
        state.tasks.entry(name.to_owned()).or_default().delete_begun = true;
    }

    /// A write has been answered.
    pub fn acknowledged(&self, name: &str, write: Write) {
        let mut state = self.0.lock().unwrap();
        let now = Instant::now();
        let is_suspected = state.last_fault.is_some_and(|fault| now < fault + SUSPICION);
        if state.faults > 0 {
            state.waiting.push((name.to_owned(), write));
        } else {
            state.strict += u64::from(!is_suspected);
            state.settle(name, write, if is_suspected { now + PUT_RIGHT } else { now });
        }
    }

    /// A write was not answered, and the database tells what has become of it.
    pub fn found_out(&self, name: &str, is_there: bool) {
        let mut state = self.0.lock().unwrap();
        let write = if is_there { Write::Add } else { Write::Delete };
        if is_there {
            state.tasks.entry(name.to_owned()).or_default().delete_begun = false;
        }
        if state.faults > 0 {
            state.waiting.push((name.to_owned(), write));
        } else {
            state.settle(name, write, Instant::now() + PUT_RIGHT);
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
    fn settle(&mut self, name: &str, write: Write, from: Instant) {
        let task = self.tasks.entry(name.to_owned()).or_default();
        match write {
            Write::Add if !task.delete_begun => {
                task.shown_from = Some(from);
                if !self.alive.iter().any(|alive| alive == name) {
                    self.alive.push(name.to_owned());
                }
            }
            Write::Add => {}
            Write::Delete => task.gone_from = Some(from),
        }
    }
}
