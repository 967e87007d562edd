//! `GET /cache`: the state of the cache, in figures.

use std::time::Duration;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header,
    web::{Data, Query},
};
use bytesize::ByteSize;
use everfresh::{Backlog, Cache, LayerStats, ServerReport};
use futures_util::future::join;
use memcached_client::ServerState;
use serde::{Deserialize, Serialize};

use super::{
    admin_token::AdminAccess,
    history::{Chart, History},
    metrics::{Metrics, micros},
};
use crate::{http::error_pages::AppError, tasks::Tasks, views::Views};

#[derive(Serialize)]
struct Page {
    /// The seconds after which the page is loaded again; `None` for never.
    refresh: Option<u32>,
    backend: &'static str,
    layers: Vec<LayerRow>,
    charts: [Chart; 2],
    servers: Vec<ServerRow>,
    /// `None` if the database does not answer.
    ledger: Option<LedgerRow>,
}

#[derive(Serialize)]
struct LayerRow {
    name: &'static str,
    hits: String,
    misses: String,
    stale: String,
    ratio: Option<String>,
    fills: String,
    refused_fills: String,
    waits: String,
    errors: String,
    bytes_read: String,
    bytes_written: String,
    /// The time that computing the hits would have taken.
    time_saved: String,
}

#[derive(Serialize)]
struct ServerRow {
    address: String,
    is_up: bool,
    /// The reason that the server is down; empty if it is up.
    reason: String,
    outages: u64,
    timeouts: u64,
    /// The statistics of the server; empty if it does not answer.
    figures: Vec<(&'static str, String)>,
}

#[derive(Serialize)]
struct LedgerRow {
    rows: u64,
    oldest: Option<String>,
}

/// The layers of the app, in the order in which a request passes them.
const LAYERS: [&str; 4] = ["view", "session", "query", "fragment"];

/// The names of statistics in memcached and on the page.
const FIGURES: [(&str, &str); 6] = [
    ("get_hits", "get hits"),
    ("get_misses", "get misses"),
    ("cmd_set", "sets"),
    ("curr_items", "items"),
    ("bytes", "bytes"),
    ("evictions", "evictions"),
];

/// Whether the page is to be loaded again by itself: `?refresh=SECONDS`.
#[derive(Deserialize)]
struct Refresh {
    refresh: Option<String>,
}

impl Refresh {
    /// Returns the seconds, from 1 to 3600; `None` for anything else.
    fn seconds(self) -> Option<u32> {
        self.refresh?.parse().ok().filter(|seconds| (1..=3600).contains(seconds))
    }
}

/// `GET /cache`
pub(crate) async fn show(
    req: HttpRequest,
    access: Data<AdminAccess>,
    cache: Data<Cache>,
    tasks: Data<Tasks>,
    metrics: Data<Metrics>,
    history: Data<History>,
    views: Data<Views>,
) -> Result<HttpResponse, AppError> {
    access.check(&req)?;
    let (servers, backlog) = join(cache.server_reports(), tasks.invalidation_backlog()).await;
    let stats = cache.stats();
    let layers = LAYERS.iter().map(|name| (*name, stats.get(name).copied().unwrap_or_default()));
    let page = Page {
        refresh: Query::from_query(req.query_string())
            .ok()
            .and_then(|Query(q)| Refresh::seconds(q)),
        backend: cache.backend_name(),
        layers: layers.map(LayerRow::from).collect(),
        charts: history.charts(&cache, &metrics),
        servers: servers.into_iter().map(ServerRow::from).collect(),
        ledger: backlog.ok().map(LedgerRow::from),
    };
    Ok(HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(views.render("cache.html", &page).await?))
}

impl From<(&'static str, LayerStats)> for LayerRow {
    fn from((name, stats): (&'static str, LayerStats)) -> Self {
        Self {
            name,
            hits: grouped(stats.hits),
            misses: grouped(stats.misses),
            stale: grouped(stats.stale),
            ratio: stats.hit_ratio().map(|ratio| format!("{:.1}{THIN_SPACE}%", ratio * 100.0)),
            fills: grouped(stats.fills),
            refused_fills: grouped(stats.refused_fills),
            waits: grouped(stats.waits),
            errors: grouped(stats.errors),
            bytes_read: in_bytes(stats.bytes_read),
            bytes_written: in_bytes(stats.bytes_written),
            time_saved: in_words(stats.time_saved),
        }
    }
}

impl From<ServerReport> for ServerRow {
    fn from(report: ServerReport) -> Self {
        let figure = |(name, shown): &(&str, &'static str)| {
            let value = report.stats.get(*name)?;
            let show = if *name == "bytes" { in_bytes } else { grouped };
            Some((*shown, value.parse().map_or_else(|_| value.clone(), show)))
        };
        let protocol = report.status.protocol.map(|p| ("protocol", p.name().to_owned()));
        let figures = protocol.into_iter().chain(FIGURES.iter().filter_map(figure)).collect();
        let reason = match report.status.state {
            ServerState::Up => String::new(),
            ServerState::Down { reason } => reason,
        };
        Self {
            address: report.status.address.to_string(),
            is_up: reason.is_empty(),
            reason,
            outages: report.status.outages,
            timeouts: report.status.timeouts,
            figures,
        }
    }
}

impl From<Backlog> for LedgerRow {
    fn from(Backlog { rows, oldest }: Backlog) -> Self {
        Self { rows, oldest: oldest.map(in_words) }
    }
}

/// Separates groups of digits, and numbers from their units: U+202F, which does not break a line.
const THIN_SPACE: char = '\u{202f}';

/// Formats a number with its digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(THIN_SPACE);
        }
        text.push(digit);
    }
    text
}

fn in_bytes(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string().replace(' ', &THIN_SPACE.to_string())
}

/// Formats a duration with the precision that people need.
fn in_words(time: Duration) -> String {
    let rounded = match time {
        _ if time < Duration::from_millis(10) => Duration::from_micros(micros(time)),
        _ if time < Duration::from_secs(10) => Duration::from_millis(micros(time) / 1000),
        _ => Duration::from_secs(time.as_secs()),
    };
    humantime::format_duration(rounded).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_groups_of_three() {
        let expected = ["0", "999", "1\u{202f}000", "12\u{202f}345\u{202f}678"];
        assert_eq!([0, 999, 1000, 12_345_678].map(grouped), expected);
    }

    #[test]
    fn only_a_sensible_number_of_seconds_is_a_refresh() {
        let seconds = |text: &str| Refresh { refresh: Some(text.to_owned()) }.seconds();
        assert_eq!(["5", "3600"].map(seconds), [Some(5), Some(3600)]);
        assert_eq!(["0", "3601", "-1", "", "x"].map(seconds), [None; 5]);
    }

    #[test]
    fn sizes_and_times_are_short() {
        let expected = ["0\u{202f}B", "1023\u{202f}B", "1.5\u{202f}KiB"];
        assert_eq!([in_bytes(0), in_bytes(1023), in_bytes(1536)], expected);
        assert_eq!(in_bytes(5 << 30), "5.0\u{202f}GiB");
        assert_eq!(in_words(Duration::from_nanos(1_234_567)), "1ms 234us");
        assert_eq!(in_words(Duration::from_millis(1234)), "1s 234ms");
        assert_eq!(in_words(Duration::from_millis(61_500)), "1m 1s");
    }
}
