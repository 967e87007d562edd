//! Groups: entries that are forgotten together.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use actix_web::{HttpRequest, HttpResponse};
use everfresh::{Cache, Invalidation, Lifetime, Memo, ViewCache, group_key, view_key};
use futures_util::future::join;
use memcached_client::Protocol;
use test_support::{
    counting_proxy::CountingProxy,
    memcached::{Kind, Memcached},
};
use tokio::sync::Notify;

use crate::views::site::Site;

async fn on_every_backend(check: impl AsyncFn(&Cache)) {
    let server = Memcached::start(Kind::Plain);
    check(&Cache::memory(1 << 20).build()).await;
    check(&Cache::memcached(server.client(Protocol::Binary)).build()).await;
    check(&Cache::memcached(server.client(Protocol::Text)).prefix("text:").build()).await;
    check(&Cache::memcached(server.client(Protocol::Meta)).prefix("meta:").build()).await;
}

async fn get(cache: &Cache, groups: &[&str], key: &str, value: u32) -> u32 {
    let compute = async || Ok::<_, ()>(value);
    cache.get_or_compute_in(groups, key, Lifetime::Forever, compute).await.unwrap()
}

#[tokio::test]
async fn an_entry_is_forgotten_with_any_of_its_groups() {
    on_every_backend(async |cache: &Cache| {
        assert_eq!(get(cache, &["a", "b"], "k", 1).await, 1);
        assert_eq!(get(cache, &["a", "b"], "k", 2).await, 1);
        for (group, value) in [("a", 3), ("b", 4)] {
            assert!(cache.delete(&group_key(group)).await);
            assert_eq!(get(cache, &["a", "b"], "k", value).await, value, "{group}");
            assert_eq!(get(cache, &["a", "b"], "k", 9).await, value, "{group}");
        }
        assert!(cache.delete(&group_key("other")).await);
        assert_eq!(get(cache, &["a", "b"], "k", 9).await, 4);
        assert!(cache.delete("k").await);
        assert_eq!(get(cache, &["a", "b"], "k", 5).await, 5);
    })
    .await;
}

#[tokio::test]
async fn entries_of_a_group_are_forgotten_without_being_named() {
    on_every_backend(async |cache: &Cache| {
        for key in ["/?q=milk", "/?q=zzz", "/?page=2"] {
            assert_eq!(get(cache, &["tasks"], key, 1).await, 1);
        }
        assert!(cache.invalidate(&Invalidation::of([group_key("tasks")])).await);
        for key in ["/?q=milk", "/?q=zzz", "/?page=2"] {
            assert_eq!(get(cache, &["tasks"], key, 2).await, 2, "{key}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_value_made_before_its_group_was_forgotten_is_not_served_afterwards() {
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
            cache.get_or_compute_in(&["g"], "slow", Lifetime::Forever, compute).await.unwrap()
        };
        let writer = async {
            has_read.notified().await;
            *value.lock().unwrap() = 2;
            assert!(cache.delete(&group_key("g")).await);
            // A reader that comes now does not join the computation that began before.
            let joined = get(cache, &["g"], "slow", 2).await;
            may_store.notify_one();
            joined
        };
        assert_eq!(join(slow, writer).await, (1, 2));
        assert_eq!(get(cache, &["g"], "slow", 3).await, 3, "the old value is not an entry");
    })
    .await;
}

#[tokio::test]
async fn after_the_loss_of_a_generation_nothing_of_it_is_served() {
    let server = Memcached::start(Kind::Plain);
    let cache = Cache::memcached(server.client(Protocol::Binary)).build();
    assert_eq!(get(&cache, &["g"], "k", 1).await, 1);
    // As an eviction of that item does.
    server.client(Protocol::Binary).delete(group_key("g")).await.unwrap();
    assert_eq!(get(&cache, &["g"], "k", 2).await, 2);
}

#[tokio::test]
async fn foreign_bytes_under_the_key_of_a_group_are_replaced() {
    let server = Memcached::start(Kind::Plain);
    let client = server.client(Protocol::Binary);
    let cache = Cache::memcached(client.clone()).build();
    client.set(group_key("g"), b"foreign").await.unwrap();
    assert_eq!(get(&cache, &["g"], "k", 1).await, 1);
    assert_eq!(get(&cache, &["g"], "k", 2).await, 1);
}

#[tokio::test]
async fn with_a_failing_cache_grouped_values_are_computed_each_time() {
    let cache = Cache::failing().build();
    assert_eq!(get(&cache, &["g"], "k", 1).await, 1);
    assert_eq!(get(&cache, &["g"], "k", 2).await, 2);
}

#[tokio::test]
async fn a_memo_belongs_to_its_groups() {
    const PAGE: Memo<u32, u32> = Memo::new("page", Lifetime::Forever).in_groups(&["tasks"]);
    let cache = Cache::memory(1 << 20).build();
    let page = async |value| PAGE.call(&cache, &7, async || Ok::<_, ()>(value)).await.unwrap();
    assert_eq!((page(1).await, page(2).await), (1, 1));
    assert!(cache.delete(&group_key("tasks")).await);
    assert_eq!(page(3).await, 3);
    assert!(PAGE.forget(&cache, &7).await);
    assert_eq!(page(4).await, 4);
}

#[tokio::test]
async fn a_hit_of_a_grouped_entry_takes_one_round_trip() {
    let proxy = CountingProxy::start();
    let cache = Cache::memcached(proxy.client()).build();
    assert_eq!(get(&cache, &["a", "b"], "k", 1).await, 1);
    // Its answer comes after that of the store, which nothing waits for.
    cache.get::<u32>("another").await;
    proxy.round_trips();
    assert_eq!(get(&cache, &["a", "b"], "k", 2).await, 1);
    assert_eq!(proxy.round_trips(), 1);
}

/// Shows the number of the last edit, whatever is asked for.
fn wiki(views: &ViewCache) -> (Site, Arc<AtomicU32>) {
    let edits = Arc::new(AtomicU32::new(0));
    let shown = Arc::clone(&edits);
    let handler = move |_: HttpRequest| {
        let text = shown.load(Ordering::SeqCst).to_string();
        async move { HttpResponse::Ok().body(text) }
    };
    (Site::start(views, handler), edits)
}

fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(future)
    };
    thread::scope(|scope| scope.spawn(run).join().unwrap())
}

