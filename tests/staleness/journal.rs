//! What happened last, to be told if a page is stale.

use std::{
    collections::VecDeque,
    fmt::Write,
    sync::Mutex,
    time::{Duration, Instant},
};

/// So much of what came before an incident is told.
const BEFORE: Duration = Duration::from_secs(5);

/// So many incidents are told: the others are like them.
const INCIDENTS: usize = 10;

pub struct Journal {
    begun: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    events: VecDeque<(Instant, String)>,
    last_incident: Option<Instant>,
    incidents: usize,
    told: String,
}

impl Default for Journal {
    fn default() -> Self {
        Self { begun: Instant::now(), state: Mutex::default() }
    }
}

impl Journal {
    pub fn note(&self, what: impl FnOnce() -> String) {
        let mut state = self.state.lock().unwrap();
        let now = Instant::now();
        while state.events.front().is_some_and(|(at, _)| *at + BEFORE < now) {
            state.events.pop_front();
        }
        state.events.push_back((now, what()));
    }

    /// A stale page. The first of each incident is told with what came before.
    pub fn incident(&self, what: &str) {
        self.note(|| format!("STALE: {what}"));
        let mut state = self.state.lock().unwrap();
        let now = Instant::now();
        let is_new = state.last_incident.is_none_or(|last| last + BEFORE < now);
        state.last_incident = Some(now);
        state.incidents += usize::from(is_new);
        if state.incidents > INCIDENTS {
            return;
        }
        let events = if is_new { state.events.len() } else { 1 };
        let events: Vec<_> = state.events.range(state.events.len() - events..).cloned().collect();
        for (at, event) in events {
            let seconds = (at - self.begun).as_secs_f64();
            writeln!(state.told, "{seconds:.3} {event}").unwrap();
        }
    }

    pub fn of_incidents(&self) -> String {
        format!("\n{}", self.state.lock().unwrap().told)
    }
}
