//! The events that observers are told.

use std::{
    fmt::{self, Write},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use everfresh::{Cache, CacheBuilder, CacheEvent, CacheEventKind, Lifetime, ViewCache, view_key};
use test_support::wait::eventually;
use tokio::sync::Semaphore;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

use crate::views::site::Site;

/// The events so far: layer, key, name of the kind, and whether there was a duration.
type Seen = Arc<Mutex<Vec<(&'static str, String, &'static str, bool)>>>;

fn observed(builder: CacheBuilder) -> (Cache, Seen) {
    let seen = Seen::default();
    let note = {
        let seen = Arc::clone(&seen);
        move |event: &CacheEvent<'_>| {
            let CacheEvent { layer, key, kind, duration, .. } = *event;
            seen.lock().unwrap().push((layer, key.to_owned(), kind.name(), duration.is_some()));
        }
    };
    (builder.observe(note).build(), seen)
}

fn memory() -> CacheBuilder {
    Cache::memory(1 << 20).prefix("app:")
}

fn kinds(seen: &Seen) -> Vec<&'static str> {
    std::mem::take(&mut *seen.lock().unwrap()).into_iter().map(|(_, _, kind, _)| kind).collect()
}

#[tokio::test]
async fn a_lookup_a_computation_and_a_store_are_told_with_layer_key_and_duration() {
    let (cache, seen) = observed(memory());
    let queries = cache.layer("query");
    for _ in 0..2 {
        queries.get_with("k", Lifetime::Forever, async || 7).await;
    }
    let told = |kind, is_timed| ("query", "app:k".to_owned(), kind, is_timed);
    let expected =
        [told("miss", true), told("computed", true), told("fill", false), told("hit", true)];
    assert_eq!(*seen.lock().unwrap(), expected);
}

#[tokio::test]
async fn every_observer_is_told() {
    let calls = Arc::new(AtomicU32::new(0));
    let count = |calls: &Arc<AtomicU32>| {
        let calls = Arc::clone(calls);
        move |_: &CacheEvent<'_>| {
            calls.fetch_add(1, Ordering::Relaxed);
        }
    };
    let cache = memory().observe(count(&calls)).observe(count(&calls)).build();
    cache.get::<u8>("k").await;
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_wait_a_value_that_is_not_kept_an_error_and_a_stale_entry_are_told() {
    let (cache, seen) = observed(memory());
    let (computing, go) = (Semaphore::new(0), Semaphore::new(0));
    let compute = async || {
        computing.add_permits(1);
        go.acquire().await.unwrap().forget();
        7
    };
    let other = async {
        computing.acquire().await.unwrap().forget();
        let waiting = cache.get_with("k", Lifetime::Forever, async || 8);
        go.add_permits(1);
        waiting.await
    };
    futures_util::future::join(cache.get_with("k", Lifetime::Forever, compute), other).await;
    assert_eq!(kinds(&seen), ["miss", "miss", "computed", "fill", "wait"]);

    cache.get_with("raced", Lifetime::Forever, async || cache.delete("raced").await).await;
    assert_eq!(kinds(&seen), ["miss", "computed", "not kept"]);

    let aging = Lifetime::For(Duration::from_millis(1)).stale_for(Duration::from_secs(60));
    let rate = async || cache.get_or_compute("rate", aging, async || Err::<u8, _>(())).await;
    cache.set("rate", &1, aging).await;
    eventually("its lifetime is over", async || {
        kinds(&seen);
        assert_eq!(rate().await, Ok(1));
        kinds(&seen) == ["hit", "stale"]
    })
    .await;

    let (failing, seen) = observed(Cache::failing());
    failing.get::<u8>("k").await;
    assert!(kinds(&seen).contains(&"error"));
}

#[test]
fn pages_are_told_by_their_keys() {
    let (cache, seen) = observed(memory());
    let views = ViewCache::builder(cache).build();
    let site = Site::start(&views, async |_| actix_web::HttpResponse::Ok().body("page"));
    site.texts(["/a", "/a"]);
    let told = seen.lock().unwrap().clone();
    let kinds: Vec<_> = told.iter().map(|(_, _, kind, _)| *kind).collect();
    assert_eq!(kinds, ["miss", "computed", "fill", "hit"]);
    assert!(told.iter().all(|(_, key, ..)| *key == format!("app:{}", view_key("/a"))));
}

#[tokio::test]
async fn statistics_can_be_serialized() {
    let cache = memory().build();
    cache.get::<u8>("k").await;
    let stats = serde_json::to_value(cache.stats()).unwrap();
    assert_eq!(stats["cache"]["misses"], 1);
    assert_eq!(stats["cache"]["time_saved"], 0.0);
    let event = CacheEventKind::Hit { bytes: 3 };
    assert_eq!(event.name(), "hit");
}

/// Notes the messages and fields of events of the target `everfresh`.
struct Notes(Arc<Mutex<Vec<(Level, String)>>>);

impl Subscriber for Notes {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "everfresh"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                let _ = write!(self.0, "{field}={value:?} ");
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push((*event.metadata().level(), text.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn events_are_emitted_for_tracing() {
    let notes = Arc::default();
    let _guard = tracing::subscriber::set_default(Notes(Arc::clone(&notes)));
    let cache = memory().trace().build();
    cache.get::<u8>("k").await;
    let failing = Cache::failing().trace().build();
    failing.get::<u8>("k").await;
    let notes = notes.lock().unwrap();
    let (level, text) = &notes[0];
    assert_eq!(*level, Level::DEBUG);
    for part in ["layer=\"cache\"", "key=\"app:k\"", "message=miss"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(notes.iter().any(|(level, text)| *level == Level::WARN && text.contains("error")));
}
