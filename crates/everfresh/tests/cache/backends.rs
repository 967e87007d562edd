//! Runs the acceptance suite on every backend, and tests counters and memoized functions.

use std::sync::Mutex;

use everfresh::{
    Cache, Grouped, Lifetime, Memo, Mode,
    testing::{Keeps, backend_suite},
};
use memcached_client::Protocol;
use serde::{Deserialize, Serialize};
use test_support::{
    memcached::{Kind, Memcached},
    wait::eventually,
};

#[tokio::test]
async fn the_memory_backend_passes_the_suite() {
    backend_suite(&Cache::memory(1 << 20).build(), Keeps::Everything).await;
}

#[tokio::test]
async fn memcached_with_the_binary_protocol_passes_the_suite() {
    let server = Memcached::start(Kind::Plain);
    let cache = Cache::memcached(server.client(Protocol::Binary)).prefix("app:").version(2);
    backend_suite(&cache.build(), Keeps::Everything).await;
}

#[tokio::test]
async fn memcached_with_the_meta_protocol_passes_the_suite() {
    let server = Memcached::start(Kind::Plain);
    let cache = Cache::memcached(server.client(Protocol::Meta)).build();
    backend_suite(&cache, Keeps::Everything).await;
}

#[tokio::test]
async fn memcached_with_the_text_protocol_passes_the_suite() {
    let server = Memcached::start(Kind::Plain);
    let cache = Cache::memcached(server.client(Protocol::Text)).build();
    backend_suite(&cache, Keeps::Everything).await;
}

#[tokio::test]
async fn the_null_backend_passes_the_suite() {
    backend_suite(&Cache::null().build(), Keeps::Nothing).await;
}

#[tokio::test]
async fn a_backend_that_always_fails_passes_the_suite() {
    let cache = Cache::failing().build();
    backend_suite(&cache, Keeps::Nothing).await;
    assert!(cache.stats()["cache"].errors > 10, "failures are counted");
}

#[tokio::test]
async fn a_memcached_that_has_stopped_passes_the_suite() {
    let mut server = Memcached::start(Kind::Plain);
    server.kill();
    let cache = Cache::memcached(server.client(Protocol::Binary)).build();
    backend_suite(&cache, Keeps::Nothing).await;
}

#[tokio::test]
async fn caches_with_different_prefixes_or_versions_share_no_entries() {
    let server = Memcached::start(Kind::Plain);
    let builder = || Cache::memcached(server.client(Protocol::Binary));
    let caches = [
        builder().build(),
        builder().prefix("a:").build(),
        builder().prefix("b:").build(),
        builder().prefix("a:").version(1).build(),
        builder().prefix("a:").version(2).build(),
    ];
    for (n, cache) in caches.iter().enumerate() {
        assert_eq!(cache.get::<usize>("k").await, None);
        cache.set("k", &n, Lifetime::Default).await;
    }
    for (n, cache) in caches.iter().enumerate() {
        assert_eq!(cache.get("k").await, Some(n));
    }
}

#[tokio::test]
async fn the_memory_backend_stays_within_its_bound() {
    const BOUND: usize = 100_000;
    let cache = Cache::memory(BOUND).build();
    for n in 0..1000 {
        cache.set(&format!("k{n}"), &"x".repeat(1000), Lifetime::Default).await;
    }
    // Entries are evicted in the course of further operations.
    eventually("entries are evicted", async || {
        let mut found = 0;
        for n in 0..1000 {
            found += usize::from(cache.get::<String>(&format!("k{n}")).await.is_some());
        }
        found > 10 && found * 1000 <= BOUND
    })
    .await;
    assert!(!cache.set("huge", &"x".repeat(BOUND), Lifetime::Default).await);
}

#[tokio::test]
async fn a_value_over_the_size_limit_is_computed_each_time() {
    let server = Memcached::start(Kind::Plain);
    let cache = Cache::memcached(server.client(Protocol::Binary)).build();
    for _ in 0..3 {
        let large = async || Ok::<_, ()>("x".repeat(2 * 1024 * 1024));
        let value = cache.get_or_compute("large", Lifetime::Default, large).await.unwrap();
        assert_eq!(value.len(), 2 * 1024 * 1024);
    }
    let stats = cache.stats()["cache"];
    assert_eq!((stats.refused_fills, stats.fills, stats.hits), (3, 0, 0));
    // The number of the cache's epoch stays.
    eventually("no lease is left", async || server.stat("curr_items") == 1).await;
}

