//! A reader never gets a value older than an invalidation that was confirmed before it began.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use everfresh::{Attempt, Cache, Invalidation, Ledger, Lifetime, replay, replay_once};
use memcached_client::{Client, Protocol};
use test_support::{
    counting_proxy::CountingProxy,
    memcached::{Kind, Memcached, config_of},
    wait::eventually,
};
use tokio::sync::Notify;

use crate::values::not_kept::{collect_warnings, warnings_of};

async fn on_every_backend(check: impl AsyncFn(&Cache)) {
    let server = Memcached::start(Kind::Plain);
    check(&Cache::memory(1 << 20).build()).await;
    check(&Cache::memcached(server.client(Protocol::Binary)).build()).await;
    check(&Cache::memcached(server.client(Protocol::Text)).prefix("text:").build()).await;
    check(&Cache::memcached(server.client(Protocol::Meta)).prefix("meta:").build()).await;
}

/// Gets the value under `k`, computed by reading `value`.
async fn get(cache: &Cache, value: &Mutex<u32>) -> u32 {
    let read = async || Ok::<_, ()>(*value.lock().unwrap());
    cache.get_or_compute("k", Lifetime::Forever, read).await.unwrap()
}

#[tokio::test]
async fn a_slow_reader_does_not_store_a_value_from_before_a_write() {
    on_every_backend(async |cache: &Cache| {
        let value = Arc::new(Mutex::new(1));
        let (has_read, may_store) = (Notify::new(), Notify::new());
        let slow = async {
            let compute = async || {
                let read = *value.lock().unwrap();
                has_read.notify_one();
                may_store.notified().await;
                Ok::<_, ()>(read)
            };
            cache.get_or_compute("k", Lifetime::Forever, compute).await.unwrap()
        };
        let writer = async {
            has_read.notified().await;
            *value.lock().unwrap() = 2;
            // As another process would: this one remembers only its invalidations.
            assert!(cache.delete("k").await);
            may_store.notify_one();
        };
        let (slow, ()) = futures_util::future::join(slow, writer).await;
        assert_eq!(slow, 1, "it began before the write");
        assert_eq!(get(cache, &value).await, 2);
        cache.clear().await;
    })
    .await;
}

/// Computes a value of 10,000 bytes, whose key is deleted meanwhile by `invalidating`. Returns how many bytes the
/// server has received.
async fn received(server: &Memcached, cache: &Cache, invalidating: &Cache) -> u64 {
    let before = server.stat("bytes_read");
    let compute = async || {
        assert!(invalidating.invalidate(&Invalidation::of(["k"])).await);
        Ok::<_, ()>("x".repeat(10_000))
    };
    let refused = cache.stats()["cache"].refused_fills;
    cache.get_or_compute("k", Lifetime::Forever, compute).await.unwrap();
    eventually("the computation ends", async || cache.stats()["cache"].refused_fills > refused)
        .await;
    server.stat("bytes_read") - before
}

#[tokio::test]
async fn a_value_whose_key_its_own_process_has_deleted_is_not_sent() {
    let server = Memcached::start(Kind::Plain);
    for protocol in [Protocol::Binary, Protocol::Meta] {
        let [cache, other] = [(), ()].map(|()| Cache::memcached(server.client(protocol)).build());
        assert!(received(&server, &cache, &cache).await < 5000);
        assert!(received(&server, &cache, &other).await > 5000);
        assert!(!server.keys().contains(&"k".to_owned()), "no reservation is left");
    }
}

#[tokio::test]
async fn a_joiner_does_not_get_a_value_older_than_a_confirmed_write() {
    on_every_backend(async |cache: &Cache| {
        let value = Arc::new(Mutex::new(1));
        let (has_read, may_go_on) = (Notify::new(), Notify::new());
        let leader = async {
            let compute = async || {
                let read = *value.lock().unwrap();
                has_read.notify_one();
                may_go_on.notified().await;
                Ok::<_, ()>(read)
            };
            cache.get_or_compute("k", Lifetime::Forever, compute).await.unwrap()
        };
        let joiners = async {
            has_read.notified().await;
            *value.lock().unwrap() = 2;
            assert!(cache.delete("k").await);
            let waits = cache.stats()["cache"].waits;
            let joining = futures_util::future::join_all((0..10).map(|_| get(cache, &value)));
            let releasing = async {
                let joined = async || cache.stats()["cache"].waits >= waits + 10;
                eventually("all readers have joined", joined).await;
                may_go_on.notify_one();
            };
            futures_util::future::join(joining, releasing).await.0
        };
        let (leader, joiners) = futures_util::future::join(leader, joiners).await;
        assert_eq!(leader, 1, "it began before the write");
        assert_eq!(joiners, [2; 10], "they began after the write");
        cache.clear().await;
    })
    .await;
}

