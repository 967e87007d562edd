//! A rate limiter: each address may send so many requests a minute, counted in this process, or over all processes
//! in the servers that `MEMCACHE_SERVERS` names.
//!
//! ```sh
//! cargo run -p everfresh --features actix,memcached --example rate_limiter
//! ```
//!
//! Take a counter for this where a wrong number does no harm: a cache may evict it, and while the servers are away,
//! everybody may pass.

use std::{
    error::Error,
    io::{self, Write},
    time::Duration,
};

use actix_web::{
    App, HttpResponse, HttpServer,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::header,
    middleware::{Next, from_fn},
    web::{self, Data},
};
use everfresh::{Cache, Lifetime};

/// The requests that an address may send in one [`PERIOD`].
const LIMIT: u64 = 20;

/// It begins with the first request.
const PERIOD: Duration = Duration::from_secs(60);

/// Answers 429 for an address that sends too many requests (RFC 6585, section 4).
async fn limit(
    req: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let address = req.peer_addr().map(|address| address.ip().to_string()).unwrap_or_default();
    let counted = match req.app_data::<Data<Cache>>() {
        Some(cache) => {
            let requests = cache.counter(&everfresh::join_key("requests", [address]));
            requests.lifetime(Lifetime::For(PERIOD)).increment(1).await
        }
        None => None,
    };
    // `None`: the servers are away.
    if counted.is_some_and(|requests| requests > LIMIT) {
        let retry = (header::RETRY_AFTER, PERIOD.as_secs());
        let refused = HttpResponse::TooManyRequests().insert_header(retry).finish();
        return Ok(req.into_response(refused));
    }
    Ok(next.call(req).await?.map_into_boxed_body())
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cache = Cache::from_env()?.prefix("limiter:").build();
    let address = std::env::var("ADDRESS").unwrap_or("127.0.0.1:8083".to_owned());
    let server = HttpServer::new(move || {
        let hello = web::to(async || "Hello\n");
        App::new().app_data(Data::new(cache.clone())).wrap(from_fn(limit)).default_service(hello)
    });
    let server = server.bind(address)?;
    let urls: Vec<_> = server.addrs().iter().map(|address| format!("http://{address}")).collect();
    writeln!(io::stdout(), "listening on {}", urls.join(", "))?;
    Ok(server.run().await?)
}
