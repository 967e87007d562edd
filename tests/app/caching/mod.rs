//! The cached task list. Hits and misses are those that memcached itself counts.

mod costs;
mod freshness;
mod memcached_outages;
mod sessions;
mod untrusted_memcached;

use memcached_client::Protocol;
use test_support::{
    app::TestApp,
    database::TestDatabase,
    memcached::{Kind, Memcached},
};

/// Starts the app on `database`, with a memcached of its own.
fn cached_app(database: TestDatabase, settings: &[(&str, &str)]) -> (TestApp, Memcached) {
    let server = Memcached::start(Kind::Plain);
    let address = server.address().to_string();
    let mut all = vec![("MEMCACHIER_SERVERS", address.as_str())];
    all.extend(settings);
    (TestApp::with(database, &all), server)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn flush(server: &Memcached) {
    block_on(async {
        for (_, flushed) in server.client(Protocol::Binary).flush().await {
            flushed.unwrap();
        }
    });
}

/// Gets that memcached counted: hits and misses.
type Gets = (u64, u64);

/// Returns the gets that memcached counts while `request` runs.
fn count_gets(server: &Memcached, request: impl FnOnce()) -> Gets {
    let (hits, misses) = (server.stat("get_hits"), server.stat("get_misses"));
    request();
    (server.stat("get_hits") - hits, server.stat("get_misses") - misses)
}

/// Inserts tasks directly, without invalidating any cache entry.
fn insert_tasks(database: &TestDatabase, number: usize) {
    if number > 0 {
        let values: Vec<_> = (1..=number).map(|n| format!("('task {n}')")).collect();
        database.execute(&format!("INSERT INTO task (name) VALUES {}", values.join(",")));
    }
}