#[tokio::test]
async fn a_value_read_before_the_cache_was_cleared_is_not_stored() {
    on_every_backend(async |cache: &Cache| {
        let compute = async || {
            assert!(cache.clear().await);
            Ok::<_, ()>(1)
        };
        let value = cache.get_or_compute("k", Lifetime::Forever, compute).await;
        assert_eq!((value, cache.get::<u32>("k").await), (Ok(1), None));
    })
    .await;
}

#[tokio::test]
async fn touching_a_leased_key_does_not_end_the_lease() {
    on_every_backend(async |cache: &Cache| {
        let compute = async || {
            assert!(!cache.touch("k", Lifetime::Forever).await, "the key has no value yet");
            Ok::<_, ()>(1)
        };
        cache.get_or_compute("k", Lifetime::Forever, compute).await.unwrap();
        assert_eq!(cache.get::<u32>("k").await, Some(1), "the value was stored");
        cache.clear().await;
    })
    .await;
}

#[tokio::test]
async fn a_value_that_cannot_be_stored_deletes_the_older_one() {
    let cache = Cache::memory(1 << 20).build();
    cache.set("k", &"old", Lifetime::Forever).await;
    assert!(!cache.set("k", &"x".repeat(1 << 20), Lifetime::Forever).await);
    assert_eq!(cache.get::<String>("k").await, None);
}

#[tokio::test]
async fn a_lease_is_not_valid_after_a_restart_of_the_server() {
    let mut server = Memcached::start(Kind::Plain);
    let cache = Cache::memcached(server.client(Protocol::Binary)).build();
    let (has_read, may_store) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (reading, storing, slow) = (has_read.clone(), may_store.clone(), cache.clone());
    let slow = tokio::spawn(async move {
        let compute = async || {
            reading.notify_one();
            storing.notified().await;
            Ok::<_, ()>("old".to_owned())
        };
        slow.get_or_compute("k", Lifetime::Forever, compute).await
    });
    has_read.notified().await;
    server.restart();
    eventually("the server is back", async || cache.set("k", &"new", Lifetime::Forever).await)
        .await;
    may_store.notify_one();
    assert_eq!(slow.await.unwrap().as_deref(), Ok("old"));
    assert_eq!(cache.get::<String>("k").await.as_deref(), Some("new"));
}

#[tokio::test]
async fn a_lease_that_is_written_back_is_worth_nothing_after_its_time() {
    let server = Memcached::start(Kind::Plain);
    let client = server.client(Protocol::Binary);
    let cache = Cache::memcached(client.clone()).build();
    let mut lease = None;
    let compute = async || {
        lease = client.get("k").await.unwrap();
        Ok::<_, ()>(1)
    };
    cache.get_or_compute("k", Lifetime::Forever, compute).await.unwrap();
    // Without the lifetime with which it was stored.
    client.set("k", &lease.expect("a lease").data).await.unwrap();
    eventually("a value is stored again", async || {
        cache.get_or_compute("k", Lifetime::Forever, async || Ok::<_, ()>(2)).await.unwrap();
        cache.get("k").await == Some(2)
    })
    .await;
}

#[tokio::test]
async fn bytes_that_are_not_an_entry_are_replaced() {
    let server = Memcached::start(Kind::Plain);
    let client = server.client(Protocol::Binary);
    let cache = Cache::memcached(client.clone()).build();
    let long = vec![0xac; 3000];
    let junk: [&[u8]; 5] = [b"x", b"\xac\xca\x01", b"\xac\xca\x01\x07", &[0xff; 20], &long];
    for bytes in junk {
        client.set("k", bytes).await.unwrap();
        assert_eq!(cache.get::<u32>("k").await, None, "{bytes:?}");
        let value = cache.get_or_compute("k", Lifetime::Forever, async || Ok::<_, ()>(7)).await;
        assert_eq!(value, Ok(7));
        assert_eq!(cache.get("k").await, Some(7), "{bytes:?}");
    }
}

