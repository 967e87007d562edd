//! The backend against a real Redis server.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use everfresh::{
    Cache, Lifetime,
    testing::{Keeps, backend_suite},
};
use everfresh_redis::{ConnectError, Redis};
use test_support::{redis::RedisServer, wait::eventually};

async fn cache(server: &RedisServer) -> Cache {
    Cache::with_backend(Redis::connect(&server.url()).await.unwrap()).prefix("app:").build()
}

#[tokio::test]
async fn the_backend_passes_the_suite() {
    let server = RedisServer::start();
    backend_suite(&cache(&server).await, Keeps::Everything).await;
}

#[tokio::test]
async fn a_server_that_has_stopped_passes_the_suite_and_is_used_again_when_it_runs() {
    let mut server = RedisServer::start();
    let cache = cache(&server).await;
    assert!(cache.set("k", &1, Lifetime::Forever).await);
    server.kill();
    backend_suite(&cache, Keeps::Nothing).await;
    server.run();
    eventually("it is used again", async || cache.set("k", &2, Lifetime::Forever).await).await;
    backend_suite_is_clean(&cache).await;
}

async fn backend_suite_is_clean(cache: &Cache) {
    cache.clear_servers().await;
    backend_suite(cache, Keeps::Everything).await;
}

#[tokio::test]
async fn a_server_that_does_not_run_yet_is_used_when_it_does() {
    let mut server = RedisServer::start();
    server.kill();
    let cache = cache(&server).await;
    assert!(!cache.set("k", &1, Lifetime::Forever).await);
    server.run();
    eventually("it is used", async || cache.set("k", &1, Lifetime::Forever).await).await;
}

#[tokio::test]
async fn a_server_that_keeps_entries_over_a_restart_is_refused() {
    for (settings, expected) in [
        (["--save", "3600 1", "--appendonly", "no"], "save"),
        (["--save", "", "--appendonly", "yes"], "appendonly"),
    ] {
        let server = RedisServer::with(&settings);
        let error = Redis::connect(&server.url()).await.unwrap_err();
        let ConnectError::Persistent { setting, .. } = &error else { panic!("{error}") };
        assert_eq!(*setting, expected);
        assert!(error.to_string().contains("would bring back"), "{error}");
        assert!(Redis::connect_to_volatile(&server.url()).is_ok());
    }
}

#[tokio::test]
async fn a_server_that_has_loaded_an_old_snapshot_is_refused() {
    let mut server = RedisServer::start();
    server.ask("SET app:k old");
    assert_eq!(server.ask("SAVE").as_deref(), Some("+OK"));
    server.kill();
    server.run();
    assert_eq!(server.ask("EXISTS app:k").as_deref(), Some(":1"), "it is back");
    let error = Redis::connect(&server.url()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Snapshot { .. }), "{error}");
    assert!(error.to_string().contains("delete its file dump.rdb"), "{error}");
}

#[tokio::test]
async fn a_server_that_keeps_entries_and_starts_late_stores_nothing() {
    let mut server = RedisServer::with(&["--save", "3600 1"]);
    server.kill();
    let cache = cache(&server).await;
    server.run();
    eventually("an error is counted", async || {
        assert!(!cache.set("k", &1, Lifetime::Forever).await);
        server.ask("DBSIZE").is_some_and(|size| size == ":0") && cache.stats()["cache"].errors > 3
    })
    .await;
}

#[tokio::test]
async fn an_error_shows_no_password() {
    let error = Redis::connect_to_volatile("redis://:hunter2@[/").unwrap_err();
    assert!(matches!(error, ConnectError::Url(_)));
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test]
async fn bytes_of_another_program_are_replaced() {
    let server = RedisServer::start();
    let cache = cache(&server).await;
    for foreign in ["text", "7", "\u{ef}"] {
        server.ask(&format!("SET app:k {foreign}"));
        assert_eq!(cache.get_with("k", Lifetime::Forever, async || 1).await, 1, "{foreign}");
        eventually("it is stored", async || cache.get::<u32>("k").await == Some(1)).await;
        assert!(cache.delete("k").await);
    }
}

/// Two processes write and read while the server is killed repeatedly: no reader gets a value older than the last write
/// with a confirmed deletion before it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_value_is_stale_while_the_server_is_killed() {
    const KILLS: u32 = 5;
    let mut server = RedisServer::start();
    let caches = [cache(&server).await, cache(&server).await];
    let (stored, confirmed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (ends, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let readers = [0, 1, 0, 1].map(|process| {
        let cache = caches[process].clone();
        let (stored, confirmed) = (Arc::clone(&stored), Arc::clone(&confirmed));
        let (ends, reads) = (Arc::clone(&ends), Arc::clone(&reads));
        tokio::spawn(async move {
            while !ends.load(Ordering::SeqCst) {
                let at_least = confirmed.load(Ordering::SeqCst);
                let compute = async || {
                    let value = stored.load(Ordering::SeqCst);
                    // Time for a write in between.
                    for _ in 0..1000 {
                        tokio::task::yield_now().await;
                    }
                    value
                };
                let value = cache.get_with("k", Lifetime::Forever, compute).await;
                assert!(value >= at_least, "{value} after {at_least} was confirmed");
                reads.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
        })
    });
    let writer = {
        let (cache, stored) = (caches[0].clone(), Arc::clone(&stored));
        let (confirmed, ends) = (Arc::clone(&confirmed), Arc::clone(&ends));
        let reads = Arc::clone(&reads);
        tokio::spawn(async move {
            while !ends.load(Ordering::SeqCst) {
                // Half of the writes let values be served in between; the others meet computations.
                let pause = if stored.load(Ordering::SeqCst) % 2 == 0 { 20 } else { 0 };
                let until = reads.load(Ordering::SeqCst) + pause;
                while reads.load(Ordering::SeqCst) < until && !ends.load(Ordering::SeqCst) {
                    tokio::task::yield_now().await;
                }
                let value = stored.fetch_add(1, Ordering::SeqCst) + 1;
                // As the ledger does: again and again, until it is confirmed.
                while !cache.delete("k").await && !ends.load(Ordering::SeqCst) {
                    tokio::task::yield_now().await;
                }
                if !ends.load(Ordering::SeqCst) {
                    confirmed.store(value, Ordering::SeqCst);
                }
            }
        })
    };
    for _ in 0..KILLS {
        let (reads_before, confirmed_before) =
            (reads.load(Ordering::SeqCst), confirmed.load(Ordering::SeqCst));
        eventually("it works", async || {
            reads.load(Ordering::SeqCst) > reads_before + 2000
                && confirmed.load(Ordering::SeqCst) > confirmed_before + 50
        })
        .await;
        server.kill();
        server.run();
    }
    ends.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
    writer.await.unwrap();
    let hits: u64 = caches.iter().map(|cache| cache.stats()["cache"].hits).sum();
    assert!(hits > 100, "values were served from the cache: {hits}");
}
