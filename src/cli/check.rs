//! `tasklist check`: whether the database, its migrations and the cache work.

use memcached_client::Client;

use super::{cache::problem, output::print_line};
use crate::{
    config::{CacheBackend, CacheConfig, Config},
    db::{Db, DbError},
};

/// Prints the state of database, migrations, cache and sessions. Fails if one does not work.
pub(super) async fn run(config: &Config) -> Result<(), String> {
    let mut all_ok = true;
    let mut report = |what: &str, outcome: Result<String, String>| match outcome {
        Ok(state) => print_line(format_args!("{what}: {state}")),
        Err(problem) => {
            all_ok = false;
            print_line(format_args!("{what}: PROBLEM: {problem}"));
        }
    };
    let db = Db::new(&config.database);
    let url = &config.database.url;
    if url.names_new_file() {
        report("database", Ok(format!("{url}, which does not exist yet: the start creates it")));
        report("migrations", Ok("applied by the start".to_owned()));
    } else {
        report("database", database(&db, config).await);
        report("migrations", migrations(&db));
    }
    report("cache", cache(&config.cache).await);
    report("sessions", Ok(config.session.store.to_string()));
    if all_ok { Ok(()) } else { Err("not everything works".to_owned()) }
}

async fn database(db: &Db, config: &Config) -> Result<String, String> {
    let answer = db.ping().await;
    answer.map(|()| config.database.url.to_string()).map_err(|error| {
        format!("{error}; check DATABASE_URL, and that the database runs and lets this machine in")
    })
}

fn migrations(db: &Db) -> Result<String, String> {
    match db.pending_migrations() {
        Ok(0) => Ok("up to date".to_owned()),
        Ok(number) => Err(format!("{number} pending; run `tasklist migrate`")),
        Err(DbError::Unavailable(_)) => Err("cannot be read without the database".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

async fn cache(config: &CacheConfig) -> Result<String, String> {
    let CacheBackend::Memcached(servers) = &config.backend else {
        return Ok(config.backend.to_string());
    };
    let answers = Client::new(servers.config.clone()).noop().await;
    problem(&answers).map_or_else(|| Ok(config.backend.to_string()), Err)
}
