//! Concurrent gets of one key share one request.

use futures_util::future::{join_all, join3};
use memcached_client::{Client, Deletion, Protocol};
use test_support::memcached::{Kind, Memcached};

/// Returns the number of gets that the server has received.
async fn gets(client: &Client) -> u64 {
    let (_, stats) = client.stats().await.remove(0);
    let stats = stats.unwrap();
    stats.iter().find(|(name, _)| name == "cmd_get").unwrap().1.parse().unwrap()
}

#[tokio::test]
async fn concurrent_gets_of_a_key_share_one_request() {
    let server = Memcached::start(Kind::Plain);
    let client = server.client(Protocol::Binary);
    client.set("k", b"value").await.unwrap();
    client.set("other", b"another").await.unwrap();
    let before = gets(&client).await;
    let keys = ["k", "other", "k", "missing", "k", "missing"];
    let found = join_all(keys.map(|key| client.get(key))).await;
    let found: Vec<_> = found.into_iter().map(|value| value.unwrap().map(|v| v.data)).collect();
    let found: Vec<_> = found.iter().map(Option::as_deref).collect();
    let (value, another) = (Some(&b"value"[..]), Some(&b"another"[..]));
    assert_eq!(found, [value, another, value, None, value, None]);
    assert_eq!(gets(&client).await - before, 3);
}

#[tokio::test]
async fn a_get_after_a_delete_does_not_share_an_earlier_get() {
    let server = Memcached::start(Kind::Plain);
    let client = server.client(Protocol::Binary);
    client.set("k", b"value").await.unwrap();
    let (before, deleted, after) =
        join3(client.get("k"), client.delete("k"), client.get("k")).await;
    assert!(before.unwrap().is_some());
    assert_eq!(deleted.unwrap(), Deletion::Deleted);
    assert_eq!(after.unwrap(), None);
}

#[tokio::test]
async fn a_shared_get_survives_the_drop_of_the_first_caller() {
    let server = Memcached::start(Kind::Plain);
    let client = server.client(Protocol::Binary);
    client.set("k", b"value").await.unwrap();
    let mut first = Box::pin(client.get("k"));
    let mut second = Box::pin(client.get("k"));
    // Both requests are pushed, but not answered.
    assert!(futures_util::poll!(&mut first).is_pending());
    assert!(futures_util::poll!(&mut second).is_pending());
    drop(first);
    assert_eq!(&second.await.unwrap().unwrap().data[..], b"value");
}
