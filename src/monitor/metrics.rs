//! What requests, cache and database do, in figures: `GET /metrics`, in the text format that
//! Prometheus reads. Behind the same token as `/cache`.

use std::time::Duration;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, StatusCode, header},
    web::Data,
};
use everfresh::LayerStats;
use futures_util::future::join;
use memcached_client::ServerState;
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::{
    db::Db, http::error_pages::AppError, monitor::access_log::Observers,
    monitor::dashboard::Access, tasks::TasksCache, tasks::ledger,
};

/// As `OpenMetrics` names it, which [`text::encode`] writes.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// In seconds.
const BUCKETS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Answered {
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Route {
    route: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Layer {
    layer: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Server {
    server: String,
}

/// The page of tasks, which is asked for most: its figures are at hand.
const PAGE: &str = "GET /";

/// What has been answered since the start.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: Family<Answered, Counter>,
    seconds: Family<Route, Histogram, fn() -> Histogram>,
    pages: Counter,
    page_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> _);
        let requests = Family::<Answered, Counter>::default();
        Self {
            pages: requests.get_or_create_owned(&Answered { route: PAGE, status: 200 }),
            page_seconds: seconds.get_or_create_owned(&Route { route: PAGE }),
            requests,
            seconds,
        }
    }
}

impl Metrics {
    pub(crate) fn answered(&self, req: &HttpRequest, status: StatusCode, took: Duration) {
        let route = route(req.method(), req.path());
        if route == PAGE && status == StatusCode::OK {
            self.pages.inc();
            self.page_seconds.observe(took.as_secs_f64());
            return;
        }
        self.requests.get_or_create(&Answered { route, status: status.as_u16() }).inc();
        self.seconds.get_or_create(&Route { route }).observe(took.as_secs_f64());
    }
}

/// A few names, whatever is asked for: each name is a figure that is kept.
fn route(method: &Method, path: &str) -> &'static str {
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    match path {
        "/" if is_read => PAGE,
        "/" if *method == Method::POST => "POST /",
        "/cache" => "GET /cache",
        "/metrics" => "GET /metrics",
        "/healthz" => "GET /healthz",
        "/readyz" => "GET /readyz",
        _ if path.starts_with("/static/") => "GET /static/{name}",
        _ if path.ends_with("/delete") && *method == Method::POST => "POST /{id}/delete",
        _ => "other",
    }
}

/// `GET /metrics`
pub(crate) async fn show(
    req: HttpRequest,
    access: Data<Access>,
    observers: Data<Observers>,
    cache: Data<TasksCache>,
    db: Data<Db>,
) -> Result<HttpResponse, AppError> {
    access.check(&req)?;
    let mut all = Registry::with_prefix("tasklist");
    observers.metrics.register(&mut all);
    register_layers(&mut all, cache.whole().stats());
    let (reports, backlog) = join(cache.whole().server_reports(), db.run(ledger::backlog)).await;
    let servers = reports.into_iter().map(|report| report.status);
    register_servers(&mut all, servers);
    let (open, idle) = db.connections();
    gauge(&mut all, "database_connections", "Connections that are open", i64::from(open));
    gauge(&mut all, "database_connections_idle", "Of them, those not in use", i64::from(idle));
    gauge(&mut all, "database_up", "Whether it answers", i64::from(backlog.is_ok()));
    if let Ok(backlog) = backlog {
        let help = "Invalidations that wait to be confirmed";
        gauge(&mut all, "ledger_rows", help, backlog.rows);
    }
    let mut body = String::new();
    // Writing to a String cannot fail.
    let _ = text::encode(&mut body, &all);
    Ok(HttpResponse::Ok()
        .content_type(CONTENT_TYPE)
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(body))
}

impl Metrics {
    fn register(&self, all: &mut Registry) {
        all.register("http_requests", "Requests answered", self.requests.clone());
        let help = "How long answers took, without sending them";
        all.register("http_request_duration_seconds", help, self.seconds.clone());
    }
}

fn gauge(all: &mut Registry, name: &str, help: &str, value: i64) {
    let gauge: Gauge = Gauge::default();
    gauge.set(value);
    all.register(name, help, gauge);
}

/// A figure of each layer: its name, what it tells, where it is.
type LayerFigure = (&'static str, &'static str, fn(&LayerStats) -> u64);

const LAYER_FIGURES: [LayerFigure; 5] = [
    ("cache_hits", "Entries that were found", |layer| layer.hits),
    ("cache_misses", "Entries that were not", |layer| layer.misses),
    ("cache_fills", "Values computed and stored", |layer| layer.fills),
    ("cache_refused_fills", "Values computed and not stored", |layer| layer.refused_fills),
    ("cache_errors", "Operations that the cache did not do", |layer| layer.errors),
];

fn register_layers(
    all: &mut Registry,
    layers: impl IntoIterator<Item = (&'static str, LayerStats)>,
) {
    let layers: Vec<_> = layers.into_iter().collect();
    for (name, help, figure) in LAYER_FIGURES {
        let family = Family::<Layer, Counter>::default();
        for (layer, stats) in &layers {
            family.get_or_create(&Layer { layer }).inc_by(figure(stats));
        }
        all.register(name, help, family);
    }
}

fn register_servers(
    all: &mut Registry,
    servers: impl Iterator<Item = memcached_client::ServerStatus>,
) {
    let (up, outages) = (Family::<Server, Gauge>::default(), Family::<Server, Counter>::default());
    let timeouts = Family::<Server, Counter>::default();
    for status in servers {
        let server = Server { server: status.address.to_string() };
        up.get_or_create(&server).set(i64::from(status.state == ServerState::Up));
        outages.get_or_create(&server).inc_by(status.outages);
        timeouts.get_or_create(&server).inc_by(status.timeouts);
    }
    all.register("memcached_up", "Whether the server is used", up);
    all.register("memcached_outages", "Times it was taken out of use", outages);
    all.register("memcached_timeouts", "Operations not answered in time", timeouts);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_asked_for_has_one_of_a_few_names() {
        let named =
            |method: &str, path| route(&Method::from_bytes(method.as_bytes()).unwrap(), path);
        assert_eq!(named("HEAD", "/"), "GET /");
        assert_eq!(named("POST", "/7/delete"), "POST /{id}/delete");
        assert_eq!(named("GET", "/static/x.css"), "GET /static/{name}");
        for (method, path) in [("BREW", "/"), ("GET", "/wp-login.php"), ("GET", "/7/delete")] {
            assert_eq!(named(method, path), "other");
        }
    }
}
