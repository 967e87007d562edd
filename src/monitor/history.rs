//! The last ten minutes, in steps, for the charts on `/cache`.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use actix_web::{rt, web::Data};
use everfresh::{Cache, LayerStats};
use serde::Serialize;

use super::{
    format::{grouped, in_words},
    metrics::{Metrics, RequestTotals, micros},
};

/// The statistics of each layer.
type Stats = BTreeMap<&'static str, LayerStats>;

/// The time that one bar of a chart stands for.
const STEP: Duration = Duration::from_secs(10);

/// The number of bars: ten minutes.
const STEPS: usize = 60;

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    hits: u64,
    misses: u64,
    requests: RequestTotals,
}

impl Totals {
    fn now(cache: &Cache, metrics: &Metrics) -> Self {
        let (hits, misses) = lookups(cache);
        Self { hits, misses, requests: metrics.totals() }
    }
}

/// The counts of one step.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    hits: u64,
    misses: u64,
    requests: u64,
    seconds: f64,
    slowest: Duration,
}

impl Step {
    fn between(before: Totals, now: Totals, slowest: Duration) -> Self {
        Self {
            hits: now.hits.saturating_sub(before.hits),
            misses: now.misses.saturating_sub(before.misses),
            requests: now.requests.requests.saturating_sub(before.requests.requests),
            seconds: (now.requests.seconds - before.requests.seconds).max(0.0),
            slowest,
        }
    }

    /// The mean duration of a request.
    fn mean(&self) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "a mean for people")]
        let mean = self.seconds / self.requests.max(1) as f64;
        Duration::try_from_secs_f64(mean).unwrap_or_default()
    }
}

/// The steps that have ended, and the totals at the begin of the current one.
#[derive(Debug, Default)]
struct Past {
    steps: VecDeque<Step>,
    before: Totals,
    has_begun: bool,
}

/// Differences of the metrics, step by step.
#[derive(Debug)]
pub(crate) struct History {
    start: Instant,
    past: Mutex<Past>,
    /// The last reset, and the statistics of the layers at that moment.
    reset: Mutex<Option<(Instant, Stats)>>,
}

/// Starts a task that ends each step in time. It ends with the current Actix system.
pub(crate) fn start(history: Data<History>, cache: Cache, metrics: Data<Metrics>) {
    rt::spawn(async move {
        let mut interval = rt::time::interval(STEP);
        loop {
            interval.tick().await;
            history.end_step(&cache, &metrics);
        }
    });
}

impl Default for History {
    fn default() -> Self {
        Self { start: Instant::now(), past: Mutex::default(), reset: Mutex::default() }
    }
}

impl History {
    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the operations of the layers from now on.
    pub(crate) fn reset(&self, now: Stats) {
        *self.last_reset() = Some((Instant::now(), now));
    }

    /// Returns the time since the last reset, and the statistics since then, or since the start.
    pub(crate) fn since_reset(&self, mut now: Stats) -> (Option<Duration>, Stats) {
        let reset = self.last_reset();
        let Some((moment, before)) = &*reset else { return (None, now) };
        for (name, stats) in &mut now {
            if let Some(before) = before.get(name) {
                subtract(stats, before);
            }
        }
        (Some(moment.elapsed()), now)
    }

    fn last_reset(&self) -> MutexGuard<'_, Option<(Instant, Stats)>> {
        self.reset.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_step(&self, cache: &Cache, metrics: &Metrics) {
        let mut past = self.past();
        let (now, slowest) = (Totals::now(cache, metrics), metrics.slowest(true));
        // The interval ticks at once: that tick begins the first step.
        if past.has_begun {
            let step = Step::between(past.before, now, slowest);
            past.steps.push_back(step);
            if past.steps.len() == STEPS {
                past.steps.pop_front();
            }
        }
        past.has_begun = true;
        past.before = now;
    }

    /// Returns the charts of the last steps, with the current one.
    pub(crate) fn charts(&self, cache: &Cache, metrics: &Metrics) -> [Chart; 2] {
        let past = self.past();
        let mut steps: Vec<_> = past.steps.iter().copied().collect();
        let (now, slowest) = (Totals::now(cache, metrics), metrics.slowest(false));
        steps.push(Step::between(past.before, now, slowest));
        let minutes = (self.start.elapsed().as_secs() / 60 + 1).min(10);
        [lookups_chart(&steps, minutes), durations_chart(&steps, minutes)]
    }
}