#[tokio::test]
async fn a_miss_and_a_hit_take_one_get_each() {
    let server = Memcached::start(Kind::Plain);
    let cache = Cache::memcached(server.client(Protocol::Binary)).build();
    let value = async || {
        cache.get_or_compute("k", Lifetime::Forever, async || Ok::<_, ()>(1)).await.unwrap()
    };
    value().await;
    assert_eq!((server.stat("get_hits"), server.stat("get_misses")), (0, 1));
    value().await;
    assert_eq!((server.stat("get_hits"), server.stat("get_misses")), (1, 1));
}

#[tokio::test]
async fn operations_are_counted_by_layer() {
    let cache = Cache::memory(1 << 20).build();
    let (queries, pages) = (cache.layer("query"), cache.layer("page"));
    for _ in 0..3 {
        let ten = async || Ok::<_, ()>(10);
        queries.get_or_compute("q", Lifetime::Forever, ten).await.unwrap();
    }
    pages.get::<u8>("p").await;
    let stats = cache.stats();
    let query = stats["query"];
    assert_eq!((query.hits, query.misses, query.fills), (2, 1, 1));
    assert_eq!(query.bytes_read, 2 * query.bytes_written);
    assert!(query.hit_ratio().is_some_and(|ratio| (0.66..0.67).contains(&ratio)));
    assert_eq!((stats["page"].hits, stats["page"].misses), (0, 1));
    assert_eq!(stats["page"].hit_ratio(), Some(0.0));
}

#[tokio::test]
async fn values_stored_together_are_counted_with_their_bytes() {
    let cache = Cache::memory(1 << 20).build();
    cache.set_many(&[("a", "a value"), ("b", "a value")], Lifetime::Forever).await;
    let stats = cache.stats()["cache"];
    // In MessagePack: the length, and seven letters.
    assert_eq!((stats.fills, stats.bytes_written), (2, 2 * (1 + 7)));
}

#[tokio::test]
async fn a_value_of_a_versioned_function_is_not_read_without_its_version() {
    let cache = Cache::memory(1 << 20).build();
    let versioned = Memo::<(), u8>::new("m", Lifetime::Forever).versioned_by("1");
    assert_eq!(versioned.call(&cache, &(), async || Ok::<_, ()>(7)).await, Ok(7));
    assert_eq!(cache.get::<u8>(&versioned.key(&())).await, None);
}

const SUM: Memo<(u64, u64), u64> = Memo::new("sum", Lifetime::Forever);

#[tokio::test]
async fn a_memoized_function_runs_once_per_list_of_arguments() {
    let cache = Cache::memory(1 << 20).build();
    let calls = std::cell::Cell::new(0);
    let sum = async |a: u64, b: u64, mode: Mode| {
        let compute = async || {
            calls.set(calls.get() + 1);
            Ok::<_, ()>(a + b)
        };
        let value = SUM.call_with(&cache, &(a, b), mode, |sum| *sum != 13, compute).await;
        (value.unwrap(), calls.get())
    };
    assert_eq!(sum(1, 2, Mode::Usual).await, (3, 1));
    assert_eq!(sum(1, 2, Mode::Usual).await, (3, 1));
    assert_eq!(sum(2, 1, Mode::Usual).await, (3, 2), "the order of arguments matters");
    assert_eq!(sum(1, 2, Mode::Bypass).await, (3, 3));
    assert_eq!(sum(1, 2, Mode::Refresh).await, (3, 4));
    assert_eq!(sum(1, 2, Mode::Usual).await, (3, 4));
    assert_eq!(sum(6, 7, Mode::Usual).await, (13, 5));
    assert_eq!(
        sum(6, 7, Mode::Usual).await,
        (13, 6),
        "a result that fails the condition is not stored"
    );
    assert!(SUM.forget(&cache, &(1, 2)).await);
    assert_eq!(sum(1, 2, Mode::Usual).await, (3, 7));
    assert_eq!(sum(2, 1, Mode::Usual).await, (3, 7), "the other arguments keep their result");
}

