//! What the platform and its owner ask.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header,
    web::{Bytes, Data},
};
use diesel::{RunQueryDsl, SqliteConnection};
use prometheus_client::{encoding::text, registry::Registry};
use step_01::database::Database;

use crate::settings::Settings;

// ANCHOR: monitor
/// 200 while the process lives.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// 200 while the app can work: with its database. Without its cache it is only slower.
pub async fn readyz(database: Data<Database>) -> HttpResponse {
    let query = |conn: &mut SqliteConnection| diesel::sql_query("SELECT 1").execute(conn);
    match database.run(query).await {
        Ok(_) => HttpResponse::Ok().body("ready\n"),
        Err(_) => HttpResponse::ServiceUnavailable().body("no database\n"),
    }
}

/// The numbers that Prometheus collects, for those who know the token.
pub async fn metrics(
    req: HttpRequest,
    settings: Data<Settings>,
    registry: Data<Registry>,
) -> HttpResponse {
    let Some(token) = &settings.admin_token else { return HttpResponse::NotFound().finish() };
    let expected = Bytes::from(format!("Bearer {token}"));
    let sent = req.headers().get(header::AUTHORIZATION);
    if sent.is_none_or(|sent| sent.as_bytes() != expected) {
        let challenge = (header::WWW_AUTHENTICATE, "Bearer");
        return HttpResponse::Unauthorized().insert_header(challenge).finish();
    }
    let mut body = String::new();
    match text::encode(&mut body, &registry) {
        Ok(()) => HttpResponse::Ok().body(body),
        Err(_) => HttpResponse::InternalServerError().finish(),
    }
}
// ANCHOR_END: monitor
