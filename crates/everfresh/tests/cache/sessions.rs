//! Every session store passes the suite, and outlives what it promises to outlive.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use actix_session::storage::SessionStore;
use actix_web::cookie::time::Duration;
use everfresh::{
    Cache, CacheSessionStore, DurableSessions, UNAVAILABLE,
    testing::{Keeps, session_suite},
};
use memcached_client::Protocol;
use test_support::{
    memcached::{Kind, Memcached},
    wait::eventually,
};

const TTL: Duration = Duration::hours(1);

type Rows = HashMap<String, (String, SystemTime)>;

/// A table, as far as a test needs it; `None` is one that cannot be reached.
#[derive(Clone)]
struct Table(Arc<Mutex<Option<Rows>>>);

impl Table {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Some(HashMap::new()))))
    }

    fn with<T>(&self, ask: impl FnOnce(&mut Rows) -> T) -> Result<T, &'static str> {
        self.0.lock().unwrap().as_mut().map(ask).ok_or("away")
    }
}

impl DurableSessions for Table {
    type Error = &'static str;

    async fn load(&self, key: &str) -> Result<Option<(String, SystemTime)>, Self::Error> {
        self.with(|rows| rows.get(key).filter(|(_, end)| *end > SystemTime::now()).cloned())
    }

    async fn insert(&self, key: &str, state: String, end: SystemTime) -> Result<(), Self::Error> {
        self.with(|rows| drop(rows.insert(key.to_owned(), (state, end))))
    }

    async fn update(
        &self,
        key: &str,
        state: Option<String>,
        end: SystemTime,
    ) -> Result<bool, Self::Error> {
        self.with(|rows| {
            rows.get_mut(key).map(|row| *row = (state.unwrap_or(row.0.clone()), end)).is_some()
        })
    }

    async fn delete(&self, key: &str) -> Result<(), Self::Error> {
        self.with(|rows| drop(rows.remove(key)))
    }
}

fn state(name: &str) -> HashMap<String, String> {
    HashMap::from([("name".to_owned(), name.to_owned())])
}

#[tokio::test]
async fn in_the_cache() {
    let server = Memcached::start(Kind::Plain);
    let caches = [
        Cache::memory(1 << 20).build(),
        Cache::memcached(server.client(Protocol::Binary)).build(),
        Cache::memcached(server.client(Protocol::Text)).build(),
    ];
    for cache in caches {
        session_suite(&CacheSessionStore::new(&cache), Keeps::Everything).await;
    }
}

#[tokio::test]
async fn in_a_cache_that_is_away() {
    session_suite(&CacheSessionStore::new(&Cache::failing().build()), Keeps::Nothing).await;
}

#[tokio::test]
async fn in_the_cache_over_a_table_whatever_becomes_of_the_cache() {
    for cache in [Cache::memory(1 << 20).build(), Cache::null().build(), Cache::failing().build()] {
        session_suite(&CacheSessionStore::over(&cache, Table::new()), Keeps::Everything).await;
    }
}

#[tokio::test]
async fn over_a_table_that_is_away() {
    let table = Table(Arc::new(Mutex::new(None)));
    let cache = Cache::memory(1 << 20).build();
    session_suite(&CacheSessionStore::over(&cache, table), Keeps::Nothing).await;
}

#[tokio::test]
async fn over_a_table_a_session_outlives_the_cache_and_is_put_back_into_it() {
    let (cache, table) = (Cache::memory(1 << 20).build(), Table::new());
    let store = CacheSessionStore::over(&cache, table.clone());
    let key = store.save(state("one"), &TTL).await.unwrap();
    cache.clear().await;
    assert_eq!(store.load(&key).await.unwrap(), Some(state("one")));
    let rows = table.0.lock().unwrap().clone();
    *table.0.lock().unwrap() = None;
    assert_eq!(store.load(&key).await.unwrap(), Some(state("one")), "from the cache again");
    *table.0.lock().unwrap() = rows;
    store.update_ttl(&key, &Duration::seconds(-1)).await.unwrap();
    assert_eq!(store.load(&key).await.unwrap(), None, "what has ended is gone");
}

#[tokio::test]
async fn an_outage_is_an_empty_session_and_what_the_store_held_is_there_afterwards() {
    let server = Memcached::start(Kind::Plain);
    let client = server.hasty_client(Protocol::Binary, std::time::Duration::from_secs(1));
    let cache = Cache::memcached(client).build();
    let store = CacheSessionStore::new(&cache);
    let key = store.save(state("precious"), &TTL).await.unwrap();

    server.signal("STOP");
    let mut during = store.load(&key).await.unwrap().unwrap();
    assert!(during.contains_key(UNAVAILABLE) && during.len() == 1, "{during:?}");
    server.signal("CONT");
    eventually("the server is used again", async || {
        store.load(&key).await.unwrap() == Some(state("precious"))
    })
    .await;
    // The request that began during the outage ends after it.
    during.insert("flash".to_owned(), "Added".to_owned());
    let key = store.update(key, during, &TTL).await.unwrap();
    assert_eq!(store.load(&key).await.unwrap(), Some(state("precious")));
}

#[tokio::test]
async fn a_session_that_is_only_read_costs_no_write() {
    let server = Memcached::start(Kind::Plain);
    let cache = Cache::memcached(server.client(Protocol::Binary)).build();
    let store = CacheSessionStore::new(&cache);
    let key = store.save(state("one"), &TTL).await.unwrap();
    let sets = server.stat("cmd_set");
    for _ in 0..3 {
        store.load(&key).await.unwrap();
    }
    assert_eq!(server.stat("cmd_set"), sets);
}
