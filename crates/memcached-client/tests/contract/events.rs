//! What an observer is told.

use std::sync::{Arc, Mutex};

use memcached_client::{Client, Event, Item, Observer, Protocol};
use test_support::{
    memcached::{Kind, Memcached},
    wait::eventually,
};

/// A client, and the events that it has reported, without their durations.
fn observed(server: &Memcached, protocol: Protocol) -> (Client, Arc<Mutex<Vec<String>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let (reported, mut config) = (Arc::clone(&events), server.config(protocol));
    config.observer = Some(Observer::new(move |event| {
        let text = match event {
            Event::Operation { server, command, bytes, outcome, .. } => {
                assert!(server.to_string().starts_with("127."));
                format!("{command:?}, {bytes} bytes: {outcome:?}")
            }
            Event::Down { reason, .. } => format!("down: {}", !reason.is_empty()),
            Event::Up { .. } => "up".to_owned(),
            other => panic!("{other:?}"),
        };
        reported.lock().unwrap().push(text);
    }));
    (Client::new(config), events)
}

#[tokio::test]
async fn each_operation_is_one_event() {
    let server = Memcached::start(Kind::Plain);
    for protocol in [Protocol::Binary, Protocol::Meta] {
        let (client, events) = observed(&server, protocol);
        client.flush().await;
        client.set("a", "1234").await.unwrap();
        client.get("a").await.unwrap();
        client.get("b").await.unwrap();
        client.get_many(&["a", "b", "a"]).await;
        client.set_many(&[("c", Item::from("12")), ("d", "345".into())]).await;
        client.add("a", "other").await.unwrap();
        client.increment("a", 1).await.unwrap();
        client.delete_many(&["a", "b"]).await;
        client.delete("a").await.unwrap();
        client.get("not valid").await.unwrap_err();
        let expected = [
            "Flush, 0 bytes: Done { hits: 0, keys: 0 }",
            "Set, 4 bytes: Done { hits: 0, keys: 0 }",
            "Get, 4 bytes: Done { hits: 1, keys: 1 }",
            "Get, 0 bytes: Done { hits: 0, keys: 1 }",
            "GetMany, 8 bytes: Done { hits: 2, keys: 3 }",
            "SetMany, 5 bytes: Done { hits: 0, keys: 0 }",
            "Add, 5 bytes: NotDone",
            "Increment, 0 bytes: Done { hits: 0, keys: 0 }",
            "DeleteMany, 0 bytes: Done { hits: 0, keys: 0 }",
            "Delete, 0 bytes: NotDone",
        ];
        assert_eq!(*events.lock().unwrap(), expected, "{protocol:?}");
    }
}

#[tokio::test]
async fn an_outage_and_its_end_are_events() {
    let mut server = Memcached::start(Kind::Plain);
    let (client, events) = observed(&server, Protocol::Binary);
    client.set("k", "v").await.unwrap();
    server.kill();
    client.get("k").await.unwrap_err();
    assert!(server.run());
    eventually("the server is used again", async || client.noop().await[0].1.is_ok()).await;
    let events = events.lock().unwrap();
    let changes: Vec<_> =
        events.iter().filter(|text| text.starts_with("down") || *text == "up").collect();
    assert_eq!(changes, ["down: true", "up"], "{events:?}");
    let failed = events.iter().filter(|text| text.contains("Failed(Connection")).count();
    assert!(failed <= 1, "operations that were not sent have no event: {events:?}");
}
