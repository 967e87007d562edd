//! Whole pages: by number, by language, and for a minute at most.
//!
//! ```sh
//! cargo run -p everfresh --features actix,memcached --example view
//! ```
//!
//! Ask for a page twice (`curl -i http://127.0.0.1:8084/?page=2`) and look at `Cache-Status` and `Age`.

use std::{
    error::Error,
    io::{self, Write},
    time::Duration,
};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    http::header,
    web::{self, Query},
};
use everfresh::{Cache, Lifetime, ViewCache};
use serde::Deserialize;

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    page: u32,
}

async fn show(req: HttpRequest, Query(Page { page }): Query<Page>) -> HttpResponse {
    let language = req.headers().get(header::ACCEPT_LANGUAGE);
    let is_german = language.is_some_and(|language| language.as_bytes().starts_with(b"de"));
    let (language, word) = if is_german { ("de", "Seite") } else { ("en", "Page") };
    HttpResponse::Ok()
        // The page has a variant for each value of this header.
        .insert_header((header::VARY, "Accept-Language"))
        .content_type("text/html; charset=utf-8")
        .body(format!("<!doctype html><html lang={language}><title>{word} {page}</title>\n"))
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cache = Cache::from_env()?.prefix("view:").build();
    let views = ViewCache::builder(cache)
        // `?page=2`, `?page=02` and `?page=2&utm=x` are one page.
        .query_number("page")
        .lifetime(Lifetime::For(Duration::from_secs(60)))
        .build();
    let address = std::env::var("ADDRESS").unwrap_or("127.0.0.1:8084".to_owned());
    let server = HttpServer::new(move || {
        App::new().service(web::resource("/").wrap(views.clone()).get(show))
    });
    let server = server.bind(address)?;
    for address in server.addrs() {
        writeln!(io::stdout(), "listening on http://{address}")?;
    }
    Ok(server.run().await?)
}