/// Rows, and how often they were read.
#[derive(Clone, Default)]
struct Rows(Arc<Mutex<Vec<(u32, Invalidation)>>>, Arc<AtomicUsize>);

impl Ledger for Rows {
    type Error = String;
    type Id = u32;

    async fn left(
        &self,
        after: Option<&u32>,
        _: Duration,
        limit: usize,
    ) -> Result<Vec<(u32, Invalidation)>, String> {
        self.1.fetch_add(1, Ordering::Relaxed);
        let rows = self.0.lock().unwrap();
        let rows = rows.iter().filter(|(row, _)| after.is_none_or(|after| row > after));
        Ok(rows.take(limit).cloned().collect())
    }

    async fn remove(&self, ids: &[u32]) -> Result<(), String> {
        self.0.lock().unwrap().retain(|(row, _)| !ids.contains(row));
        Ok(())
    }

    async fn merge(&self, ids: &[u32], into: &Invalidation) -> Result<(), String> {
        let mut rows = self.0.lock().unwrap();
        let next = rows.iter().map(|(row, _)| row + 1).max().unwrap_or(1);
        rows.retain(|(row, _)| !ids.contains(row));
        rows.push((next, into.clone()));
        Ok(())
    }
}

/// Writes `2` over `1`, as a transaction of an app does. `commit` is its outcome.
async fn write(
    cache: &Cache,
    rows: &Rows,
    value: &Arc<Mutex<u32>>,
    commit: Result<(), &'static str>,
) -> Result<&'static str, &'static str> {
    let (rows, value, writer) = (rows.clone(), value.clone(), cache.writer(rows.clone()));
    let transaction = move |attempt: Attempt| async move {
        *value.lock().unwrap() = 2;
        let row = attempt.announce(Invalidation::of(["k"]), |announced| {
            rows.0.lock().unwrap().push((1, announced.clone()));
            Ok::<_, &'static str>(1)
        })?;
        commit.map(|()| ("written", row))
    };
    writer.write(transaction).await
}

#[tokio::test]
async fn a_write_deletes_its_entries_and_settles_its_row() {
    on_every_backend(async |cache: &Cache| {
        let (rows, value) = (Rows::default(), Arc::new(Mutex::new(1)));
        assert_eq!(get(cache, &value).await, 1);
        assert_eq!(write(cache, &rows, &value, Ok(())).await, Ok("written"));
        assert_eq!(get(cache, &value).await, 2);
        eventually("the row is removed", async || rows.0.lock().unwrap().is_empty()).await;
        cache.clear().await;
    })
    .await;
}

#[tokio::test]
async fn a_value_within_a_computation_is_looked_up_and_reserved_in_one_round_trip() {
    let proxy = CountingProxy::start();
    let cache = Cache::memcached(proxy.client()).build();
    let inner = async |value: u32| {
        cache.get_or_compute("inner", Lifetime::Forever, async || Ok::<_, ()>(value)).await
    };
    let outer = async |value: u32| {
        cache.delete("outer").await;
        proxy.round_trips();
        let compute = async || inner(value).await;
        let value = cache.get_or_compute("outer", Lifetime::Forever, compute).await;
        // Its answer comes after those of the stores, which nothing waits for.
        cache.get::<u32>("another").await;
        (value, proxy.round_trips() - 1)
    };
    cache.get::<u32>("connect").await;
    // Get, add, and store of the outer value; get with add, which count as two, and store of the inner one.
    assert_eq!(outer(1).await, (Ok(1), 3 + 3));
    let stats = cache.stats()["cache"];
    assert_eq!((stats.hits, stats.misses), (0, 4));
    assert_eq!(
        outer(2).await,
        (Ok(1), 3 + 4),
        "the inner value is expected to be missing, and found"
    );
    assert_eq!(outer(2).await, (Ok(1), 3 + 2), "it is not expected to be missing any more");
    assert_eq!(cache.stats()["cache"].hits, 2);

    // A value of another type is replaced.
    cache.set("inner", &"text", Lifetime::Forever).await;
    assert_eq!(outer(3).await.0, Ok(3));
    assert_eq!(inner(4).await, Ok(3));
}

