//! Compressed values, as clients with and without compression see them.

use memcached_client::{COMPRESSED, Client, Error, Expiration, Item, Protocol, Reservation};
use test_support::memcached::{Kind, Memcached};

/// A client that compresses values of at least 100 bytes.
fn compressing(server: &Memcached, protocol: Protocol) -> Client {
    let mut config = server.config(protocol);
    config.compression.from = Some(100);
    Client::new(config)
}

#[tokio::test]
async fn every_lookup_returns_what_every_store_has_compressed() {
    let text = "many tasks, ".repeat(100);
    for protocol in [Protocol::Binary, Protocol::Meta] {
        let server = Memcached::start(Kind::Plain);
        let client = compressing(&server, protocol);
        let item = Item::from(&text).flags(5);
        client.set("set", item).await.unwrap();
        assert!(client.add("add", item).await.unwrap());
        assert!(client.replace("add", item).await.unwrap());
        let cas = client.get("add").await.unwrap().unwrap().cas.unwrap();
        client.compare_and_swap("add", item, cas).await.unwrap();
        let both = [("many", item), ("short", Item::from("s").flags(5))];
        assert!(client.set_many(&both).await.iter().all(Result::is_ok));
        assert!(server.stat("bytes") < 1000, "they are stored compressed");

        // Another client unpacks them although it compresses nothing.
        let other = server.client(protocol);
        let values = other.get_many(&["set", "add", "many"]).await;
        let mut values: Vec<_> = values.into_iter().map(|value| value.unwrap().unwrap()).collect();
        values.push(other.get("set").await.unwrap().unwrap());
        values.push(other.get_and_touch("set", Expiration::Never).await.unwrap().unwrap());
        let Ok(Reservation::Found(found)) = other.get_or_reserve("set", "placeholder").await else {
            panic!("there is an entry");
        };
        values.push(found);
        for value in values {
            assert_eq!((&value.data[..], value.flags), (text.as_bytes(), 5));
        }
        assert_eq!(other.get("short").await.unwrap().unwrap().flags, 5);
    }
}

#[tokio::test]
async fn a_value_over_the_servers_limit_is_stored_if_it_becomes_short_enough() {
    let server = Memcached::start(Kind::Plain);
    let client = compressing(&server, Protocol::Auto);
    let long = vec![b'x'; 3 * 1024 * 1024];
    client.set("long", &long).await.unwrap();
    assert_eq!(client.get("long").await.unwrap().unwrap().data, long);

    let noise: Vec<u8> = std::iter::successors(Some(1_u64), |n| {
        Some(n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1))
    })
    .flat_map(|n| n.to_be_bytes()[..4].to_vec())
    .take(2 * 1024 * 1024)
    .collect();
    let outcomes = client.set_many(&[("noise", Item::from(&noise)), ("s", Item::from("s"))]).await;
    assert!(matches!(outcomes[0], Err(Error::TooLarge { is_servers: false, .. })), "{outcomes:?}");
    assert!(outcomes[1].is_ok() && client.get("s").await.unwrap().is_some());
    assert!(matches!(client.set("noise", &noise).await, Err(Error::TooLarge { .. })));
}

#[tokio::test]
async fn a_damaged_value_is_returned_as_it_is() {
    let server = Memcached::start(Kind::Plain);
    let client = compressing(&server, Protocol::Binary);
    client.set("k", Item::from(b"\xff\xff\xff\x7f damaged").flags(COMPRESSED)).await.unwrap();
    let value = client.get("k").await.unwrap().unwrap();
    assert_eq!((&value.data[..], value.flags), (&b"\xff\xff\xff\x7f damaged"[..], COMPRESSED));
}

#[tokio::test]
async fn the_text_protocol_compresses_nothing() {
    let server = Memcached::start(Kind::Plain);
    let text = "many tasks, ".repeat(100);
    compressing(&server, Protocol::Text).set("k", &text).await.unwrap();
    let value = server.client(Protocol::Binary).get("k").await.unwrap().unwrap();
    assert_eq!((&value.data[..], value.flags), (text.as_bytes(), 0));
}