#[tokio::test]
async fn a_server_report_contains_our_counters_and_the_servers_own() {
    let mut server = Memcached::start(Kind::Plain);
    let cache = Cache::memcached(server.client(Protocol::Binary)).build();
    cache.get::<u32>("missing").await;
    let report = &cache.server_reports().await[0];
    assert_eq!(report.status.address, server.address());
    assert_eq!((report.status.misses, report.stats["get_misses"].as_str()), (1, "1"));
    server.kill();
    assert!(cache.server_reports().await[0].stats.is_empty());
    assert!(Cache::memory(1000).build().server_reports().await.is_empty());
}

#[derive(Deserialize, Serialize)]
struct Old {
    id: u64,
}

#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
struct New {
    id: u64,
    due: Option<String>,
}

#[tokio::test]
async fn a_result_of_another_version_is_not_served_but_can_be_deleted() {
    const OLD: Memo<(), Old> = Memo::new("task", Lifetime::Forever).versioned_by("1");
    const NEW: Memo<(), New> = Memo::new("task", Lifetime::Forever).versioned_by("2");
    let cache = Cache::memory(1 << 20).build();
    let old = async || OLD.call(&cache, &(), async || Ok::<_, ()>(Old { id: 1 })).await;
    let new = async |due: &str| {
        let task = New { id: 1, due: Some(due.to_owned()) };
        NEW.call(&cache, &(), async || Ok::<_, ()>(task)).await.unwrap().due.unwrap()
    };
    assert_eq!(old().await.unwrap().id, 1);
    assert_eq!(new("today").await, "today");
    assert_eq!(new("not computed").await, "today");
    assert!(OLD.forget(&cache, &()).await);
    assert_eq!(new("tomorrow").await, "tomorrow");
}

const DOUBLE: Memo<u64, u64, Grouped> = Memo::grouped("double", Lifetime::Forever);

#[tokio::test]
async fn all_results_of_a_grouped_function_are_deleted_at_once() {
    let server = Memcached::start(Kind::Plain);
    for cache in [
        Cache::memory(1 << 20).build(),
        Cache::memcached(server.client(Protocol::Binary)).build(),
        Cache::memcached(server.client(Protocol::Text)).prefix("text:").build(),
        Cache::memcached(server.client(Protocol::Meta)).prefix("meta:").build(),
    ] {
        let computed = Mutex::new(Vec::new());
        let double = async |n: u64| {
            let compute = async || {
                computed.lock().unwrap().push(n);
                Ok::<_, ()>(n * 2)
            };
            DOUBLE.call(&cache, &n, compute).await.unwrap()
        };
        for n in [1, 2, 1, 2] {
            assert_eq!(double(n).await, n * 2);
        }
        assert_eq!(*computed.lock().unwrap(), [1, 2]);
        assert!(DOUBLE.forget(&cache, &2).await);
        double(1).await;
        double(2).await;
        assert_eq!(*computed.lock().unwrap(), [1, 2, 2]);
        assert!(DOUBLE.forget_all(&cache).await);
        for n in [2, 1, 2, 1] {
            assert_eq!(double(n).await, n * 2);
        }
        assert_eq!(*computed.lock().unwrap(), [1, 2, 2, 2, 1]);
        cache.set(&DOUBLE.key_of_all(), &"foreign", Lifetime::Forever).await;
        double(1).await;
        double(1).await;
        assert_eq!(computed.lock().unwrap().len(), 6);
    }
}

#[tokio::test]
async fn a_result_computed_before_its_group_was_deleted_is_not_served() {
    let cache = Cache::memory(1 << 20).build();
    let slow = async || {
        assert!(DOUBLE.forget_all(&cache).await);
        Ok::<_, ()>(1)
    };
    assert_eq!(DOUBLE.call(&cache, &7, slow).await, Ok(1));
    assert_eq!(DOUBLE.call(&cache, &7, async || Ok::<_, ()>(14)).await, Ok(14));
}

#[tokio::test]
async fn with_a_failing_cache_a_grouped_function_runs_each_time() {
    let cache = Cache::failing().build();
    for n in [1, 2] {
        assert_eq!(DOUBLE.call(&cache, &7, async || Ok::<_, ()>(n)).await, Ok(n));
    }
}
