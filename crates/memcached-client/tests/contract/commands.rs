//! All commands, on every transport and kind of server.

use std::time::{Duration, SystemTime};

use memcached_client::{
    Cas, Client, Command, Deletion, Error, Expiration, Item, Protocol, Reservation, Swap,
};
use test_support::{
    memcached::{Kind, Memcached},
    wait::eventually,
};

use crate::runtime;

/// Declares each test once per transport, in a module named after the transport.
macro_rules! on_every_transport {
    ($($test:ident),+ $(,)?) => {
        on_every_transport!(@ binary_plain, Binary, Plain, $($test),+);
        on_every_transport!(@ binary_sasl, Binary, Sasl, $($test),+);
        on_every_transport!(@ binary_unix_socket, Binary, UnixSocket, $($test),+);
        on_every_transport!(@ meta_plain, Meta, Plain, $($test),+);
        on_every_transport!(@ meta_auth_file, Meta, AuthFile, $($test),+);
        on_every_transport!(@ meta_unix_socket, Meta, UnixSocket, $($test),+);
        on_every_transport!(@ auto_plain, Auto, Plain, $($test),+);
        on_every_transport!(@ auto_sasl, Auto, Sasl, $($test),+);
        on_every_transport!(@ auto_auth_file, Auto, AuthFile, $($test),+);
        on_every_transport!(@ binary_tls, Binary, Tls, $($test),+);
        on_every_transport!(@ binary_tls_sasl, Binary, TlsSasl, $($test),+);
        on_every_transport!(@ meta_tls, Meta, Tls, $($test),+);
        on_every_transport!(@ meta_tls_auth_file, Meta, TlsAuthFile, $($test),+);
        on_every_transport!(@ auto_tls_sasl, Auto, TlsSasl, $($test),+);
        on_every_transport!(@ text_plain, Text, Plain, $($test),+);
        on_every_transport!(@ text_auth_file, Text, AuthFile, $($test),+);
        on_every_transport!(@ text_tls, Text, Tls, $($test),+);
        on_every_transport!(@ text_unix_socket, Text, UnixSocket, $($test),+);
    };
    (@ $transport:ident, $protocol:ident, $kind:ident, $($test:ident),+) => {
        mod $transport {
            $(#[tokio::test]
            async fn $test() {
                let server = super::Memcached::start(super::Kind::$kind);
                super::$test(&server.client(super::Protocol::$protocol)).await;
            })+
        }
    };
}

on_every_transport![
    a_batch_of_keys_is_returned_in_order,
    a_deleted_value_is_not_found,
    a_value_expires,
    a_long_key_works_like_any_other,
    a_cas_token_is_valid_until_the_entry_changes,
    a_number_can_be_incremented_and_decremented,
    a_stored_value_is_returned,
    a_value_of_nearly_a_megabyte_is_stored_and_returned,
    a_value_can_be_extended_at_both_ends,
    a_lookup_can_change_the_lifetime,
    a_counter_is_created_with_a_value_and_a_lifetime,
    a_map_holds_the_keys_that_were_found,
    add_stores_only_if_there_is_no_entry,
    add_with_cas_returns_a_token_for_a_swap,
    a_missing_key_is_reserved_by_the_first_client_that_asks,
    a_deleted_key_can_be_reserved_again_and_the_old_token_is_refused,
    of_many_clients_that_ask_at_once_one_reserves_the_key,
    batches_store_and_delete_values,
    arbitrary_bytes_are_stored,
    unsupported_commands_fail_and_the_connection_survives,
    invalid_keys_are_refused,
    flush_deletes_all_entries,
    concurrent_operations_get_their_own_replies,
    an_item_that_is_too_large_is_refused,
];

async fn value(client: &Client, key: &str) -> Option<Vec<u8>> {
    client.get(key).await.unwrap().map(|value| value.data.to_vec())
}

async fn a_stored_value_is_returned(client: &Client) {
    assert_eq!(value(client, "k").await, None);
    client.set("k", "value").await.unwrap();
    assert_eq!(value(client, "k").await.as_deref(), Some(&b"value"[..]));
    client.set("k", "").await.unwrap();
    assert_eq!(value(client, "k").await.as_deref(), Some(&b""[..]), "an empty value is not a miss");
}

async fn arbitrary_bytes_are_stored(client: &Client) {
    let bytes: Vec<u8> = (0..=255).chain(*b"\r\nEND\r\nVALUE k 0 1\r\n").collect();
    client.set("schlüssel/🔑", &bytes).await.unwrap();
    assert_eq!(value(client, "schlüssel/🔑").await, Some(bytes));
}