#[test]
fn pages_that_no_write_can_name_are_fresh_after_an_edit() {
    let server = Memcached::start(Kind::Plain);
    for cache in
        [Cache::memory(1 << 20).build(), Cache::memcached(server.client(Protocol::Binary)).build()]
    {
        let views = ViewCache::builder(cache.clone()).query(["page", "q"]).group("pages").build();
        let (site, edits) = wiki(&views);
        let targets = ["/", "/?page=00", "/?q=zzz", "/api?q="];
        for edit in 0..3 {
            edits.store(edit, Ordering::SeqCst);
            assert!(block_on(cache.delete(&group_key("pages"))));
            let expected = targets.map(|_| edit.to_string());
            assert_eq!(site.texts(targets), expected);
            edits.store(99, Ordering::SeqCst);
            assert_eq!(site.texts(targets), expected, "from the cache");
        }
    }
}

#[test]
fn a_page_belongs_to_the_groups_of_its_key() {
    let cache = Cache::memory(1 << 20).build();
    let views = ViewCache::builder(cache.clone())
        .groups_of(|key| vec![key.trim_start_matches("view//").to_owned()])
        .build();
    let (site, edits) = wiki(&views);
    assert_eq!(site.texts(["/a", "/b"]), ["0", "0"]);
    edits.store(1, Ordering::SeqCst);
    assert!(block_on(cache.delete(&group_key("a"))));
    assert_eq!(site.texts(["/a", "/b"]), ["1", "0"]);
    assert!(block_on(cache.delete(&view_key("/b"))));
    assert_eq!(site.texts(["/b"]), ["1"]);
}

#[test]
fn variants_of_a_page_are_forgotten_with_its_group() {
    let cache = Cache::memory(1 << 20).build();
    let views = ViewCache::builder(cache.clone()).group("g").vary_cookie("id").build();
    let (site, edits) = wiki(&views);
    let texts =
        || ["id=ada", "id=bob", "x=1"].map(|cookie| site.get_with("/", &[("cookie", cookie)]).body);
    assert_eq!(texts(), ["0", "0", "0"]);
    edits.store(1, Ordering::SeqCst);
    assert_eq!(texts(), ["0", "0", "0"]);
    assert!(block_on(cache.delete(&group_key("g"))));
    assert_eq!(texts(), ["1", "1", "1"]);
}

#[test]
fn a_parameter_that_is_no_number_is_as_if_it_were_not_there() {
    let views = ViewCache::builder(Cache::memory(1 << 20).build()).query_number("page").build();
    let handler = |req: HttpRequest| async move { HttpResponse::Ok().body(req.uri().to_string()) };
    let site = Site::start(&views, handler);
    for (target, seen) in [
        ("/?page=2", "/?page=2"),
        ("/?page=007", "/?page=7"),
        ("/?page=0", "/"),
        ("/?page=-1", "/"),
        ("/?page=+1", "/"),
        ("/?page=x&page=3", "/?page=3"),
        ("/?page=99999999999999999999", "/"),
    ] {
        assert_eq!(site.get(target).body, seen, "{target}");
    }
    assert_eq!(site.get("/?page=07").cache_status(), "hit");
}
