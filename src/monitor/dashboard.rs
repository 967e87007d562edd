//! `GET /cache`: the state of the cache, in figures.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, http::header, web::Data};
use bytesize::ByteSize;
use everfresh::{Backlog, Cache, LayerStats, ServerReport};
use futures_util::future::join;
use memcached_client::ServerState;
use serde::Serialize;

use super::{
    admin_token::AdminAccess,
    history::{Chart, History},
    metrics::{Metrics, micros},
};
use crate::{http::error_pages::AppError, tasks::Tasks, views::Views};

#[derive(Serialize)]
struct Page {
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
    hits: u64,
    misses: u64,
    ratio: Option<String>,
    fills: u64,
    refused_fills: u64,
    waits: u64,
    errors: u64,
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
            hits: stats.hits,
            misses: stats.misses,
            ratio: stats.hit_ratio().map(|ratio| format!("{:.1} %", ratio * 100.0)),
            fills: stats.fills,
            refused_fills: stats.refused_fills,
            waits: stats.waits,
            errors: stats.errors,
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
            let bytes = value.parse().ok().filter(|_| *name == "bytes");
            Some((*shown, bytes.map_or_else(|| value.clone(), in_bytes)))
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

fn in_bytes(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
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
    fn sizes_and_times_are_short() {
        assert_eq!([in_bytes(0), in_bytes(1023), in_bytes(1536)], ["0 B", "1023 B", "1.5 KiB"]);
        assert_eq!(in_bytes(5 << 30), "5.0 GiB");
        assert_eq!(in_words(Duration::from_nanos(1_234_567)), "1ms 234us");
        assert_eq!(in_words(Duration::from_millis(1234)), "1s 234ms");
        assert_eq!(in_words(Duration::from_millis(61_500)), "1m 1s");
    }
}