async fn a_value_of_nearly_a_megabyte_is_stored_and_returned(client: &Client) {
    let large = vec![b'x'; 1024 * 1024 - 500];
    client.set("large", &large).await.unwrap();
    client.set("small", "s").await.unwrap();
    assert_eq!(value(client, "large").await, Some(large.clone()));
    let both = client.get_many(&["large", "small"]).await;
    let lengths: Vec<_> = both.into_iter().map(|v| v.unwrap().unwrap().data.len()).collect();
    assert_eq!(lengths, [large.len(), 1]);
}

async fn an_item_that_is_too_large_is_refused(client: &Client) {
    let large = vec![b'x'; 1024 * 1024];
    let outcome = client.set("large", &large).await;
    let error = outcome.unwrap_err().to_string();
    let expected = "the item “large” is too large: 1048581 bytes, and the limit is 1048576";
    assert_eq!(error, expected);
    client.set("small", "s").await.unwrap();
    assert_eq!(value(client, "small").await.as_deref(), Some(&b"s"[..]));
}

async fn a_long_key_works_like_any_other(client: &Client) {
    let (one, other) = ("k".repeat(300), "k".repeat(301));
    client.set(&one, "one").await.unwrap();
    client.set(&other, "other").await.unwrap();
    assert_eq!(value(client, &one).await.as_deref(), Some(&b"one"[..]));
    assert_eq!(value(client, &other).await.as_deref(), Some(&b"other"[..]));
    assert_ne!(client.delete(&one).await.unwrap(), Deletion::NotFound);
    assert_eq!(value(client, &one).await, None);
}

async fn invalid_keys_are_refused(client: &Client) {
    let error = client.get("a b\n").await.unwrap_err().to_string();
    assert!(error.starts_with("the key “a b\\n” is not valid: byte 1 is"), "{error}");
    client.set("k", "value").await.unwrap();
    for key in ["", "a b", "a\r\nflush_all", "a\0", "\u{7f}"] {
        assert!(matches!(client.get(key).await, Err(Error::Key { .. })), "{key:?}");
        assert!(matches!(client.set(key, "v").await, Err(Error::Key { .. })), "{key:?}");
        assert!(matches!(client.delete(key).await, Err(Error::Key { .. })), "{key:?}");
    }
    let found = client.get_many(&["k", "a b", "k"]).await;
    assert!(
        matches!(found[1], Err(Error::Key { .. })),
        "an invalid key does not affect the others"
    );
    assert!(found[0].as_ref().unwrap().is_some() && found[2].as_ref().unwrap().is_some());
}

async fn add_stores_only_if_there_is_no_entry(client: &Client) {
    assert!(client.add("k", "first").await.unwrap());
    assert!(!client.add("k", "second").await.unwrap());
    assert_eq!(value(client, "k").await.as_deref(), Some(&b"first"[..]));
}

async fn a_cas_token_is_valid_until_the_entry_changes(client: &Client) {
    client.set("k", "1").await.unwrap();
    let cas = client.get_with_cas("k").await.unwrap().unwrap().cas.unwrap();
    let swapped = client.compare_and_swap("k", "2", cas).await.unwrap();
    assert!(matches!(swapped, Swap::Done(_)), "{swapped:?}");
    assert_eq!(client.compare_and_swap("k", "3", cas).await.unwrap(), Swap::Changed);
    assert_eq!(client.delete_if_unchanged("k", cas).await.unwrap(), Swap::Changed);
    assert_eq!(value(client, "k").await.as_deref(), Some(&b"2"[..]));

    let cas = client.get_with_cas("k").await.unwrap().unwrap().cas.unwrap();
    assert!(matches!(client.delete_if_unchanged("k", cas).await.unwrap(), Swap::Done(None)));
    assert_eq!(value(client, "k").await, None);
    assert_eq!(client.compare_and_swap("k", "4", cas).await.unwrap(), Swap::Missing);
}