#[tokio::test]
async fn of_many_processes_one_reads_the_ledger_and_another_takes_over_when_it_is_gone() {
    let server = Memcached::start(Kind::Plain);
    let rows = Rows::default();
    let start = || {
        let cache = Cache::memcached(server.client(Protocol::Binary)).build();
        let ledger = Rows(rows.0.clone(), Arc::default());
        (ledger.1.clone(), tokio::spawn(replay(cache, ledger)))
    };
    let mut processes: Vec<_> = (0..8).map(|_| start()).collect();
    let reads = |processes: &[(Arc<AtomicUsize>, _)]| -> Vec<usize> {
        processes.iter().map(|(reads, _)| reads.load(Ordering::Relaxed)).collect()
    };
    eventually("each has replayed once", async || reads(&processes).iter().all(|n| *n > 0)).await;
    let before = reads(&processes);
    let since = || -> Vec<_> {
        reads(&processes).iter().zip(&before).map(|(now, before)| now - before).collect()
    };
    eventually("one goes on", async || since().iter().any(|reads| *reads >= 6)).await;
    let since = since();
    assert!(since.iter().sum::<usize>() < 4 * 6, "each would have read six times: {since:?}");

    let reader = since.iter().position(|reads| *reads >= 6).unwrap();
    processes.swap_remove(reader).1.abort();
    rows.0.lock().unwrap().push((1, Invalidation::of(["k"])));
    eventually("another one replays", async || rows.0.lock().unwrap().is_empty()).await;
}

#[tokio::test]
async fn while_rows_are_left_every_process_replays() {
    let mut servers = [Memcached::start(Kind::Plain), Memcached::start(Kind::Plain)];
    servers[1].kill();
    let rows = Rows::default();
    // Some of the keys are on the server that is away. The process that reads the ledger may be the only one
    // that cannot reach it.
    rows.0.lock().unwrap().push((1, Invalidation::of((0..20).map(|n| format!("k{n}")))));
    let start = || {
        let cache = Cache::memcached(Client::new(config_of(&servers))).build();
        let ledger = Rows(rows.0.clone(), Arc::default());
        (ledger.1.clone(), tokio::spawn(replay(cache, ledger)))
    };
    let processes: Vec<_> = (0..3).map(|_| start()).collect();
    let all_read = async || processes.iter().all(|(reads, _)| reads.load(Ordering::Relaxed) >= 5);
    eventually("each goes on", all_read).await;
}

#[tokio::test]
async fn a_write_whose_commit_fails_deletes_its_entries_and_its_row_is_replayed() {
    let server = Memcached::start(Kind::Plain);
    let cache = Cache::memcached(server.client(Protocol::Binary)).build();
    let (rows, value) = (Rows::default(), Arc::new(Mutex::new(1)));
    assert_eq!(get(&cache, &value).await, 1);
    // The connection broke, and the server may have committed.
    let outcome = write(&cache, &rows, &value, Err("the connection broke")).await;
    assert_eq!(outcome, Err("the connection broke"));
    assert_eq!(get(&cache, &value).await, 2);
    let _other_process = cache.writer(rows.clone());
    eventually("the row is replayed", async || rows.0.lock().unwrap().is_empty()).await;
}

#[tokio::test]
async fn a_write_goes_on_when_its_visitor_has_left() {
    let cache = Cache::memory(1 << 20).build();
    let value = Arc::new(Mutex::new(1));
    assert_eq!(get(&cache, &value).await, 1);
    let (may_commit, written) = (Arc::new(Notify::new()), value.clone());
    let commit = may_commit.clone();
    let writer = cache.writer(Rows::default());
    let transaction = move |attempt: Attempt| async move {
        commit.notified().await;
        *written.lock().unwrap() = 2;
        let row = attempt.announce(Invalidation::of(["k"]), |_| Ok::<u32, ()>(1))?;
        assert_eq!(row, None, "no other process shares the cache");
        Ok::<_, ()>(((), row))
    };
    // It is polled once, and dropped.
    let left = tokio::time::timeout(Duration::ZERO, writer.write(transaction)).await;
    assert!(left.is_err());
    may_commit.notify_one();
    eventually("the entry is deleted", async || get(&cache, &value).await == 2).await;
}

