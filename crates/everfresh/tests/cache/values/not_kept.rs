//! Values that are not kept: never in silence.

use std::{
    sync::{Mutex, Once},
    time::Duration,
};

use everfresh::{Cache, Invalidation, Lifetime};
use memcached_client::Protocol;
use test_support::memcached::{Kind, Memcached};

/// The warnings of all tests of this program.
static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Collect;

impl log::Log for Collect {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            WARNINGS.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// Returns the warnings so far that contain a text.
pub fn warnings_of(text: &str) -> Vec<String> {
    let warnings = WARNINGS.lock().unwrap();
    warnings.iter().filter(|warning| warning.contains(text)).cloned().collect()
}

pub fn collect_warnings() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        log::set_logger(&Collect).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
    });
}

#[tokio::test]
async fn every_key_works_in_every_backend() {
    let server = Memcached::start(Kind::Plain);
    for cache in [
        Cache::memory(1 << 20).build(),
        Cache::memcached(server.client(Protocol::Binary)).build(),
        Cache::memcached(server.client(Protocol::Text)).prefix("text:").build(),
        Cache::memcached(server.client(Protocol::Meta)).prefix("meta:").build(),
    ] {
        for key in ["", "a b", "a%20b", "a\nb", "\u{7f}", "%!a", "é"] {
            let get = async |value: String| {
                let compute = async || Ok::<_, ()>(value);
                cache.get_or_compute(key, Lifetime::Forever, compute).await.unwrap()
            };
            assert_eq!(get(format!("of {key}")).await, format!("of {key}"));
            assert_eq!(get("another".to_owned()).await, format!("of {key}"), "{key:?}");
            assert_eq!(cache.get(key).await, Some(format!("of {key}")));
            assert!(cache.invalidate(&Invalidation::of([key])).await);
            assert_eq!(cache.get::<String>(key).await, None, "{key:?}");
        }
    }
}

#[tokio::test]
async fn a_value_that_is_too_large_is_logged_once_for_each_layer() {
    collect_warnings();
    let server = Memcached::start(Kind::Plain);
    let small = Cache::memory(4000).build();
    let shared = Cache::memcached(server.client(Protocol::Binary)).build();
    for (cache, key, limit) in [(&small, "large-1", "1000"), (&shared, "large-2", "1048576")] {
        for layer in ["first", "second"] {
            let cache = cache.layer(layer);
            for _ in 0..2 {
                let compute = async || Ok::<_, ()>("x".repeat(2_000_000));
                let value = cache.get_or_compute(key, Lifetime::Forever, compute).await;
                assert_eq!(value.unwrap().len(), 2_000_000);
            }
        }
        let warnings = warnings_of(key);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].starts_with("layer first: "), "{warnings:?}");
        assert!(warnings[0].contains(limit) && warnings[0].contains("20000"), "{warnings:?}");
    }
}

#[tokio::test]
async fn a_computation_that_takes_too_long_is_logged_and_the_limit_can_be_set() {
    collect_warnings();
    for (limit, is_kept) in [(1, false), (5, true)] {
        let compute = async || {
            tokio::time::sleep(Duration::from_millis(1100)).await;
            Ok::<_, ()>(7)
        };
        let limit = Duration::from_secs(limit);
        let cache = Cache::memory(1 << 20).max_computation(limit).build();
        let key = format!("slow-{limit:?}");
        assert_eq!(cache.get_or_compute(&key, Lifetime::Forever, compute).await, Ok(7));
        assert_eq!(cache.get::<u32>(&key).await.is_some(), is_kept, "{key}");
        let warnings = warnings_of(&key);
        assert_eq!(warnings.is_empty(), is_kept, "{warnings:?}");
        assert!(is_kept || warnings[0].contains("the limit is 1s"), "{warnings:?}");
    }
}