async fn add_with_cas_returns_a_token_for_a_swap(client: &Client) {
    let cas = client.add_with_cas("k", "lease 1").await.unwrap().unwrap();
    assert_eq!(client.add_with_cas("k", "lease 2").await.unwrap(), None);
    assert!(matches!(client.compare_and_swap("k", "v", cas).await.unwrap(), Swap::Done(_)));

    let cas = client.add_with_cas("l", "lease 3").await.unwrap().unwrap();
    client.delete("l").await.unwrap();
    assert_eq!(client.compare_and_swap("l", "v", cas).await.unwrap(), Swap::Missing);
    client.add("l", "lease 4").await.unwrap();
    assert_eq!(client.compare_and_swap("l", "v", cas).await.unwrap(), Swap::Changed);
}

fn placeholder() -> Item<'static> {
    Item::from("placeholder").expires_in(Duration::from_secs(60))
}

async fn reserved(client: &Client, key: &str) -> Option<Cas> {
    match client.get_or_reserve(key, placeholder()).await.unwrap() {
        Reservation::Reserved(cas) => Some(cas.expect("the servers have CAS tokens")),
        _ => None,
    }
}

async fn a_missing_key_is_reserved_by_the_first_client_that_asks(client: &Client) {
    let cas = reserved(client, "k").await.expect("the key is free");
    let Reservation::Found(found) = client.get_or_reserve("k", placeholder()).await.unwrap() else {
        panic!("the key is reserved");
    };
    assert!(*found.data == *b"placeholder" || found.data.is_empty(), "{found:?}");
    assert!(matches!(client.compare_and_swap("k", "v", cas).await.unwrap(), Swap::Done(_)));
    let found = client.get_or_reserve("k", placeholder()).await.unwrap();
    assert!(matches!(&found, Reservation::Found(value) if *value.data == *b"v"), "{found:?}");
    client.set("empty", "").await.unwrap();
    assert_eq!(reserved(client, "empty").await, None, "an empty value is not a free key");
}

async fn a_deleted_key_can_be_reserved_again_and_the_old_token_is_refused(client: &Client) {
    let old = reserved(client, "k").await.unwrap();
    client.delete("k").await.unwrap();
    assert_eq!(client.compare_and_swap("k", "old", old).await.unwrap(), Swap::Missing);
    let new = reserved(client, "k").await.unwrap();
    assert_eq!(client.compare_and_swap("k", "old", old).await.unwrap(), Swap::Changed);
    assert!(matches!(client.compare_and_swap("k", "new", new).await.unwrap(), Swap::Done(_)));
}

async fn of_many_clients_that_ask_at_once_one_reserves_the_key(client: &Client) {
    for round in 0..50 {
        let key = format!("k{round}");
        let all = futures_util::future::join_all((0..16).map(|_| reserved(client, &key))).await;
        assert_eq!(all.into_iter().flatten().count(), 1, "round {round}");
    }
}

async fn a_deleted_value_is_not_found(client: &Client) {
    client.set("k", "v").await.unwrap();
    let text = client.protocol() == Protocol::Text;
    let expected = |deletion| if text { Deletion::Gone } else { deletion };
    assert_eq!(client.delete("k").await.unwrap(), expected(Deletion::Deleted));
    assert_eq!(value(client, "k").await, None);
    assert_eq!(client.delete("k").await.unwrap(), expected(Deletion::NotFound));
}

async fn a_batch_of_keys_is_returned_in_order(client: &Client) {
    for n in [1, 3, 5] {
        client.set(format!("k{n}"), &n.to_string()).await.unwrap();
    }
    let keys: Vec<_> = (0..7).map(|n| format!("k{n}")).chain(["k3".to_owned()]).collect();
    let found = client.get_many(&keys).await;
    let found: Vec<_> = found.into_iter().map(|v| v.unwrap().map(|v| v.data)).collect();
    let expected = [None, Some("1"), None, Some("3"), None, Some("5"), None, Some("3")];
    assert_eq!(found, expected.map(|v| v.map(bytes::Bytes::from)));
    assert!(client.get_many::<&str>(&[]).await.is_empty());
}

async fn batches_store_and_delete_values(client: &Client) {
    let values: Vec<_> = (0..500).map(|n| (format!("k{n}"), format!("value {n}"))).collect();
    let mut items: Vec<_> = values.iter().map(|(k, v)| (k.as_str(), Item::from(v))).collect();
    items.push(("not valid", Item::from("v")));
    let stored = client.set_many(&items).await;
    assert_eq!(stored.iter().find(|outcome| outcome.is_err()), Some(&stored[500]));
    assert!(matches!(stored[500], Err(Error::Key { .. })));

    let keys: Vec<_> = values.iter().map(|(key, _)| key).collect();
    let found = client.get_many(&keys).await;
    for (found, (_, value)) in found.into_iter().zip(&values) {
        assert_eq!(found.unwrap().unwrap().data, value.as_bytes());
    }
    let deleted = client.delete_many(&["k0", "k499", "nothing"]).await;
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    if client.protocol() != Protocol::Text {
        let deleted: Vec<_> = deleted.into_iter().map(Result::unwrap).collect();
        assert_eq!(deleted, [Deletion::Deleted, Deletion::Deleted, Deletion::NotFound]);
    }
    assert_eq!(value(client, "k0").await, None);
    assert_eq!(value(client, "k499").await, None);
    assert!(value(client, "k1").await.is_some());
}