#[tokio::test]
async fn an_invalidation_in_the_ledger_is_replayed_and_removed() {
    let cache = Cache::memory(1 << 20).build();
    let rows = Rows::default();
    for key in ["query", "page", "other"] {
        cache.set(key, &1, Lifetime::Forever).await;
    }
    rows.0.lock().unwrap().push((1, Invalidation::of(["query"]).then(["page"])));
    let replaying = tokio::spawn(replay(cache.clone(), rows.clone()));
    eventually("the row is replayed", async || rows.0.lock().unwrap().is_empty()).await;
    assert_eq!(cache.get_many::<u8>(&["query", "page", "other"]).await, [None, None, Some(1)]);
    replaying.abort();
}

/// A ledger that counts how often it was asked, and is down at first and later again.
#[derive(Clone, Default)]
struct Unreliable(Arc<AtomicUsize>);

impl Ledger for Unreliable {
    type Error = &'static str;
    type Id = u32;

    async fn left(
        &self,
        _: Option<&u32>,
        _: Duration,
        _: usize,
    ) -> Result<Vec<(u32, Invalidation)>, &'static str> {
        let is_up = self.0.fetch_add(1, Ordering::SeqCst) == 3;
        if is_up { Ok(vec![]) } else { Err("the unreliable ledger is down") }
    }

    async fn remove(&self, _: &[u32]) -> Result<(), &'static str> {
        Ok(())
    }

    async fn merge(&self, _: &[u32], _: &Invalidation) -> Result<(), &'static str> {
        Ok(())
    }
}

#[tokio::test]
async fn an_error_of_the_ledger_is_logged_once_until_it_works_again() {
    collect_warnings();
    let ledger = Unreliable::default();
    let replaying = tokio::spawn(replay(Cache::memory(1 << 20).build(), ledger.clone()));
    let warnings = || warnings_of("replayed: the unreliable ledger is down").len();
    let asked = async |times| {
        eventually("it was asked", async || ledger.0.load(Ordering::SeqCst) >= times).await;
    };
    asked(3).await;
    assert_eq!(warnings(), 1);
    asked(6).await;
    assert_eq!(warnings(), 2);
    replaying.abort();
}

