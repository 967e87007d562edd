//! A wiki: a list with pages and a search, articles with comments, a feed, JSON, visitors with a name.
//! Everything is cached, at every level, and nothing is ever stale: in one process, or in several that share
//! a database and memcached servers.
//!
//! ```sh
//! cargo run -p everfresh --features actix,diesel,memcached,session,tera --example wiki
//! ```

#![allow(unreachable_pub)]

/// The database, cached queries, and what each write makes wrong.
mod articles;
/// The pages.
mod handlers;

use std::{error::Error, io::Write};

use actix_session::SessionMiddleware;
use actix_web::{App, HttpServer, cookie::Key, web};
use diesel::{
    connection::SimpleConnection,
    r2d2::{ConnectionManager, CustomizeConnection, Pool},
    sqlite::SqliteConnection,
};
use everfresh::{
    Cache, CacheSessionStore, Dialect, DieselLedger, DieselPool, Templates, ViewCache,
};
use tera::Tera;

use crate::articles::{ARTICLES, Articles, Database};

/// What the handlers use.
struct Wiki {
    articles: Articles,
    templates: Templates,
    fragments: Cache,
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let setting = |name: &str, default: &str| std::env::var(name).unwrap_or(default.to_owned());
    let secret = setting("WIKI_SECRET", "for this example only, not a secret");

    let database = open_database(&setting("WIKI_DATABASE", "wiki.sqlite3"))?;
    let cache = Cache::from_env_with_ledger(DieselLedger(database.clone()))?
        .prefix("wiki:")
        .secret(secret.as_str())
        .build();
    let sources = [
        ("layout.html", include_str!("templates/layout.html")),
        ("list.html", include_str!("templates/list.html")),
        ("article.html", include_str!("templates/article.html")),
        ("feed.xml", include_str!("templates/feed.xml")),
    ];
    let templates = Templates::new(Tera::default(), sources)?;

    // The pages show the name of the visitor, so they vary by the session, and by no other cookie.
    let version = templates.digest();
    let views = || ViewCache::builder(cache.layer("view")).version(version).vary_cookie("id");
    // A write cannot name every page and every search, so it forgets them as a group.
    let search = |q: &str| Some(q.trim().to_lowercase()).filter(|q| !q.is_empty());
    let lists = views().query_number("page").query_with("q", search).group(ARTICLES).build();
    let article = views().build();

    let (sessions, key) = (CacheSessionStore::new(&cache), Key::derive_from(secret.as_bytes()));
    let wiki = web::Data::new(Wiki {
        articles: Articles::new(database, &cache),
        templates,
        fragments: cache.layer("fragment"),
    });
    let server = HttpServer::new(move || {
        let sessions = SessionMiddleware::builder(sessions.clone(), key.clone());
        App::new()
            .app_data(wiki.clone())
            // For HTTP on this machine. Leave the line out where visitors come by HTTPS.
            .wrap(sessions.cookie_secure(false).build())
            .service(web::resource("/").wrap(lists.clone()).get(handlers::list))
            .service(web::resource("/feed").wrap(lists.clone()).get(handlers::feed))
            .service(web::resource("/api").wrap(lists.clone()).get(handlers::json))
            .service(
                web::resource("/wiki/{name}")
                    .wrap(article.clone())
                    .get(handlers::article)
                    .post(handlers::save),
            )
            .service(web::resource("/wiki/{name}/comments").post(handlers::comment))
            .service(web::resource("/log-in").post(handlers::log_in))
    });
    let server = server.workers(2).bind(setting("WIKI_ADDRESS", "127.0.0.1:8081"))?;
    for address in server.addrs() {
        writeln!(std::io::stdout(), "listening on http://{address}")?;
    }
    Ok(server.run().await?)
}

fn open_database(file: &str) -> Result<Database, Box<dyn Error>> {
    let pool = Pool::builder().connection_customizer(Box::new(Patience));
    let pool = pool.build(ConnectionManager::<SqliteConnection>::new(file))?;
    let mut conn = pool.get()?;
    conn.batch_execute(articles::TABLES)?;
    conn.batch_execute(Dialect::Sqlite.migration())?;
    Ok(DieselPool::new(pool, Dialect::Sqlite))
}

/// Lets a writer wait for another one, instead of failing at once.
#[derive(Debug)]
struct Patience;

impl CustomizeConnection<SqliteConnection, diesel::r2d2::Error> for Patience {
    fn on_acquire(&self, conn: &mut SqliteConnection) -> Result<(), diesel::r2d2::Error> {
        let settings = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL";
        conn.batch_execute(settings).map_err(diesel::r2d2::Error::QueryError)
    }
}