async fn a_number_can_be_incremented_and_decremented(client: &Client) {
    assert_eq!(client.increment("n", 1).await.unwrap(), None);
    client.set("n", "40").await.unwrap();
    assert_eq!(client.increment("n", 2).await.unwrap(), Some(42));
    assert_eq!(client.decrement("n", 50).await.unwrap(), Some(0));
    client.set("n", "no number").await.unwrap();
    let error = client.increment("n", 1).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }));
    if client.protocol() != Protocol::Text {
        let server = client.server_of("n").unwrap();
        let expected = format!("the server {server} refused an operation on “n”: ");
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
    client.set("n", "1").await.unwrap();
    assert_eq!(client.increment("n", 1).await.unwrap(), Some(2), "the connection survives");
}

async fn a_value_expires(client: &Client) {
    let second = Duration::from_secs(1);
    client.set("soon", Item::from("v").expires_in(second)).await.unwrap();
    client.set("later", Item::from("v").expires_in(100 * second)).await.unwrap();
    client.set("much later", "").await.unwrap_err();
    client.set("far", Item::from("v").expires_in(40 * 86400 * second)).await.unwrap();
    let centuries = Duration::from_secs(200 * 365 * 86400);
    client.set("farther", Item::from("v").expires_in(centuries)).await.unwrap();
    client.set("never", "v").await.unwrap();
    let at_once = Item { expiration: Expiration::In(Duration::ZERO), ..Item::from("v") };
    client.set("at-once", at_once).await.unwrap();
    let past = Item { expiration: Expiration::At(SystemTime::UNIX_EPOCH), ..at_once };
    client.set("past", past).await.unwrap();
    assert_eq!(value(client, "at-once").await, None);
    assert_eq!(value(client, "past").await, None);
    eventually("the value has expired", async || value(client, "soon").await.is_none()).await;
    for key in ["later", "far", "farther", "never"] {
        assert!(value(client, key).await.is_some(), "{key}");
    }
}

async fn a_value_can_be_extended_at_both_ends(client: &Client) {
    if !client.protocol().supports(Command::Append) {
        let outcomes = [client.append("k", "c").await, client.prepend("k", "a").await];
        let expected = [Command::Append, Command::Prepend].map(|c| Err(Error::Unsupported(c)));
        return assert_eq!(outcomes, expected);
    }
    assert_eq!(client.append("k", "c").await, Ok(false));
    assert_eq!(client.prepend("k", "a").await, Ok(false));
    client.set("k", Item::from("b").flags(7)).await.unwrap();
    assert_eq!(client.append("k", "c").await, Ok(true));
    assert_eq!(client.prepend("k", "a").await, Ok(true));
    let value = client.get("k").await.unwrap().unwrap();
    assert_eq!((&value.data[..], value.flags), (&b"abc"[..], 7));
}

async fn a_lookup_can_change_the_lifetime(client: &Client) {
    let second = Expiration::In(Duration::from_secs(1));
    if !client.protocol().supports(Command::GetAndTouch) {
        let expected = Err(Error::Unsupported(Command::GetAndTouch));
        return assert_eq!(client.get_and_touch("k", second).await, expected);
    }
    assert_eq!(client.get_and_touch("k", second).await, Ok(None));
    client.set("k", Item::from("v").flags(7)).await.unwrap();
    let found = client.get_and_touch("k", second).await.unwrap().unwrap();
    assert_eq!((&found.data[..], found.flags), (&b"v"[..], 7));
    eventually("the value has expired", async || value(client, "k").await.is_none()).await;
}

