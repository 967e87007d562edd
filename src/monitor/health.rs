//! Probes: whether the process lives, and whether it can work.

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
    web::Data,
};
use everfresh::Cache;
use futures_util::future::join;
use serde_json::json;

use crate::db::Db;

/// `GET /healthz`: the process lives.
pub(crate) async fn healthz() -> &'static str {
    "ok"
}

/// `GET /readyz`: whether the database and the cache answer. A cache that does not is only `degraded`.
pub(crate) async fn readyz(db: Data<Db>, cache: Data<Cache>) -> HttpResponse {
    let (database, cache) = join(db.ping(), cache_state(&cache)).await;
    let (status, database) = match database {
        Ok(()) => (StatusCode::OK, "ok"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    HttpResponse::build(status)
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(json!({ "database": database, "cache": cache }))
}

async fn cache_state(cache: &Cache) -> &'static str {
    match cache.backend_name() {
        "none" => "none",
        _ if cache.ping().await => "ok",
        _ => "degraded",
    }
}
