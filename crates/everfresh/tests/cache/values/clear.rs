//! Clearing a cache on servers that others use, too.

use everfresh::{Cache, Lifetime, Memo};
use memcached_client::Protocol;
use test_support::{
    memcached::{Kind, Memcached},
    wait::eventually,
};

const NAMES: Memo<(), Vec<String>> = Memo::new("names", Lifetime::Forever);

fn cache(server: &Memcached, prefix: &str) -> Cache {
    Cache::memcached(server.client(Protocol::Binary)).prefix(prefix).build()
}

async fn get(cache: &Cache) -> Option<u32> {
    cache.get("k").await
}

#[tokio::test]
async fn a_clear_ends_the_entries_of_one_cache_in_all_processes() {
    let server = Memcached::start(Kind::Plain);
    let [one, other] = [(); 2].map(|()| cache(&server, "one:"));
    let neighbour = cache(&server, "other:");
    for cache in [&one, &neighbour] {
        assert!(cache.set("k", &1, Lifetime::Forever).await);
    }
    one.counter("visits").increment(3).await;
    assert_eq!([get(&one).await, get(&other).await, get(&neighbour).await], [Some(1); 3]);

    assert!(one.clear().await);
    assert_eq!(get(&one).await, None);
    eventually("the other process follows", async || get(&other).await.is_none()).await;
    assert_eq!(get(&neighbour).await, Some(1));
    assert_eq!(one.counter("visits").get().await, Some(3), "counters stay");

    assert!(!one.replace("k", &2, Lifetime::Forever).await, "there is nothing to replace");
    assert!(one.add("k", &2, Lifetime::Forever).await, "the key is free");
    assert_eq!([get(&one).await, get(&other).await], [Some(2); 2]);
    assert_eq!(get(&cache(&server, "one:")).await, Some(2), "a new process finds them, too");
}

#[tokio::test]
async fn while_two_processes_know_different_epochs_each_deletes_what_the_other_has_stored() {
    let server = Memcached::start(Kind::Plain);
    let [one, late] = [(); 2].map(|()| cache(&server, "app:"));
    assert_eq!(get(&late).await, None, "it knows the epoch before the clear");
    assert!(one.clear().await);
    assert!(one.set("k", &1, Lifetime::Forever).await);
    assert!(late.delete("k").await);
    assert_eq!(get(&one).await, None);
}

#[tokio::test]
async fn values_that_a_process_keeps_end_with_a_clear() {
    let server = Memcached::start(Kind::Plain);
    let [one, other] = [(); 2].map(|()| cache(&server, "app:"));
    let names = async |cache: &Cache, now: &str| {
        let compute = async || Ok::<_, ()>(vec![now.to_owned()]);
        NAMES.at_hand(cache, &(), compute).await.unwrap()[0].clone()
    };
    assert_eq!(names(&other, "old").await, "old");
    assert_eq!(names(&one, "new").await, "old");
    assert!(one.clear().await);
    assert_eq!(names(&one, "new").await, "new");
    eventually("the other process follows", async || names(&other, "new").await == "new").await;
}

#[tokio::test]
async fn an_epoch_only_grows() {
    let server = Memcached::start(Kind::Plain);
    let [one, other] = [(); 2].map(|()| cache(&server, "app:"));
    assert!(one.set("k", &1, Lifetime::Forever).await);
    assert!(one.clear().await);
    // A server that comes back with an older number.
    let client = server.client(Protocol::Binary);
    client.set("app:%epoch", "5").await.unwrap();
    assert_eq!(get(&one).await, None);
    eventually("the later epoch is written again", async || {
        assert_eq!(get(&one).await, None);
        client.get("app:%epoch").await.unwrap().is_some_and(|found| found.data != "5")
    })
    .await;
    eventually("the other process follows", async || get(&other).await.is_none()).await;
    assert!(one.clear().await);
}

#[tokio::test]
async fn a_lost_epoch_does_not_clear_the_cache() {
    let server = Memcached::start(Kind::Plain);
    let cache = cache(&server, "app:");
    assert!(cache.clear().await);
    assert!(cache.set("k", &1, Lifetime::Forever).await);
    let client = server.client(Protocol::Binary);
    let epoch = client.get("app:%epoch").await.unwrap().unwrap();
    client.delete("app:%epoch").await.unwrap();
    eventually("the number is stored again", async || {
        assert_eq!(get(&cache).await, Some(1));
        client.get("app:%epoch").await.unwrap().is_some_and(|found| found.data == epoch.data)
    })
    .await;
    assert_eq!(get(&cache).await, Some(1));
}

#[tokio::test]
async fn a_clear_is_certain_or_says_that_it_is_not() {
    assert!(Cache::memory(1 << 20).build().clear().await);
    assert!(!Cache::failing().build().clear().await);
}
