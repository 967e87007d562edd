//! `/cache`: the state of the cache, in figures.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header,
    web::{Data, Query},
};
use everfresh::{Backlog, Cache, LayerStats, ServerReport};
use futures_util::future::join;
use memcached_client::ServerState;
use serde::{Deserialize, Serialize};

use super::{
    admin_token::AdminAccess,
    format::{THIN_SPACE, grouped, in_bytes, in_words},
    history::{Chart, History},
    metrics::Metrics,
};
use crate::{http::error_pages::AppError, tasks::Tasks, views::Views};

#[derive(Serialize)]
struct Page {
    /// The seconds after which the page is loaded again; `None` for never.
    refresh: Option<u32>,
    backend: &'static str,
    /// The time since the counters of layers were reset; `None` if they never were.
    counted_for: Option<String>,
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
    let (counted_for, stats) = history.since_reset(cache.stats());
    let layers = LAYERS.iter().map(|name| (*name, stats.get(name).copied().unwrap_or_default()));
    let page = Page {
        refresh: refresh_of(&req),
        backend: cache.backend_name(),
        counted_for: counted_for.map(in_words),
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

fn refresh_of(req: &HttpRequest) -> Option<u32> {
    let Query(refresh) = Query::<Refresh>::from_query(req.query_string()).ok()?;
    refresh.seconds()
}

/// `POST /cache`: counts the operations of the layers from now on. Metrics go on.
pub(crate) async fn reset(
    req: HttpRequest,
    access: Data<AdminAccess>,
    cache: Data<Cache>,
    history: Data<History>,
) -> Result<HttpResponse, AppError> {
    access.check(&req)?;
    history.reset(cache.stats());
    let back = match refresh_of(&req) {
        Some(seconds) => format!("/cache?refresh={seconds}"),
        None => "/cache".to_owned(),
    };
    Ok(HttpResponse::SeeOther().insert_header((header::LOCATION, back)).finish())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sensible_number_of_seconds_is_a_refresh() {
        let seconds = |text: &str| Refresh { refresh: Some(text.to_owned()) }.seconds();
        assert_eq!(["5", "3600"].map(seconds), [Some(5), Some(3600)]);
        assert_eq!(["0", "3601", "-1", "", "x"].map(seconds), [None; 5]);
    }
}