async fn a_counter_is_created_with_a_value_and_a_lifetime(client: &Client) {
    let long = Expiration::In(Duration::from_secs(100));
    assert_eq!(client.increment_or_insert("n", 2, 40, long).await, Ok(40));
    assert_eq!(client.increment_or_insert("n", 2, 40, long).await, Ok(42));
    assert_eq!(client.increment("n", 1).await, Ok(Some(43)));
    for forever in [Expiration::Never, Expiration::In(Duration::MAX)] {
        client.delete("n").await.unwrap();
        assert_eq!(client.increment_or_insert("n", 1, u64::MAX, forever).await, Ok(u64::MAX));
        assert_eq!(client.increment_or_insert("n", 1, 7, forever).await, Ok(0), "it wraps around");
    }
    let second = Expiration::In(Duration::from_secs(1));
    client.increment_or_insert("soon", 1, 1, second).await.unwrap();
    eventually("the counter has expired", async || value(client, "soon").await.is_none()).await;
    client.set("n", "no number").await.unwrap();
    let refused = client.increment_or_insert("n", 1, 1, long).await;
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
}

async fn a_map_holds_the_keys_that_were_found(client: &Client) {
    client.set("a", "1").await.unwrap();
    client.set("c", "3").await.unwrap();
    let keys = ["a", "b", "c", "not valid"];
    let found = client.get_map(&keys).await;
    assert_eq!(
        (found.len(), &found[&"a"].data[..], &found[&"c"].data[..]),
        (2, &b"1"[..], &b"3"[..])
    );
}

async fn flush_deletes_all_entries(client: &Client) {
    client.set("k", "v").await.unwrap();
    let answers = client.flush().await;
    assert!(answers.iter().all(|(_, answer)| answer.is_ok()), "{answers:?}");
    assert_eq!(value(client, "k").await, None);
}

async fn unsupported_commands_fail_and_the_connection_survives(client: &Client) {
    let has = |command| client.protocol().supports(command);
    let expected = |command| {
        if has(command) { None } else { Some(Error::Unsupported(command)) }
    };
    client.set("k", "v").await.unwrap();

    assert_eq!(client.touch("k", Expiration::Never).await.err(), expected(Command::Touch));
    assert_eq!(client.replace("k", "w").await.err(), expected(Command::Replace));
    let flagged = client.set("f", Item::from("v").flags(7)).await;
    assert_eq!(flagged.err(), expected(Command::Flags));
    assert_eq!(client.stats().await[0].1.as_ref().err(), expected(Command::Stats).as_ref());
    assert!(client.noop().await[0].1.is_ok());
    let version = client.version().await[0].1.clone().unwrap();
    assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{version}");

    if has(Command::Flags) {
        assert_eq!(client.get("f").await.unwrap().unwrap().flags, 7);
        assert!(client.touch("k", Expiration::In(Duration::from_secs(9))).await.unwrap());
        assert!(!client.touch("nothing", Expiration::Never).await.unwrap());
        assert!(!client.replace("nothing", "w").await.unwrap());
        let stats = client.stats().await[0].1.clone().unwrap();
        assert!(stats.iter().any(|(name, _)| name == "get_hits"), "{stats:?}");
    }
    assert!(client.get("k").await.unwrap().is_some());
}

