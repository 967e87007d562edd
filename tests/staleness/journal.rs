//! A record of recent events, reported for pages that are stale.

use std::{
    collections::VecDeque,
    fmt::Write,
    sync::Mutex,
    time::{Duration, Instant},
};

/// Length of the history that is reported with an incident. Stale pages less than this apart belong
/// to one incident.
const HISTORY: Duration = Duration::from_secs(5);

/// Maximum number of incidents in the report.
const MAX_INCIDENTS: usize = 10;

pub struct Journal {
    begun: Instant,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    events: VecDeque<(Instant, String)>,
    last_incident: Option<Instant>,
    incidents: usize,
    report: String,
}

impl Default for Journal {
    fn default() -> Self {
        Self { begun: Instant::now(), entries: Mutex::default() }
    }
}

impl Journal {
    pub fn record(&self, event: impl FnOnce() -> String) {
        let mut entries = self.entries.lock().unwrap();
        let now = Instant::now();
        while entries.events.front().is_some_and(|(at, _)| *at + HISTORY < now) {
            entries.events.pop_front();
        }
        entries.events.push_back((now, event()));
    }

    /// Records a stale page. The first page of an incident is reported with its history, the others
    /// without.
    pub fn record_stale_page(&self, description: &str) {
        self.record(|| format!("STALE: {description}"));
        let mut entries = self.entries.lock().unwrap();
        let now = Instant::now();
        let is_new = entries.last_incident.is_none_or(|last| last + HISTORY < now);
        entries.last_incident = Some(now);
        entries.incidents += usize::from(is_new);
        if entries.incidents > MAX_INCIDENTS {
            return;
        }
        let number = if is_new { entries.events.len() } else { 1 };
        let first = entries.events.len() - number;
        let events: Vec<_> = entries.events.range(first..).cloned().collect();
        for (at, event) in events {
            let seconds = (at - self.begun).as_secs_f64();
            writeln!(entries.report, "{seconds:.3} {event}").unwrap();
        }
    }

    pub fn report(&self) -> String {
        format!("\n{}", self.entries.lock().unwrap().report)
    }
}
