//! Sessions in the cache: a counter of visits. While the cache is away, a session is empty, and the empty one is not stored.
//!
//! ```sh
//! cargo run -p everfresh --features memcached,session --example session
//! ```

use std::{
    error::Error,
    io::{self, Write},
};

use actix_session::{Session, SessionMiddleware};
use actix_web::{App, HttpServer, cookie::Key, web};
use everfresh::{Cache, CacheSessionStore};

async fn count(session: Session) -> Result<String, actix_web::Error> {
    let visits = session.get::<u32>("visits")?.unwrap_or(0) + 1;
    session.insert("visits", visits)?;
    Ok(format!("visit {visits}\n"))
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cache = Cache::from_env()?.prefix("session:").build();
    let sessions = CacheSessionStore::new(&cache);
    // In an app, from a setting: another key ends all sessions.
    let key = Key::generate();
    let address = std::env::var("ADDRESS").unwrap_or("127.0.0.1:8085".to_owned());
    let server = HttpServer::new(move || {
        let sessions = SessionMiddleware::builder(sessions.clone(), key.clone());
        App::new()
            // For HTTP on this machine. Leave the line out where visitors come by HTTPS.
            .wrap(sessions.cookie_secure(false).build())
            .default_service(web::to(count))
    });
    let server = server.bind(address)?;
    for address in server.addrs() {
        writeln!(io::stdout(), "listening on http://{address}")?;
    }
    Ok(server.run().await?)
}