/// Returns the hits and misses of all layers since the start.
fn lookups(cache: &Cache) -> (u64, u64) {
    let add = |sum: (u64, u64), layer: &LayerStats| (sum.0 + layer.hits, sum.1 + layer.misses);
    cache.stats().values().fold((0, 0), add)
}

fn subtract(stats: &mut LayerStats, before: &LayerStats) {
    stats.hits -= before.hits;
    stats.misses -= before.misses;
    stats.fills -= before.fills;
    stats.refused_fills -= before.refused_fills;
    stats.waits -= before.waits;
    stats.stale -= before.stale;
    stats.errors -= before.errors;
    stats.bytes_read -= before.bytes_read;
    stats.bytes_written -= before.bytes_written;
    stats.time_saved = stats.time_saved.saturating_sub(before.time_saved);
}

/// A chart of bars with two parts each.
#[derive(Debug, Serialize)]
pub(crate) struct Chart {
    /// The class in the stylesheet.
    kind: &'static str,
    title: &'static str,
    /// The content of the chart in words.
    summary: String,
    /// The names of the lower and the upper part.
    legend: [&'static str; 2],
    /// The value of the full height.
    top: String,
    bars: Vec<Bar>,
}

/// The position of a bar and the heights of its parts, in units of the drawing: a bar takes 10 in
/// width, and the highest one [`HEIGHT`].
#[derive(Debug, Serialize)]
struct Bar {
    x: usize,
    foot: u64,
    above: u64,
}

const HEIGHT: u64 = 100;

/// Scales bars to the value `top` and aligns them at the right. A value above 0 is always visible.
fn bars(parts: &[(u64, u64)], top: u64) -> Vec<Bar> {
    let scaled = |value: u64| match value {
        0 => 0,
        value => (value.saturating_mul(HEIGHT) / top.max(1)).max(2),
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
        summary: format!(
            "Last {minutes} min: {} hits, {} misses in all layers",
            grouped(hits),
            grouped(misses)
        ),
        legend: ["hits", "misses"],
        top: format!("{} in 10 s", grouped(top)),
        bars: bars(&parts, top),
    }
}

fn durations_chart(steps: &[Step], minutes: u64) -> Chart {
    let parts: Vec<_> = steps
        .iter()
        .map(|step| (micros(step.mean()), micros(step.slowest.saturating_sub(step.mean()))))
        .collect();
    let slowest = steps.iter().map(|step| step.slowest).max().unwrap_or_default();
    let all = Step {
        requests: steps.iter().map(|step| step.requests).sum(),
        seconds: steps.iter().map(|step| step.seconds).sum(),
        ..Step::default()
    };
    Chart {
        kind: "times",
        title: "Time per request",
        summary: format!(
            "Last {minutes} min: {} requests, {} each, the slowest {}",
            grouped(all.requests),
            in_words(all.mean()),
            in_words(slowest)
        ),
        legend: ["mean", "slowest"],
        top: in_words(slowest),
        bars: bars(&parts, micros(slowest)),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::StatusCode;

    use super::*;

    #[test]
    fn bars_are_aligned_at_the_right_and_scaled_to_the_top() {
        let bars = bars(&[(1, 1), (50, 150), (0, 0)], 200);
        let positions: Vec<_> = bars.iter().map(|bar| (bar.x, bar.foot, bar.above)).collect();
        assert_eq!(positions, [(570, 2, 2), (580, 25, 75), (590, 0, 0)]);
    }

    #[test]
    fn the_steps_of_ten_minutes_are_differences_of_the_metrics() {
        let (history, cache) = (History::default(), Cache::null().build());
        let metrics = Metrics::new(["GET /"].into_iter());
        history.end_step(&cache, &metrics);
        for millis in 0..100 {
            metrics.observe("GET /", StatusCode::OK, Duration::from_millis(millis));
            history.end_step(&cache, &metrics);
        }
        let past = history.past();
        assert_eq!(past.steps.len(), STEPS - 1);
        let last = past.steps.back().unwrap();
        assert_eq!((last.requests, last.slowest), (1, Duration::from_millis(99)));
        assert!((0.0989..0.0991).contains(&last.seconds));
        assert_eq!(past.steps.iter().map(|step| step.requests).sum::<u64>(), 59);
    }
}
