//! Entries that are served stale while one caller computes them again, and after a failure.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix_web::{HttpRequest, HttpResponse};
use everfresh::{Cache, Invalidation, Lifetime, ViewCache, group_key};
use memcached_client::Protocol;
use test_support::{
    memcached::{Kind, Memcached},
    wait::{eventually, wait_until},
};
use tokio::sync::Semaphore;

use crate::views::site::Site;

const AGING: Lifetime =
    Lifetime::For(Duration::from_millis(1)).stale_for(Duration::from_secs(3600));

/// A memory cache, and two processes that share a memcached, by each protocol.
fn caches(server: &Memcached) -> [[Cache; 2]; 4] {
    let memory = Cache::memory(1 << 20).build();
    let shared = |protocol, prefix| {
        [(); 2].map(|()| Cache::memcached(server.client(protocol)).prefix(prefix).build())
    };
    let [binary, meta] = [shared(Protocol::Binary, "binary:"), shared(Protocol::Meta, "meta:")];
    [[memory.clone(), memory], binary, meta, shared(Protocol::Text, "text:")]
}

async fn rate(cache: &Cache, now: Result<u32, ()>) -> Result<u32, ()> {
    cache.get_or_compute("EUR", AGING, async || now).await
}

/// Stores a first rate, and waits until its lifetime is over.
async fn store_and_wait(cache: &Cache) {
    assert_eq!(rate(cache, Ok(1)).await, Ok(1));
    eventually("the lifetime is over", async || cache.get::<u32>("EUR").await.is_none()).await;
}

#[tokio::test]
async fn while_one_caller_computes_again_others_are_served_the_last_value() {
    let server = Memcached::start(Kind::Plain);
    for [one, other] in caches(&server) {
        store_and_wait(&one).await;
        let (computing, go) = (Semaphore::new(0), Semaphore::new(0));
        let slow = one.get_or_compute("EUR", AGING, async || {
            computing.add_permits(1);
            go.acquire().await.unwrap().forget();
            Ok::<_, ()>(2)
        });
        let others = async {
            computing.acquire().await.unwrap().forget();
            // In the same process, and in another one.
            for cache in [&one, &other] {
                assert_eq!(rate(cache, Ok(3)).await, Ok(1), "{}", cache.backend_name());
            }
            go.add_permits(1);
        };
        let (computed, ()) = futures_util::future::join(slow, others).await;
        assert_eq!(computed, Ok(2));
        let stale = if one.is_shared() { 1 } else { 2 };
        assert_eq!([&one, &other].map(|cache| cache.stats()["cache"].stale), [stale; 2]);
    }
}

#[tokio::test]
async fn a_failed_computation_is_answered_with_the_last_value_and_tried_again() {
    let server = Memcached::start(Kind::Plain);
    for [cache, _] in caches(&server) {
        store_and_wait(&cache).await;
        assert_eq!(rate(&cache, Err(())).await, Ok(1));
        // The reservation of the failed computation is deleted, beside the answer.
        eventually("it is computed again", async || rate(&cache, Ok(2)).await == Ok(2)).await;
        eventually("the lifetime is over", async || cache.get::<u32>("EUR").await.is_none()).await;
        eventually("it is computed again", async || rate(&cache, Ok(3)).await == Ok(3)).await;
        let other = cache.get_or_compute("USD", AGING, async || Err::<u32, _>(()));
        assert_eq!(other.await, Err(()), "there is no last value");
    }
}

#[tokio::test]
async fn a_deleted_entry_is_not_served_stale_nor_is_what_was_computed_before() {
    let server = Memcached::start(Kind::Plain);
    for [cache, _] in caches(&server) {
        store_and_wait(&cache).await;
        let raced = cache.get_or_compute("EUR", AGING, async || {
            assert!(cache.delete("EUR").await);
            Ok::<_, ()>(2)
        });
        assert_eq!(raced.await, Ok(2));
        assert_eq!(rate(&cache, Ok(3)).await, Ok(3), "{}", cache.backend_name());
    }
}

#[tokio::test]
async fn an_entry_of_a_group_that_was_forgotten_is_not_served_stale() {
    let server = Memcached::start(Kind::Plain);
    for [cache, _] in caches(&server) {
        let rate = async |now: Result<u32, ()>| {
            cache.get_or_compute_in(&["rates"], "rate", AGING, async || now).await
        };
        assert_eq!(rate(Ok(0)).await, Ok(0));
        eventually("it is computed again", async || rate(Ok(1)).await == Ok(1)).await;
        eventually("the value is stored", async || rate(Err(())).await == Ok(1)).await;
        assert!(cache.invalidate(&Invalidation::of([group_key("rates")])).await);
        assert_eq!(rate(Err(())).await, Err(()));
    }
}

#[tokio::test]
async fn an_entry_is_not_served_stale_where_that_was_not_asked_for() {
    let cache = Cache::memory(1 << 20).build();
    let fresh = Lifetime::For(Duration::from_secs(60));
    assert!(cache.set("k", &1, AGING).await);
    eventually("the lifetime is over", async || cache.get::<u32>("k").await.is_none()).await;
    assert!(!cache.touch("k", fresh).await);
    assert_eq!(cache.get_with("k", fresh, async || 2).await, 2);
}

#[test]
#[should_panic(expected = "only an entry with a lifetime of its own")]
fn an_entry_without_a_lifetime_of_its_own_is_never_stale() {
    let _ = Lifetime::Forever.stale_for(Duration::from_secs(1));
}

#[test]
fn a_page_is_served_stale_while_the_handler_fails() {
    let server = Memcached::start(Kind::Plain);
    for [cache, _] in caches(&server) {
        let views = ViewCache::builder(cache).lifetime(AGING).build();
        let fails = Arc::new(AtomicBool::new(false));
        let handler = {
            let fails = Arc::clone(&fails);
            move |req: HttpRequest| {
                let res = if fails.load(Ordering::Relaxed) {
                    HttpResponse::InternalServerError().finish()
                } else {
                    let mut page = HttpResponse::Ok();
                    if req.path() == "/varies" {
                        page.insert_header(("vary", "accept-language"));
                    }
                    page.content_type("text/html").body(req.path().to_owned())
                };
                std::future::ready(res)
            }
        };
        let site = Site::start(&views, handler);
        for path in ["/a", "/varies"] {
            fails.store(false, Ordering::Relaxed);
            assert_eq!(site.get(path).status, 200);
            fails.store(true, Ordering::Relaxed);
            wait_until("the lifetime is over", || {
                let reply = site.get(path);
                assert_eq!((reply.status, reply.body.as_str()), (200, path));
                reply.header("cache-status").contains("detail=stale")
            });
        }
        assert_eq!(site.get("/b").status, 500, "no last page");
        fails.store(false, Ordering::Relaxed);
        wait_until("the page is made again", || {
            site.get("/a").header("cache-status").contains("fwd=uri-miss")
        });
    }
}