#[tokio::test]
async fn rows_that_cannot_be_confirmed_stay_and_do_not_delay_others() {
    let mut servers: Vec<_> = (0..2).map(|_| Memcached::start(Kind::Plain)).collect();
    let client = memcached_client::Client::new(test_support::memcached::config_of(&servers));
    let cache = Cache::memcached(client.clone()).build();
    let key_on = |server: &Memcached| {
        let keys = (0..1000).map(|n| format!("key{n}"));
        keys.clone().find(|key| *client.server_of(key).unwrap() == server.address()).unwrap()
    };
    let (query, page) = (key_on(&servers[0]), key_on(&servers[1]));
    let other = format!("{page}/other");
    let other = (0..1000)
        .map(|n| format!("{other}{n}"))
        .find(|key| *client.server_of(key).unwrap() == servers[1].address())
        .unwrap();
    cache.set(&query, &1, Lifetime::Forever).await;
    cache.set(&page, &1, Lifetime::Forever).await;
    servers[0].kill();
    let rows = Rows::default();
    let invalidation = Invalidation::of([query.clone()]).then([page.clone()]);
    assert!(!cache.invalidate(&invalidation).await, "one server is down");
    assert_eq!(cache.get::<u8>(&page).await, None, "the other server has deleted its key");
    // Many rows that cannot be confirmed must not delay another row.
    rows.0.lock().unwrap().extend((1..=1500).map(|row| (row, invalidation.clone())));
    cache.set(&page, &1, Lifetime::Forever).await;
    cache.set(&other, &1, Lifetime::Forever).await;
    rows.0.lock().unwrap().push((1501, Invalidation::of([other.clone()])));
    assert_eq!(replay_once(&cache, &rows, Duration::ZERO).await, Ok(false));
    assert_eq!(cache.get::<u8>(&other).await, None);
    let left = rows.0.lock().unwrap().clone();
    assert_eq!(left.len(), 1, "equal rows have been merged");
    assert_eq!(left[0].1, invalidation);
    assert!(servers[0].run());
    eventually("the ledger is empty", async || {
        replay_once(&cache, &rows, Duration::ZERO).await == Ok(true)
    })
    .await;
    assert!(rows.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_outer_level_on_another_server_waits_for_the_inner_one() {
    let servers: Vec<_> = (0..2).map(|_| Memcached::start(Kind::Plain)).collect();
    let client = memcached_client::Client::new(test_support::memcached::config_of(&servers));
    let cache = Cache::memcached(client.clone()).build();
    let key_on = |server: &Memcached| {
        let mut keys = (0..1000).map(|n| format!("key{n}"));
        keys.find(|key| *client.server_of(key).unwrap() == server.address()).unwrap()
    };
    let (query, page) = (key_on(&servers[0]), key_on(&servers[1]));
    for key in [&query, &page] {
        cache.set(key, &1, Lifetime::Forever).await;
    }
    servers[0].signal("STOP");
    let invalidation = Invalidation::of([query]).then([page.clone()]);
    let look = async {
        let is_deleting = async || client.status()[0].in_flight == 1;
        eventually("the inner level is being deleted", is_deleting).await;
        let found = cache.get::<u8>(&page).await;
        servers[0].signal("CONT");
        found
    };
    let outcome = futures_util::future::join(cache.invalidate(&invalidation), look).await;
    assert_eq!(outcome, (true, Some(1)));
    assert_eq!(cache.get::<u8>(&page).await, None);
}

#[tokio::test]
async fn an_invalidation_on_one_server_takes_one_round_trip() {
    let proxy = CountingProxy::start();
    let cache = Cache::memcached(proxy.client()).build();
    cache.set("query", &1, Lifetime::Forever).await;
    proxy.round_trips();
    assert!(cache.invalidate(&Invalidation::of(["query"]).then(["page"])).await);
    assert_eq!(proxy.round_trips(), 1);
}

#[tokio::test]
async fn a_server_serves_no_stale_entry_after_an_outage() {
    for protocol in [Protocol::Binary, Protocol::Meta, Protocol::Text] {
        let server = Memcached::start(Kind::Plain);
        let rows = Rows::default();
        let mut config = server.config(protocol);
        config.timeout = Duration::from_secs(1);
        let builder = Cache::memcached_with_ledger(config, rows.clone());
        let cache = builder.prefix("app:").version(2).build();
        cache.set("page", &"old", Lifetime::Forever).await;
        cache.set("other", &"same", Lifetime::Forever).await;
        server.signal("STOP");
        let invalidation = Invalidation::of(["query"]).then(["page"]);
        // More rows than are read at once, and this one last.
        let others = (1..=1000).map(|row| (row, Invalidation::of([format!("another {row}")])));
        rows.0.lock().unwrap().extend(others);
        rows.0.lock().unwrap().push((1001, invalidation.clone()));
        assert!(!cache.invalidate(&invalidation).await, "the server is stopped");
        server.signal("CONT");
        eventually("the client uses the server again", async || {
            assert_eq!(cache.get::<String>("page").await, None);
            cache.get::<String>("other").await.as_deref() == Some("same")
        })
        .await;
        assert_eq!(cache.get::<String>("page").await, None);
        assert_eq!(rows.0.lock().unwrap().len(), 1001, "only the replay removes rows");
    }
}

#[tokio::test]
async fn a_transaction_of_futures_announces_its_invalidation_and_stores_its_row() {
    let server = Memcached::start(Kind::Plain);
    for cache in
        [Cache::memcached(server.client(Protocol::Binary)).build(), Cache::memory(1 << 20).build()]
    {
        cache.set("k", &1, Lifetime::Forever).await;
        let (is_shared, writer) = (cache.is_shared(), cache.writer(Rows::default()));
        let transaction = move |attempt: Attempt| async move {
            let store = |_: Invalidation| async { Ok::<u32, ()>(7) };
            let row = attempt.announce_async(Invalidation::of(["k"]), store).await?;
            assert_eq!(row, is_shared.then_some(7));
            Ok::<_, ()>(((), row))
        };
        assert_eq!(writer.write(transaction).await, Ok(()));
        assert_eq!(cache.get::<u8>("k").await, None);
    }
}