async fn concurrent_operations_get_their_own_replies(client: &Client) {
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move {
                let (key, value) = (format!("k{n}"), "v".repeat(n));
                client.set(&key, &value).await.unwrap();
                assert_eq!(client.get(&key).await.unwrap().unwrap().data, value.as_bytes());
                assert_eq!(client.get(format!("none{n}")).await.unwrap(), None);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_cas_token_is_invalid_after_a_reconnect() {
    for protocol in [Protocol::Binary, Protocol::Meta, Protocol::Text] {
        let mut server = Memcached::start(Kind::Plain);
        let client = server.client(protocol);
        client.set("k", "old").await.unwrap();
        let old = client.get_with_cas("k").await.unwrap().unwrap().cas.unwrap();
        server.restart();
        eventually("the server is up again", async || client.set("k", "new").await.is_ok()).await;
        // The server has restarted and counts from 1 again, so the old token matches the new value.
        let swapped = client.compare_and_swap("k", "stale", old).await.unwrap();
        assert_eq!(swapped, Swap::ConnectionReplaced, "{protocol:?}");
        assert_eq!(client.delete_if_unchanged("k", old).await.unwrap(), Swap::ConnectionReplaced);
        assert_eq!(value(&client, "k").await.as_deref(), Some(&b"new"[..]), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_server_without_cas_returns_no_token() {
    let server = Memcached::start(Kind::WithoutCas);
    for protocol in [Protocol::Binary, Protocol::Meta, Protocol::Text] {
        let client = server.client(protocol);
        let added = client.add_with_cas("lease", "l").await;
        assert!(matches!(added, Err(Error::Refused { .. })), "{protocol:?}: {added:?}");
        client.set("k", "v").await.unwrap();
        assert_eq!(client.get_with_cas("k").await.unwrap().unwrap().cas, None, "{protocol:?}");
        client.delete("lease").await.unwrap();
    }
}

#[tokio::test]
async fn the_text_protocol_refuses_keys_that_are_not_utf8() {
    let server = Memcached::start(Kind::Plain);
    server.client(Protocol::Binary).set(b"\xff\xfe", "v").await.unwrap();
    let client = server.client(Protocol::Text);
    client.set("k", "v").await.unwrap();
    assert!(matches!(client.get(b"\xff\xfe").await, Err(Error::Key { .. })));
    let both = client.get_many(&[&b"\xff\xfe"[..], b"k"]).await;
    assert!(matches!(both[0], Err(Error::Key { .. })) && both[1].as_ref().unwrap().is_some());
    assert_eq!(client.status()[0].outages, 0);
}

#[tokio::test]
async fn a_batch_is_split_between_servers() {
    let servers: Vec<_> = (0..3).map(|_| Memcached::start(Kind::Plain)).collect();
    let client = Client::new(test_support::memcached::config_of(&servers));
    let keys: Vec<_> = (0..300).map(|n| format!("key{n}")).collect();
    let items: Vec<_> = keys.iter().map(|key| (key, Item::from(key))).collect();
    assert!(client.set_many(&items).await.iter().all(Result::is_ok));
    for (key, found) in keys.iter().zip(client.get_many(&keys).await) {
        assert_eq!(found.unwrap().unwrap().data, key.as_bytes());
    }
    let hits: Vec<_> = servers.iter().map(|server| server.stat("get_hits")).collect();
    assert_eq!(hits.iter().sum::<u64>(), 300);
    assert!(hits.iter().all(|hits| *hits > 30), "each server has some of the keys: {hits:?}");
    assert!(client.delete_many(&keys).await.iter().all(Result::is_ok));
    assert!(client.get_many(&keys).await.iter().all(|found| matches!(found, Ok(None))));
}

#[tokio::test]
async fn operations_are_counted() {
    let server = Memcached::start(Kind::Plain);
    let client = server.client(Protocol::Binary);
    client.set("k", "v").await.unwrap();
    client.get("k").await.unwrap();
    client.get_many(&["k", "none", "neither"]).await;
    let status = &client.status()[0];
    assert_eq!((status.hits, status.misses, status.sets), (2, 2, 1));
    assert_eq!((status.errors, status.timeouts, status.in_flight), (0, 0, 0));
    assert_eq!(status.address, server.address());
    assert_eq!(status.state, memcached_client::ServerState::Up);
}

#[test]
fn the_end_of_a_runtime_does_not_affect_another_runtime() {
    let server = Memcached::start(Kind::Plain);
    let client = server.client(Protocol::Binary);
    let (one, other) = (runtime(), runtime());
    one.block_on(client.set("k", "v")).unwrap();
    assert!(other.block_on(client.get("k")).unwrap().is_some());
    assert_eq!(server.stat("curr_connections"), 3, "one per runtime, and the connection of stat()");
    drop(one);
    assert!(other.block_on(client.get("k")).unwrap().is_some());
    assert!(runtime().block_on(client.get("k")).unwrap().is_some());
}

#[tokio::test]
async fn dropping_the_last_handle_closes_the_connection() {
    let server = Memcached::start(Kind::Plain);
    let client = server.client(Protocol::Binary);
    let handle = client.clone();
    client.set("k", "v").await.unwrap();
    drop(client);
    assert!(handle.get("k").await.unwrap().is_some());
    drop(handle);
    eventually("the connection is closed", async || server.stat("curr_connections") == 1).await;
}

#[test]
fn futures_can_be_sent_to_other_threads() {
    fn sendable<T: Send>(_: &T) {}
    let client = Client::new(memcached_client::Config::new(vec!["127.0.0.1:1".parse().unwrap()]));
    sendable(&client.get("k"));
    sendable(&client.get_many(&["k"]));
    sendable(&client.set("k", "v"));
    sendable(&client.set_many(&[("k", Item::from("v"))]));
    sendable(&client.delete_many(&["k"]));
    sendable(&client.stats());
}
