//! A value that was missing together with the one that is made of it is reserved together with it.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use everfresh::{Cache, Invalidation, Lifetime};
use futures_util::future::join;
use memcached_client::{Client, Config, Protocol};
use test_support::{
    memcached::{Kind, Memcached},
    wait::eventually,
};
use tokio::sync::Notify;

/// A server, and two processes with a cache on it, whose reservations outlast the test.
fn two_processes(protocol: Protocol) -> (Memcached, [Cache; 2]) {
    let server = Memcached::start(Kind::Plain);
    let cache = || Cache::memcached(server.client(protocol));
    let caches = [(), ()].map(|()| cache().max_computation(Duration::from_secs(600)).build());
    (server, caches)
}

fn has_key(server: &Memcached, key: &str) -> bool {
    server.keys().iter().any(|other| other == key)
}

/// Deletes page and list, as a write does.
async fn write(cache: &Cache) {
    assert!(cache.invalidate(&Invalidation::of(["list"]).then(["page"])).await);
}

async fn list(cache: &Cache, value: u32) -> u32 {
    cache.get_with("list", Lifetime::Forever, async || value).await
}

/// Returns the page, which is made of the list; `meanwhile` runs before it asks for that.
async fn page(cache: &Cache, value: u32, meanwhile: impl AsyncFnOnce()) -> u32 {
    let compute = async || {
        meanwhile().await;
        list(cache, value).await
    };
    cache.get_with("page", Lifetime::Forever, compute).await
}

/// [`two_processes`] after a write of the second one, of which the first one has made the page before.
async fn after_a_write(protocol: Protocol) -> (Memcached, [Cache; 2]) {
    let (server, [cache, other]) = two_processes(protocol);
    page(&cache, 1, async || ()).await;
    write(&other).await;
    (server, [cache, other])
}

#[tokio::test]
async fn a_list_that_was_missing_with_its_page_is_reserved_with_it_the_next_time() {
    for protocol in [Protocol::Binary, Protocol::Meta] {
        let (server, [cache, other]) = two_processes(protocol);
        for (value, is_reserved) in [(1, false), (2, true), (3, true)] {
            write(&other).await;
            let before = server.stat("cmd_get");
            let meanwhile = async || assert_eq!(has_key(&server, "list"), is_reserved);
            assert_eq!(page(&cache, value, meanwhile).await, value);
            assert_eq!(server.stat("cmd_get") - before, 2, "the page, and the list");
        }
    }
}

#[tokio::test]
async fn a_list_that_is_there_is_read_again_after_its_page_has_been_reserved() {
    let (_server, [cache, other]) = after_a_write(Protocol::Binary).await;
    assert_eq!(list(&other, 2).await, 2);
    // The list that is found with the reservation of the page is from before this write.
    let meanwhile = async || write(&other).await;
    assert_eq!(page(&cache, 3, meanwhile).await, 3);
}

#[tokio::test]
async fn a_list_that_is_deleted_between_its_reservation_and_its_use_is_not_kept() {
    let (_server, [cache, other]) = after_a_write(Protocol::Binary).await;
    let meanwhile = async || write(&other).await;
    assert_eq!(page(&cache, 2, meanwhile).await, 2);
    assert_eq!(list(&other, 3).await, 3);
}

#[tokio::test]
async fn a_list_that_its_own_process_has_deleted_since_is_reserved_again_and_kept() {
    let (_server, [cache, other]) = after_a_write(Protocol::Binary).await;
    let meanwhile = async || write(&cache).await;
    assert_eq!(page(&cache, 2, meanwhile).await, 2);
    eventually("the list is stored", async || other.contains("list").await).await;
    assert_eq!(list(&other, 3).await, 2);
}

#[tokio::test]
async fn a_reservation_that_nobody_uses_is_given_up_and_not_made_again() {
    let (server, [cache, other]) = two_processes(Protocol::Meta);
    page(&cache, 1, async || ()).await;
    for is_reserved in [true, false] {
        write(&other).await;
        let without_list = async || {
            assert_eq!(has_key(&server, "list"), is_reserved);
            2
        };
        assert_eq!(cache.get_with("page", Lifetime::Forever, without_list).await, 2);
        eventually("it is given up", async || !has_key(&server, "list")).await;
    }
}

#[tokio::test]
async fn a_page_that_is_there_says_nothing_about_its_list() {
    let (server, [cache, other]) = after_a_write(Protocol::Binary).await;
    page(&other, 2, async || ()).await;
    eventually("the page is stored", async || other.contains("page").await).await;
    // Within another computation, page and list are asked for at once, without a lookup of the page.
    let found = async || page(&cache, 3, async || ()).await;
    assert_eq!(Box::pin(cache.get_with("site", Lifetime::Forever, found)).await, 2);
    write(&other).await;
    page(&cache, 4, async || assert!(has_key(&server, "list"))).await;
}

