//! `GET /cache`: what the cache does, in figures. Open in development; in production behind
//! `ADMIN_TOKEN`, and not there without it.

use std::time::Duration;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderValue},
    web::Data,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use everfresh::{Cache, LayerStats, ServerReport};
use futures_util::future::join;
use memcached_client::ServerState;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{
    db::Db,
    http::error_pages::AppError,
    monitor::access_log::Observers,
    monitor::history::Chart,
    tasks::TasksCache,
    tasks::ledger::{self, Backlog},
    views::Views,
};

/// Who may see it.
#[derive(Clone, Debug)]
pub(crate) enum Access {
    Anyone,
    Nobody,
    /// Whoever knows the token, as the password of HTTP Basic, where the user's name does not
    /// matter, or as a Bearer token.
    Token(SecretString),
}

impl Access {
    pub(crate) fn new(token: Option<SecretString>, production: bool) -> Self {
        match token {
            Some(token) => Self::Token(token),
            None if production => Self::Nobody,
            None => Self::Anyone,
        }
    }

    pub(crate) fn check(&self, req: &HttpRequest) -> Result<(), AppError> {
        match self {
            Self::Anyone => Ok(()),
            Self::Nobody => Err(AppError::NotFound),
            Self::Token(token) => {
                let given = req.headers().get(header::AUTHORIZATION).and_then(credential);
                let is_right = given.is_some_and(|given| is_same(&given, token.expose_secret()));
                if is_right { Ok(()) } else { Err(AppError::Unauthorized) }
            }
        }
    }
}

/// The password of a Basic `Authorization` header (RFC 7617), or a Bearer token (RFC 6750).
fn credential(header: &HeaderValue) -> Option<String> {
    let (scheme, credentials) = header.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(credentials.trim().to_owned());
    }
    let is_basic = scheme.eq_ignore_ascii_case("basic");
    let decoded = BASE64_STANDARD.decode(credentials.trim()).ok().filter(|_| is_basic)?;
    let text = String::from_utf8(decoded).ok()?;
    text.split_once(':').map(|(_, password)| password.to_owned())
}

/// In a time that tells nothing of where they differ: their digests are compared, which nobody can
/// foresee or choose, and all bytes of them.
fn is_same(given: &str, token: &str) -> bool {
    let (given, token) = (Sha256::digest(given), Sha256::digest(token));
    given.iter().zip(&token).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

#[derive(Serialize)]
struct Page {
    backend: &'static str,
    layers: Vec<LayerRow>,
    charts: [Chart; 2],
    servers: Vec<ServerRow>,
    /// `None` if the database cannot be asked.
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
    /// What the hits would have taken to compute, without what they took themselves.
    time_saved: String,
}

#[derive(Serialize)]
struct ServerRow {
    address: String,
    is_well: bool,
    /// Why it is not used.
    reason: String,
    outages: u64,
    timeouts: u64,
    /// Its own figures; empty if it does not tell.
    figures: Vec<(&'static str, String)>,
}

#[derive(Serialize)]
struct LedgerRow {
    rows: i64,
    oldest: Option<String>,
}

/// The layers of the app, in the order in which a request meets them.
const LAYERS: [&str; 4] = ["view", "session", "query", "fragment"];

/// What memcached calls them, and what we do.
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
    access: Data<Access>,
    cache: Data<TasksCache>,
    db: Data<Db>,
    observers: Data<Observers>,
    views: Data<Views>,
) -> Result<HttpResponse, AppError> {
    access.check(&req)?;
    let cache: &Cache = cache.whole();
    let (servers, backlog) = join(cache.server_reports(), db.run(ledger::backlog)).await;
    let stats = cache.stats();
    let layers = LAYERS.iter().map(|name| (*name, stats.get(name).copied().unwrap_or_default()));
    let page = Page {
        backend: cache.backend_name(),
        layers: layers.map(LayerRow::from).collect(),
        charts: observers.history.charts(cache),
        servers: servers.into_iter().map(ServerRow::from).collect(),
        ledger: backlog.ok().map(LedgerRow::from),
    };
    Ok(HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(views.render("cache.html", &page).await?))
}

/// Other methods than those of [`show`].
pub(crate) async fn refuse(
    req: HttpRequest,
    access: Data<Access>,
) -> Result<HttpResponse, AppError> {
    access.check(&req)?;
    Ok(HttpResponse::MethodNotAllowed().insert_header((header::ALLOW, "GET, HEAD")).finish())
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
        let figures = FIGURES.iter().filter_map(figure).collect();
        let reason = match report.status.state {
            ServerState::Up => String::new(),
            ServerState::Down { reason } => reason,
        };
        Self {
            address: report.status.address.to_string(),
            is_well: reason.is_empty(),
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
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, shift)| bytes >> shift > 0) {
        // Tenths are enough for people, and never wrong by rounding up.
        Some((unit, shift)) => {
            let tenths = (bytes >> (shift - 10)) * 10 / 1024;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

/// As much of it as people want to know.
fn in_words(time: Duration) -> String {
    let rounded = match time {
        _ if time < Duration::from_millis(10) => Duration::from_micros(micros(time)),
        _ if time < Duration::from_secs(10) => Duration::from_millis(micros(time) / 1000),
        _ => Duration::from_secs(time.as_secs()),
    };
    humantime::format_duration(rounded).to_string()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
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

    #[test]
    fn the_token_is_read_from_basic_and_bearer_credentials_and_nothing_else() {
        let credential = |header| credential(&HeaderValue::from_static(header));
        assert_eq!(credential("Basic dXNlcjpwYXNz").as_deref(), Some("pass"));
        assert_eq!(credential("basic OnA6cQ==").as_deref(), Some("p:q"));
        assert_eq!(credential("Bearer pass").as_deref(), Some("pass"));
        for header in ["Digest pass", "Basic", "Basic !!!", "Basic dXNlcg==", ""] {
            assert_eq!(credential(header), None, "{header}");
        }
    }

    #[test]
    fn a_token_is_right_only_whole() {
        assert!(is_same("secret", "secret"));
        for given in ["", "secre", "secret ", "Secret"] {
            assert!(!is_same(given, "secret"), "{given}");
        }
    }
}
