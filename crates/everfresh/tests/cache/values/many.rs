//! Values that are looked up and computed together.

use std::sync::Mutex;

use everfresh::{Cache, Invalidation, Lifetime, Memo, group_key};
use futures_util::future::join;
use memcached_client::Protocol;
use test_support::memcached::{Kind, Memcached};
use tokio::sync::Semaphore;

const DOUBLE: Memo<u32, u32> = Memo::new("double", Lifetime::Forever).in_groups(&["numbers"]);

fn caches(server: &Memcached) -> [Cache; 4] {
    let shared = |protocol, prefix| Cache::memcached(server.client(protocol)).prefix(prefix);
    [
        Cache::memory(1 << 20).build(),
        shared(Protocol::Binary, "binary:").build(),
        shared(Protocol::Meta, "meta:").build(),
        shared(Protocol::Text, "text:").build(),
    ]
}

/// Doubles even numbers; odd ones have no value. Notes what it was asked for.
async fn double(
    cache: &Cache,
    numbers: &[u32],
    asked: &Mutex<Vec<u32>>,
) -> Result<Vec<Option<u32>>, ()> {
    let compute = async |missing: &[&u32]| {
        asked.lock().unwrap().extend(missing.iter().copied());
        let even = missing.iter().filter(|number| **number % 2 == 0);
        // In another order than that of the arguments.
        Ok::<_, ()>(even.rev().map(|number| (**number, **number * 2)).collect::<Vec<_>>())
    };
    DOUBLE.call_many(cache, numbers, compute).await
}

#[tokio::test]
async fn only_what_is_missing_is_computed_and_in_one_call() {
    let server = Memcached::start(Kind::Plain);
    for cache in caches(&server) {
        let asked = Mutex::default();
        let values = double(&cache, &[4, 1, 2], &asked).await;
        assert_eq!(values, Ok(vec![Some(8), None, Some(4)]), "in the order of the arguments");
        let values = double(&cache, &[2, 6, 4, 6], &asked).await;
        assert_eq!(values, Ok(vec![Some(4), Some(12), Some(8), Some(12)]));
        assert_eq!(asked.into_inner().unwrap(), [4, 1, 2, 6]);
        assert_eq!(DOUBLE.get_with(&cache, &4, async || 0).await, 8, "the same entries");
    }
}

#[tokio::test]
async fn a_value_whose_group_is_forgotten_during_the_computation_is_not_stored() {
    let server = Memcached::start(Kind::Plain);
    for cache in caches(&server) {
        let compute = async |missing: &[&u32]| {
            assert!(cache.invalidate(&Invalidation::of([group_key("numbers")])).await);
            Ok::<_, ()>(missing.iter().map(|number| (**number, 0)).collect::<Vec<_>>())
        };
        assert_eq!(DOUBLE.call_many(&cache, &[2], compute).await, Ok(vec![Some(0)]));
        let values = double(&cache, &[2], &Mutex::default()).await;
        assert_eq!(values, Ok(vec![Some(4)]), "{}", cache.backend_name());
    }
}

#[tokio::test]
async fn a_value_that_is_deleted_during_the_computation_is_not_stored() {
    let server = Memcached::start(Kind::Plain);
    for cache in caches(&server) {
        let raced =
            cache.get_or_compute_many(&["a", "b"], Lifetime::Forever, async |_: &[&str]| {
                assert!(cache.delete("a").await);
                Ok::<_, ()>([("a", 1), ("b", 1)])
            });
        assert_eq!(raced.await, Ok(vec![Some(1), Some(1)]));
        let again = async |missing: &[&str]| {
            assert_eq!(missing, ["a"]);
            Ok::<_, ()>([("a", 2)])
        };
        let values = cache.get_or_compute_many(&["a", "b"], Lifetime::Forever, again);
        assert_eq!(values.await, Ok(vec![Some(2), Some(1)]));
    }
}

#[tokio::test]
async fn an_error_is_returned_and_leaves_no_lease() {
    let server = Memcached::start(Kind::Plain);
    for cache in caches(&server) {
        let fails = async |_: &[&u32]| Err::<Vec<(u32, u32)>, _>("no database");
        assert_eq!(DOUBLE.call_many(&cache, &[2, 4], fails).await, Err("no database"));
        assert_eq!(double(&cache, &[2, 4], &Mutex::default()).await, Ok(vec![Some(4), Some(8)]));
        assert_eq!(double(&cache, &[2], &Mutex::default()).await, Ok(vec![Some(4)]));
        assert_eq!(cache.stats()["cache"].waits, 0);
    }
}

#[tokio::test]
async fn two_batches_that_overlap_compute_each_value_once() {
    let server = Memcached::start(Kind::Plain);
    for cache in caches(&server) {
        let (computing, go) = (Semaphore::new(0), Semaphore::new(0));
        let asked = Mutex::default();
        let first = DOUBLE.call_many(&cache, &[2, 4], async |missing: &[&u32]| {
            computing.add_permits(1);
            go.acquire().await.unwrap().forget();
            Ok::<Vec<_>, ()>(missing.iter().map(|number| (**number, **number * 2)).collect())
        });
        let second = async {
            computing.acquire().await.unwrap().forget();
            let second = double(&cache, &[4, 6], &asked);
            go.add_permits(1);
            second.await
        };
        let (first, second) = join(first, second).await;
        assert_eq!(first, Ok(vec![Some(4), Some(8)]));
        assert_eq!(second, Ok(vec![Some(8), Some(12)]));
        assert_eq!(asked.into_inner().unwrap(), [6], "{}", cache.backend_name());
    }
}

#[tokio::test]
async fn without_a_backend_everything_is_computed() {
    for cache in [Cache::null().build(), Cache::failing().build()] {
        let asked = Mutex::default();
        for _ in 0..2 {
            let values = double(&cache, &[2, 3, 2], &asked).await;
            assert_eq!(values, Ok(vec![Some(4), None, Some(4)]));
        }
        assert_eq!(asked.into_inner().unwrap(), [2, 3, 2, 3], "each once");
    }
}