#[tokio::test]
async fn a_reservation_is_given_up_when_the_page_is_no_longer_wanted() {
    let (server, [cache, _]) = after_a_write(Protocol::Binary).await;
    let begun = Notify::new();
    {
        let endless = page(&cache, 2, async || {
            begun.notify_one();
            std::future::pending::<()>().await;
        });
        tokio::select! {
            _ = endless => unreachable!("it is pending"),
            () = begun.notified() => assert!(has_key(&server, "list")),
        }
    }
    eventually("it is given up", async || !has_key(&server, "list")).await;
}

#[tokio::test]
async fn a_caller_that_asks_first_computes_the_reserved_list_and_waits_for_nobody() {
    let (_server, [cache, _]) = after_a_write(Protocol::Binary).await;
    let (is_reserved, may_go_on) = (Notify::new(), Notify::new());
    let slow = page(&cache, 3, async || {
        is_reserved.notify_one();
        may_go_on.notified().await;
    });
    let fast = async {
        is_reserved.notified().await;
        assert_eq!(list(&cache, 2).await, 2);
        eventually("the list is stored", async || cache.contains("list").await).await;
        may_go_on.notify_one();
    };
    assert_eq!(
        Box::pin(join(slow, fast)).await.0,
        2,
        "made of the list that was computed meanwhile"
    );
}

#[tokio::test]
async fn a_list_is_not_held_while_another_process_makes_the_page() {
    let (server, [cache, other]) = after_a_write(Protocol::Binary).await;
    let (begun, computed) = (Notify::new(), AtomicU32::new(0));
    // The other process has not computed the page before, so it reserves the page only.
    let first = page(&other, 2, async || {
        begun.notify_one();
        eventually("the second one waits", async || cache.stats()["cache"].waits > 0).await;
        eventually("the list is given up", async || !has_key(&server, "list")).await;
    });
    let second = async {
        begun.notified().await;
        // Within another computation, page and list are asked for at once, without a lookup of the page.
        let page = async || page(&cache, 3, async || _ = computed.fetch_add(1, Relaxed)).await;
        Box::pin(cache.get_with("site", Lifetime::Forever, page)).await
    };
    assert_eq!(Box::pin(join(first, second)).await, (2, 2));
    assert_eq!(computed.into_inner(), 0);
}

#[tokio::test]
async fn a_list_that_is_asked_for_late_is_not_reserved() {
    let (server, [cache, other]) = two_processes(Protocol::Meta);
    for value in 1..=2 {
        write(&other).await;
        let late = async || {
            assert!(!has_key(&server, "list"));
            tokio::task::yield_now().await;
        };
        assert_eq!(page(&cache, value, late).await, value);
        eventually("the list is stored", async || other.contains("list").await).await;
    }
}

#[tokio::test]
async fn a_list_that_another_task_renews_while_it_is_reserved_is_kept() {
    let (_server, [cache, other]) = after_a_write(Protocol::Binary).await;
    let renew = async || {
        let cache = cache.clone();
        let new = async || Ok::<_, ()>(2);
        let renewed = async move { cache.renew("list", Lifetime::Forever, new).await };
        assert_eq!(tokio::spawn(renewed).await.unwrap(), Ok(2));
        eventually("the list is stored", async || other.contains("list").await).await;
    };
    assert_eq!(page(&cache, 3, renew).await, 2);
}

#[tokio::test]
async fn a_task_does_not_wait_for_the_reservation_that_it_has_given_up() {
    for protocol in [Protocol::Binary, Protocol::Meta] {
        let (_server, [cache, _]) = after_a_write(protocol).await;
        assert_eq!(cache.get_with("page", Lifetime::Forever, async || 2).await, 2);
        assert_eq!(list(&cache, 3).await, 3);
        assert_eq!(cache.stats()["cache"].waits, 0);
    }
}

#[tokio::test]
async fn a_list_on_another_server_is_not_reserved_with_its_page() {
    let servers = [Memcached::start(Kind::Plain), Memcached::start(Kind::Plain)];
    let addresses = servers.iter().map(Memcached::address).collect();
    let client = Client::new(Config::new(addresses));
    let server_of = |key: &str| client.server_of(key).unwrap().clone();
    let lists = (0..).map(|number| format!("list{number}"));
    let list = lists.into_iter().find(|list| server_of(list) != server_of("page")).unwrap();
    let cache = Cache::memcached(client.clone()).build();
    let has_list = || servers.iter().any(|server| has_key(server, &list));
    for value in 1..=2 {
        assert!(cache.invalidate(&Invalidation::of([list.as_str()]).then(["page"])).await);
        let page = async || {
            assert!(!has_list());
            cache.get_with(&list, Lifetime::Forever, async || value).await
        };
        assert_eq!(cache.get_with("page", Lifetime::Forever, page).await, value);
        eventually("the list is stored", async || cache.contains(&list).await).await;
    }
}

#[tokio::test]
async fn a_list_of_another_cache_is_not_reserved_with_the_page() {
    let (server, [cache, other]) = two_processes(Protocol::Meta);
    for value in 1..=2 {
        write(&other).await;
        let page = async || {
            assert!(!has_key(&server, "list"));
            list(&other, value).await
        };
        assert_eq!(cache.get_with("page", Lifetime::Forever, page).await, value);
        eventually("the list is stored", async || other.contains("list").await).await;
    }
}
