//! Many concurrent misses of one key.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use everfresh::{Cache, CacheBuilder, Lifetime, Memo, Mode};
use memcached_client::Protocol;
use test_support::{
    memcached::{Kind, Memcached},
    wait::eventually,
};

const WORKERS: usize = 4;
const CALLERS_PER_WORKER: usize = 125;

/// Starts, for each cache, several runtimes on threads of their own, each with many callers, all at
/// the same time. Returns how often the value was computed.
fn call_on_all_workers(caches: &[Cache], first: FirstCaller) -> u32 {
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
                    set.block_on(&runtime.unwrap(), run_callers(cache, computed, first));
                });
            }
        }
    });
    computed.load(Ordering::Relaxed)
}

/// The behaviour of the caller that computes first.
#[derive(Clone, Copy)]
enum FirstCaller {
    Finishes,
    IsDropped,
    Panics,
}

/// Returns `None` if the call was dropped while it computed.
async fn call(
    cache: Cache,
    computed: Arc<AtomicU32>,
    first: FirstCaller,
) -> Option<Result<String, ()>> {
    let drop_me = tokio::sync::Notify::new();
    let compute = async || {
        let number = computed.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(30)).await;
        match first {
            FirstCaller::IsDropped if number == 0 => {
                drop_me.notify_one();
                std::future::pending().await
            }
            FirstCaller::Panics if number == 0 => panic!("the first caller panics on purpose"),
            _ => Ok("value".to_owned()),
        }
    };
    let calling = cache.get_or_compute("cold", Lifetime::Forever, compute);
    tokio::select! {
        value = calling => Some(value),
        () = drop_me.notified() => None,
    }
}

async fn run_callers(cache: Cache, computed: Arc<AtomicU32>, first: FirstCaller) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..CALLERS_PER_WORKER {
        tasks.spawn_local(call(cache.clone(), computed.clone(), first));
    }
    let mut lost = 0;
    while let Some(task) = tasks.join_next().await {
        match task {
            Ok(Some(value)) => assert_eq!(value.as_deref(), Ok("value")),
            _ => lost += 1,
        }
    }
    assert!(lost <= 1, "only the first caller may be dropped, but {lost} were");
}

const PROTOCOLS: [Protocol; 3] = [Protocol::Binary, Protocol::Meta, Protocol::Text];

fn memcached(server: &Memcached, protocol: Protocol) -> Cache {
    Cache::memcached(server.client(protocol)).build()
}

/// Calls `check` with a cache of each backend.
fn on_each_backend(check: impl Fn(Cache)) {
    check(Cache::memory(1 << 20).build());
    for protocol in PROTOCOLS {
        let server = Memcached::start(Kind::Plain);
        check(memcached(&server, protocol));
    }
}

/// Calls `check` with two caches that have a server in common, but no state, like two processes.
fn in_two_processes(check: impl Fn([Cache; 2])) {
    for protocol in PROTOCOLS {
        let server = Memcached::start(Kind::Plain);
        check([memcached(&server, protocol), memcached(&server, protocol)]);
    }
}

#[test]
fn five_hundred_misses_in_one_process_cause_one_computation() {
    on_each_backend(|cache| {
        assert_eq!(call_on_all_workers(&[cache], FirstCaller::Finishes), 1);
    });
}

#[test]
fn if_the_first_caller_is_dropped_another_one_computes() {
    for first in [FirstCaller::IsDropped, FirstCaller::Panics] {
        on_each_backend(|cache| {
            assert_eq!(call_on_all_workers(std::slice::from_ref(&cache), first), 2);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            assert!(runtime.unwrap().block_on(cache.clear()));
        });
    }
}

#[test]
fn two_processes_compute_at_most_twice_and_store_once() {
    in_two_processes(|caches| {
        assert!(call_on_all_workers(&caches, FirstCaller::Finishes) <= 2);
        let fills = caches.iter().map(|cache| cache.stats()["cache"].fills);
        assert_eq!(fills.sum::<u64>(), 1);
    });
}

#[tokio::test]
async fn without_a_working_backend_callers_do_not_wait_for_each_other() {
    let cache = Cache::failing().build();
    let barrier = Arc::new(tokio::sync::Barrier::new(5));
    // The barrier opens only when all five compute at the same time.
    let calls = (0..5).map(|n| {
        let (cache, barrier) = (cache.clone(), barrier.clone());
        async move {
            let compute = async || {
                barrier.wait().await;
                Ok::<_, ()>(n)
            };
            cache.get_or_compute("k", Lifetime::Forever, compute).await
        }
    });
    let values = futures_util::future::join_all(calls).await;
    assert_eq!(values, (0..5).map(Ok).collect::<Vec<_>>());
}

