//! The last minutes, in steps: what the charts on `/cache` show.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use everfresh::{Cache, LayerStats};
use serde::Serialize;

/// A bar of a chart stands for so long.
const STEP: Duration = Duration::from_secs(10);

/// So many bars: ten minutes.
const STEPS: usize = 60;

/// What has happened in one step.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    hits: u64,
    misses: u64,
    requests: u64,
    micros: u64,
    slowest: u64,
}

#[derive(Debug, Default)]
struct Past {
    steps: VecDeque<Step>,
    /// Hits and misses of all layers when the current step began.
    before: (u64, u64),
    /// How many steps of the history have begun.
    begun: u64,
}

/// Counts requests, and remembers what each of the last steps has brought.
#[derive(Debug)]
pub(crate) struct History {
    start: Instant,
    requests: AtomicU64,
    micros: AtomicU64,
    slowest: AtomicU64,
    past: Mutex<Past>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            requests: AtomicU64::new(0),
            micros: AtomicU64::new(0),
            slowest: AtomicU64::new(0),
            past: Mutex::default(),
        }
    }
}

impl History {
    pub(crate) fn answered(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
        self.slowest.fetch_max(micros, Ordering::Relaxed);
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends steps as their time is over, for ever: spawn it.
    pub(crate) async fn keep(&self, cache: &Cache) {
        let mut interval = actix_web::rt::time::interval(STEP);
        loop {
            interval.tick().await;
            self.end_step(cache);
        }
    }

    fn end_step(&self, cache: &Cache) {
        let mut past = self.past();
        if past.begun > 0 {
            let step = self.current(&past, cache, true);
            past.steps.push_back(step);
            if past.steps.len() == STEPS {
                past.steps.pop_front();
            }
        }
        past.begun += 1;
        past.before = lookups(cache);
    }

    /// The step that is not over.
    fn current(&self, past: &Past, cache: &Cache, is_over: bool) -> Step {
        let (hits, misses) = lookups(cache);
        let read = |counter: &AtomicU64| {
            if is_over {
                counter.swap(0, Ordering::Relaxed)
            } else {
                counter.load(Ordering::Relaxed)
            }
        };
        Step {
            hits: hits.saturating_sub(past.before.0),
            misses: misses.saturating_sub(past.before.1),
            requests: read(&self.requests),
            micros: read(&self.micros),
            slowest: read(&self.slowest),
        }
    }

    pub(crate) fn charts(&self, cache: &Cache) -> [Chart; 2] {
        let past = self.past();
        let mut steps: Vec<_> = past.steps.iter().copied().collect();
        steps.push(self.current(&past, cache, false));
        let minutes = (self.start.elapsed().as_secs() / 60 + 1).min(10);
        [lookups_chart(&steps, minutes), times_chart(&steps, minutes)]
    }
}

/// Hits and misses of all layers since the start.
fn lookups(cache: &Cache) -> (u64, u64) {
    let add = |sum: (u64, u64), layer: &LayerStats| (sum.0 + layer.hits, sum.1 + layer.misses);
    cache.stats().values().fold((0, 0), add)
}

/// A chart of bars, each of two parts.
#[derive(Debug, Serialize)]
pub(crate) struct Chart {
    /// For the stylesheet.
    kind: &'static str,
    title: &'static str,
    /// The same in words, for those who do not see it.
    summary: String,
    /// What the parts are: at the foot, and above.
    legend: [&'static str; 2],
    /// What the full height stands for.
    top: String,
    bars: Vec<Bar>,
}

/// Where a bar stands and how high its parts are, in units of the drawing: 10 for the place of a bar,
/// and [`HEIGHT`] for the highest.
#[derive(Debug, Serialize)]
struct Bar {
    x: usize,
    foot: u64,
    above: u64,
}

const HEIGHT: u64 = 100;

/// The last bar stands at the right end. What is there at all can be seen.
fn bars(parts: &[(u64, u64)], top: u64) -> Vec<Bar> {
    let scaled = |value: u64| match value {
        0 => 0,
        value => (value.saturating_mul(HEIGHT) / top.max(1)).max(1),
    };
    let first = STEPS.saturating_sub(parts.len());
    let places = parts.iter().enumerate();
    let place = |(at, (foot, above)): (usize, &(u64, u64))| Bar {
        x: (first + at) * 10,
        foot: scaled(*foot),
        above: scaled(*above),
    };
    places.map(place).collect()
}

fn lookups_chart(steps: &[Step], minutes: u64) -> Chart {
    let parts: Vec<_> = steps.iter().map(|step| (step.hits, step.misses)).collect();
    let top = parts.iter().map(|(hits, misses)| hits + misses).max().unwrap_or(0);
    let hits: u64 = parts.iter().map(|part| part.0).sum();
    let misses: u64 = parts.iter().map(|part| part.1).sum();
    Chart {
        kind: "lookups",
        title: "Hits and misses",
        summary: format!("Last {minutes} min: {hits} hits, {misses} misses in all layers"),
        legend: ["hits", "misses"],
        top: format!("{top} in 10 s"),
        bars: bars(&parts, top),
    }
}

fn times_chart(steps: &[Step], minutes: u64) -> Chart {
    let mean = |step: &Step| step.micros.checked_div(step.requests).unwrap_or(0);
    let parts: Vec<_> =
        steps.iter().map(|s| (mean(s), s.slowest.saturating_sub(mean(s)))).collect();
    let top = steps.iter().map(|step| step.slowest).max().unwrap_or(0);
    let requests: u64 = steps.iter().map(|step| step.requests).sum();
    let micros: u64 = steps.iter().map(|step| step.micros).sum();
    let mean = in_millis(micros.checked_div(requests).unwrap_or(0));
    Chart {
        kind: "times",
        title: "Time per request",
        summary: format!(
            "Last {minutes} min: {requests} requests, {mean} each, the slowest {}",
            in_millis(top)
        ),
        legend: ["mean", "slowest"],
        top: in_millis(top),
        bars: bars(&parts, top),
    }
}

fn in_millis(micros: u64) -> String {
    format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_bar_is_at_the_right_and_the_highest_is_as_high_as_the_chart() {
        let bars = bars(&[(1, 1), (50, 150), (0, 0)], 200);
        let places: Vec<_> = bars.iter().map(|bar| (bar.x, bar.foot, bar.above)).collect();
        assert_eq!(places, [(570, 1, 1), (580, 25, 75), (590, 0, 0)]);
    }

    #[test]
    fn a_step_that_is_over_is_remembered_and_ten_minutes_are_enough() {
        let (history, cache) = (History::default(), Cache::null().build());
        history.end_step(&cache);
        for millis in 0..100 {
            history.answered(Duration::from_millis(millis));
            history.end_step(&cache);
        }
        let past = history.past();
        assert_eq!(past.steps.len(), STEPS - 1);
        assert_eq!(past.steps.back().unwrap().slowest, 99_000);
        assert_eq!(past.steps.iter().map(|step| step.requests).sum::<u64>(), 59);
    }
}
