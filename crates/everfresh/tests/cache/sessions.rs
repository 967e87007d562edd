//! Runs the acceptance suite on every session store, and tests outages.

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

/// A stand-in for a database table. `None` simulates an outage.
#[derive(Clone)]
struct Table(Arc<Mutex<Option<Rows>>>);

impl Table {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Some(HashMap::new()))))
    }

    fn with<T>(&self, access: impl FnOnce(&mut Rows) -> T) -> Result<T, &'static str> {
        self.0.lock().unwrap().as_mut().map(access).ok_or("the table is unreachable")
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
async fn a_store_in_the_cache_passes_the_suite() {
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
async fn a_store_in_a_failing_cache_passes_the_suite() {
    session_suite(&CacheSessionStore::new(&Cache::failing().build()), Keeps::Nothing).await;
}

#[tokio::test]
async fn a_store_over_a_table_passes_the_suite_with_every_cache() {
    for cache in [Cache::memory(1 << 20).build(), Cache::null().build(), Cache::failing().build()] {
        session_suite(&CacheSessionStore::over(&cache, Table::new()), Keeps::Everything).await;
    }
}

#[tokio::test]
async fn a_store_over_an_unreachable_table_passes_the_suite() {
    let table = Table(Arc::new(Mutex::new(None)));
    let cache = Cache::memory(1 << 20).build();
    session_suite(&CacheSessionStore::over(&cache, table), Keeps::Nothing).await;
}

#[tokio::test]
async fn a_session_in_a_table_is_put_back_into_a_cleared_cache() {
    let (cache, table) = (Cache::memory(1 << 20).build(), Table::new());
    let store = CacheSessionStore::over(&cache, table.clone());
    let key = store.save(state("one"), &TTL).await.unwrap();
    cache.clear().await;
    assert_eq!(store.load(&key).await.unwrap(), Some(state("one")));
    let rows = table.0.lock().unwrap().clone();
    *table.0.lock().unwrap() = None;
    assert_eq!(
        store.load(&key).await.unwrap(),
        Some(state("one")),
        "the session is in the cache again"
    );
    *table.0.lock().unwrap() = rows;
    store.update_ttl(&key, &Duration::seconds(-1)).await.unwrap();
    assert_eq!(store.load(&key).await.unwrap(), None, "the session has expired");
}

#[tokio::test]
async fn during_an_outage_a_session_is_empty_and_afterwards_it_is_back() {
    let server = Memcached::start(Kind::Plain);
    let client = server.hasty_client(Protocol::Binary, std::time::Duration::from_secs(1));
    let cache = Cache::memcached(client).build();
    let store = CacheSessionStore::new(&cache);
    let key = store.save(state("precious"), &TTL).await.unwrap();

    server.signal("STOP");
    let mut during = store.load(&key).await.unwrap().unwrap();
    assert!(during.contains_key(UNAVAILABLE) && during.len() == 1, "{during:?}");
    server.signal("CONT");
    eventually("the client uses the server again", async || {
        store.load(&key).await.unwrap() == Some(state("precious"))
    })
    .await;
    // A request that began during the outage saves its session after it.
    during.insert("flash".to_owned(), "Added".to_owned());
    let key = store.update(key, during, &TTL).await.unwrap();
    assert_eq!(store.load(&key).await.unwrap(), Some(state("precious")));
}

#[tokio::test]
async fn reading_a_session_writes_nothing() {
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