#[tokio::test]
async fn after_an_error_or_a_delete_the_joiners_share_one_computation() {
    for is_error in [true, false] {
        let cache = Cache::memory(1 << 20).build();
        let computed = AtomicU32::new(0);
        let has_begun = tokio::sync::Notify::new();
        let first = async {
            let compute = async || {
                computed.fetch_add(1, Ordering::Relaxed);
                has_begun.notify_one();
                eventually("all callers wait", async || cache.stats()["cache"].waits >= 100).await;
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
            let calls = (0..100).map(|_| cache.get_or_compute("k", Lifetime::Forever, compute));
            futures_util::future::join_all(calls).await
        };
        let (_, others) = futures_util::future::join(first, others).await;
        assert!(others.iter().all(|value| *value == Ok(2)), "{others:?}");
        assert_eq!(
            computed.load(Ordering::Relaxed),
            2,
            "one for the first caller, one for all others"
        );
    }
}

#[tokio::test]
async fn a_process_waits_for_another_one_that_computes() {
    for protocol in PROTOCOLS {
        let server = Memcached::start(Kind::Plain);
        let (one, other) = (memcached(&server, protocol), memcached(&server, protocol));
        let begun = Arc::new(tokio::sync::Notify::new());
        let (signal, cache) = (begun.clone(), one.clone());
        let computing = tokio::spawn(async move {
            let compute = async || {
                signal.notify_one();
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok::<_, ()>("by the first process".to_owned())
            };
            cache.get_or_compute("k", Lifetime::Forever, compute).await
        });
        begun.notified().await;
        let compute = async || Ok::<_, ()>("by the second process".to_owned());
        let value = other.get_or_compute("k", Lifetime::Forever, compute).await.unwrap();
        assert_eq!(value, "by the first process");
        computing.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn an_empty_entry_that_another_program_has_left_is_waited_for_once_and_then_replaced() {
    let server = Memcached::start(Kind::Plain);
    let client = server.client(Protocol::Meta);
    client.set("k", "").await.unwrap();
    let cache =
        Cache::memcached(client.clone()).max_computation(Duration::from_millis(300)).build();
    let stored =
        async || client.get("k").await.unwrap().is_some_and(|value| !value.data.is_empty());
    eventually("a value is stored", async || {
        let value = cache.get_or_compute("k", Lifetime::Forever, async || Ok::<_, ()>(7)).await;
        value == Ok(7) && stored().await
    })
    .await;
    assert_eq!(cache.stats()["cache"].waits, 1);
}

#[tokio::test]
async fn a_process_waits_only_once_for_another_one_that_is_stuck() {
    for protocol in PROTOCOLS {
        let server = Memcached::start(Kind::Plain);
        let (one, other) = (memcached(&server, protocol), memcached(&server, protocol));
        let stuck = tokio::spawn(async move {
            let compute = async || std::future::pending::<Result<u8, ()>>().await;
            one.get_or_compute("k", Lifetime::Forever, compute).await
        });
        // Beside the number of the cache's epoch.
        eventually("the lease is taken", async || server.stat("curr_items") == 2).await;
        for n in 0..3 {
            let value = other.get_or_compute("k", Lifetime::Forever, async || Ok::<_, ()>(n)).await;
            assert_eq!(value, Ok(n), "computed each time, and not stored");
        }
        assert_eq!(other.stats()["cache"].waits, 1);
        stuck.abort();
    }
}

#[tokio::test]
async fn after_a_caller_is_dropped_the_next_one_stores_its_value_at_once() {
    let server = Memcached::start(Kind::Plain);
    let servers = PROTOCOLS.map(|protocol| Cache::memcached(server.client(protocol)));
    let separate = servers.into_iter().enumerate().map(|(n, cache)| cache.prefix(format!("{n}")));
    for cache in [Cache::memory(1 << 20)].into_iter().chain(separate).map(CacheBuilder::build) {
        let (begun, never) = (tokio::sync::Notify::new(), std::future::pending::<()>());
        let compute = async || {
            begun.notify_one();
            never.await;
            Ok::<_, ()>("old".to_owned())
        };
        tokio::select! {
            _ = cache.get_or_compute("k", Lifetime::Forever, compute) => unreachable!(),
            () = begun.notified() => {}
        }
        let compute = async || Ok::<_, ()>("new".to_owned());
        let value = cache.get_or_compute("k", Lifetime::Forever, compute).await;
        assert_eq!(value.as_deref(), Ok("new"));
        // Its lease was not left to expire.
        assert_eq!(cache.get::<String>("k").await.as_deref(), Some("new"));
    }
}

#[tokio::test]
async fn callers_of_a_value_that_is_never_kept_do_not_wait_one_after_the_other() {
    const ALL: Memo<(), u32> = Memo::new("never kept", Lifetime::Forever);

    // A caller waits for longer than the test.
    let patience = Duration::from_secs(100);
    let cache = Cache::memory(1 << 20).max_computation(patience).build();
    let (running, together) = (AtomicU32::new(0), tokio::sync::Notify::new());
    let call = async || {
        let compute = async || {
            // The first two computations have joiners, who hope for their results. Then all go on by
            // themselves, at the same time.
            let number = running.fetch_add(1, Ordering::Relaxed);
            match number {
                0 | 1 => tokio::task::yield_now().await,
                4.. => together.notify_waiters(),
                _ => together.notified().await,
            }
            Ok::<_, ()>(number)
        };
        ALL.call_with(&cache, &(), Mode::Usual, |_| false, compute).await
    };
    let calls = futures_util::future::join_all((0..8).map(|_| call()));
    let calls = tokio::time::timeout(Duration::from_secs(20), calls).await;
    assert!(calls.is_ok(), "they wait for each other");
}
