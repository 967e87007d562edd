//! Many who miss one key at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use everfresh::{Cache, Lifetime};
use memcached_client::Protocol;
use test_support::{
    memcached::{Kind, Memcached},
    wait::eventually,
};

const WORKERS: usize = 4;
const ASKERS: usize = 125;

/// Runs so many askers on each of several runtimes, each on its own thread, all at once; returns
/// how often the value was computed.
fn ask_on_all_workers(caches: &[Cache], first: FirstAsker) -> u32 {
    let computed = Arc::new(AtomicU32::new(0));
    let barrier = Arc::new(std::sync::Barrier::new(WORKERS * caches.len()));
    thread::scope(|scope| {
        for cache in caches {
            for _ in 0..WORKERS {
                let (cache, computed, barrier) = (cache.clone(), computed.clone(), barrier.clone());
                scope.spawn(move || {
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().enable_all().build();
                    let set = tokio::task::LocalSet::new();
                    barrier.wait();
                    set.block_on(&runtime.unwrap(), askers(cache, computed, first));
                });
            }
        }
    });
    computed.load(Ordering::Relaxed)
}

#[derive(Clone, Copy)]
enum FirstAsker {
    Stays,
    IsDropped,
    Panics,
}

/// `None` if it was dropped half way, as it wished.
async fn ask(
    cache: Cache,
    computed: Arc<AtomicU32>,
    first: FirstAsker,
) -> Option<Result<String, ()>> {
    let drop_me = tokio::sync::Notify::new();
    let compute = async || {
        let number = computed.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(30)).await;
        match first {
            FirstAsker::IsDropped if number == 0 => {
                drop_me.notify_one();
                std::future::pending().await
            }
            FirstAsker::Panics if number == 0 => panic!("the first asker panics, as it should"),
            _ => Ok("value".to_owned()),
        }
    };
    let asking = cache.get_or_compute("cold", Lifetime::Forever, compute);
    tokio::select! {
        value = asking => Some(value),
        () = drop_me.notified() => None,
    }
}

async fn askers(cache: Cache, computed: Arc<AtomicU32>, first: FirstAsker) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..ASKERS {
        tasks.spawn_local(ask(cache.clone(), computed.clone(), first));
    }
    let mut lost = 0;
    while let Some(task) = tasks.join_next().await {
        match task {
            Ok(Some(value)) => assert_eq!(value.as_deref(), Ok("value")),
            _ => lost += 1,
        }
    }
    assert!(lost <= 1, "only the first asker may go away, and {lost} did");
}

fn memcached(server: &Memcached) -> Cache {
    Cache::memcached(server.client(Protocol::Binary)).build()
}

#[test]
fn five_hundred_misses_in_one_process_are_one_computation() {
    let server = Memcached::start(Kind::Plain);
    for cache in [Cache::memory(1 << 20).build(), memcached(&server)] {
        assert_eq!(ask_on_all_workers(&[cache], FirstAsker::Stays), 1);
    }
}

#[test]
fn when_the_first_asker_goes_away_one_other_computes() {
    let server = Memcached::start(Kind::Plain);
    for first in [FirstAsker::IsDropped, FirstAsker::Panics] {
        for cache in [Cache::memory(1 << 20).build(), memcached(&server)] {
            assert_eq!(ask_on_all_workers(std::slice::from_ref(&cache), first), 2);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            assert!(runtime.unwrap().block_on(cache.clear()));
        }
    }
}

#[test]
fn in_two_processes_it_is_computed_at_most_twice_and_stored_once() {
    let server = Memcached::start(Kind::Plain);
    // Two clients and two caches share nothing in this process, as if there were two.
    let caches = [memcached(&server), memcached(&server)];
    assert!(ask_on_all_workers(&caches, FirstAsker::Stays) <= 2);
    let fills = caches.iter().map(|cache| cache.stats()["cache"].fills);
    assert_eq!(fills.sum::<u64>(), 1);
}

#[tokio::test]
async fn while_the_cache_is_away_nobody_waits_for_another() {
    let cache = Cache::failing().build();
    let barrier = Arc::new(tokio::sync::Barrier::new(5));
    // Each comes when the one before computes already.
    let all = (0..5).map(|n| {
        let (cache, barrier) = (cache.clone(), barrier.clone());
        async move {
            let compute = async || {
                barrier.wait().await;
                Ok::<_, ()>(n)
            };
            cache.get_or_compute("k", Lifetime::Forever, compute).await
        }
    });
    let values = futures_util::future::join_all(all).await;
    assert_eq!(values, (0..5).map(Ok).collect::<Vec<_>>());
}

#[tokio::test]
async fn after_an_error_or_a_delete_in_between_those_who_waited_compute_together() {
    for is_error in [true, false] {
        let cache = Cache::memory(1 << 20).build();
        let computed = AtomicU32::new(0);
        let has_begun = tokio::sync::Notify::new();
        let first = async {
            let compute = async || {
                computed.fetch_add(1, Ordering::Relaxed);
                has_begun.notify_one();
                eventually("all wait", async || cache.stats()["cache"].waits >= 100).await;
                cache.delete("k").await;
                if is_error { Err("no database") } else { Ok(1) }
            };
            cache.get_or_compute("k", Lifetime::Forever, compute).await
        };
        let others = async {
            has_begun.notified().await;
            let compute = async || {
                computed.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok::<_, &str>(2)
            };
            let all = (0..100).map(|_| cache.get_or_compute("k", Lifetime::Forever, compute));
            futures_util::future::join_all(all).await
        };
        let (_, others) = futures_util::future::join(first, others).await;
        assert!(others.iter().all(|value| *value == Ok(2)), "{others:?}");
        assert_eq!(computed.load(Ordering::Relaxed), 2, "the first, and one for all others");
    }
}

#[tokio::test]
async fn another_process_that_computes_is_waited_for() {
    let server = Memcached::start(Kind::Plain);
    let (one, other) = (memcached(&server), memcached(&server));
    let begun = Arc::new(tokio::sync::Notify::new());
    let (signal, cache) = (begun.clone(), one.clone());
    let computing = tokio::spawn(async move {
        let compute = async || {
            signal.notify_one();
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok::<_, ()>("by the one".to_owned())
        };
        cache.get_or_compute("k", Lifetime::Forever, compute).await
    });
    begun.notified().await;
    let compute = async || Ok::<_, ()>("by the other".to_owned());
    let value = other.get_or_compute("k", Lifetime::Forever, compute).await.unwrap();
    assert_eq!(value, "by the one");
    computing.await.unwrap().unwrap();
}

#[tokio::test]
async fn another_process_that_never_comes_to_an_end_is_waited_for_once() {
    let server = Memcached::start(Kind::Plain);
    let (one, other) = (memcached(&server), memcached(&server));
    let stuck = tokio::spawn(async move {
        let compute = async || std::future::pending::<Result<u8, ()>>().await;
        one.get_or_compute("k", Lifetime::Forever, compute).await
    });
    eventually("the lease is taken", async || server.stat("curr_items") == 1).await;
    for n in 0..3 {
        let value = other.get_or_compute("k", Lifetime::Forever, async || Ok::<_, ()>(n)).await;
        assert_eq!(value, Ok(n), "computed, and not stored");
    }
    assert_eq!(other.stats()["cache"].waits, 1);
    stuck.abort();
}
