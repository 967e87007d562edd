//! Which protocol is spoken with which server, and what is special about the meta protocol.

use memcached_client::{Client, Error, Protocol};
use test_support::{
    memcached::{Kind, Memcached},
    wait::eventually,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::peers::Peer;

fn spoken(client: &Client) -> Option<Protocol> {
    client.status()[0].protocol
}

#[tokio::test]
async fn the_protocol_of_a_server_is_found_out() {
    for (kind, expected) in [
        (Kind::Plain, Protocol::Binary),
        (Kind::OnlyBinary, Protocol::Binary),
        (Kind::Sasl, Protocol::Binary),
        (Kind::Ascii, Protocol::Meta),
        (Kind::AuthFile, Protocol::Meta),
    ] {
        let server = Memcached::start(kind);
        let client = server.client(Protocol::Auto);
        assert_eq!(spoken(&client), None, "{kind:?}");
        client.set("k", "v").await.unwrap();
        assert_eq!(spoken(&client), Some(expected), "{kind:?}");
        assert_eq!(client.status()[0].outages, 0, "{kind:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_replaced_is_found_out_again() {
    let mut server = Memcached::start(Kind::Plain);
    let client = server.client(Protocol::Auto);
    for (kind, expected) in [
        (Kind::Ascii, Protocol::Meta),
        (Kind::OnlyBinary, Protocol::Binary),
        (Kind::Ascii, Protocol::Meta),
    ] {
        client.set("k", "v").await.unwrap();
        server.restart_as(kind);
        eventually("the server is used again", async || client.set("k", "v").await.is_ok()).await;
        assert_eq!(spoken(&client), Some(expected), "{kind:?}");
    }
}

/// Starts a server that knows only two commands of the text protocol.
async fn old_server() -> Peer {
    Peer::start(|mut stream| async move {
        let mut received = Vec::new();
        while stream.read_buf(&mut received).await.unwrap_or(0) > 0 {
            while let Some(end) = received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = received.drain(..=end).collect();
                let answer = match &line[..] {
                    b"version\r\n" => "VERSION 1.4.0\r\n",
                    b"get k\r\n" => "VALUE k 0 3\r\nold\r\nEND\r\n",
                    _ => "ERROR\r\n",
                };
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_server_of_the_text_protocol_is_found_out() {
    let peer = old_server().await;
    let mut config = peer.config();
    config.protocol = Protocol::Auto;
    let client = Client::new(config);
    assert_eq!(client.get("k").await.unwrap().unwrap().data, "old", "at the first request");
    assert_eq!(spoken(&client), Some(Protocol::Text));
    assert_eq!(client.status()[0].outages, 0);
    assert_eq!(client.are_on_one_server(&["k"]), Ok(false), "it may be a proxy");
}

#[tokio::test]
async fn a_server_without_the_meta_protocol_is_an_error_that_says_so() {
    let peer = old_server().await;
    let mut config = peer.config();
    config.protocol = Protocol::Meta;
    let error = Client::new(config).get("k").await.unwrap_err().to_string();
    assert!(error.contains("no meta protocol"), "{error}");
}

#[tokio::test]
async fn all_protocols_reach_the_same_entries() {
    let server = Memcached::start(Kind::Plain);
    let (binary, meta) = (server.client(Protocol::Binary), server.client(Protocol::Meta));
    for key in [&b"k"[..], "schlüssel/🔑".as_bytes(), b"\xff\xfe", &[0xff; 250]] {
        meta.set(key, "of meta").await.unwrap();
        assert_eq!(binary.get(key).await.unwrap().unwrap().data, "of meta", "{key:?}");
        binary.set(key, "of binary").await.unwrap();
        assert_eq!(meta.get(key).await.unwrap().unwrap().data, "of binary", "{key:?}");
        let found = meta.get_many(&[key, b"nothing"]).await;
        assert_eq!(found[0].as_ref().unwrap().as_ref().unwrap().data, "of binary", "{key:?}");
        assert_eq!(found[1], Ok(None));
    }
}

/// Starts a server of the meta protocol that answers each line but `mn` with `answer`, in which `{O}` stands
/// for the opaque of the line.
async fn meta_peer(answer: &'static str) -> (Peer, Client) {
    let peer = Peer::start(move |mut stream| async move {
        let mut received = Vec::new();
        while stream.read_buf(&mut received).await.unwrap_or(0) > 0 {
            while let Some(end) = received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = received.drain(..=end).collect();
                let line = String::from_utf8(line).unwrap();
                let opaque = line.split_whitespace().find(|token| token.starts_with('O'));
                let answer = match (line.trim_end(), opaque) {
                    ("mn", _) => "MN\r\n".to_owned(),
                    (_, Some(opaque)) => answer.replace("{O}", opaque),
                    _ => continue, // a value
                };
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let mut config = peer.config();
    config.protocol = Protocol::Meta;
    (peer, Client::new(config))
}

#[tokio::test]
async fn a_response_of_the_meta_protocol_that_does_not_fit_is_an_outage() {
    for answer in [
        "HTTP/1.1 400 Bad Request\r\n",
        "VA 1 f0 c1 O4000000000\r\nx\r\n", // another request's opaque
        "HD {O}\r\n",                      // a get has a value
        "NS {O}\r\n",
        "MN\r\n",
        "VA 10 {O}\r\nhalf",
        "VA 1 {O}\r\nlonger\r\n",
        "VA 99999999999 {O}\r\n",
        "VA -1 {O}\r\n",
        "VA 1 f99999999999 {O}\r\nx\r\n",
        "END\r\n",
        "VERSION 1\r\n",
        "\r\n",
    ] {
        let (_peer, client) = meta_peer(answer).await;
        let error = client.get("k").await.unwrap_err();
        assert!(error.is_outage(), "{answer:?}: {error}");
    }
}

#[tokio::test]
async fn an_error_of_the_meta_protocol_belongs_to_one_operation() {
    let (_peer, client) = meta_peer("SERVER_ERROR out of memory storing object\r\n").await;
    for _ in 0..2 {
        let error = client.set("k", "v").await.unwrap_err();
        assert!(
            matches!(&error, Error::Refused { reason, .. } if reason.contains("out of memory")),
            "{error}"
        );
    }
    let items = [("a", memcached_client::Item::from("v")), ("b", "v".into())];
    assert!(client.set_many(&items).await.iter().all(|stored| {
        stored.as_ref().is_err_and(|error| error.to_string().contains("out of memory"))
    }));
    assert_eq!(client.status()[0].outages, 0);
    // It cannot be told which of several gets has failed.
    let found = client.get_many(&["a", "b"]).await;
    assert!(found.iter().all(|found| found.as_ref().is_err_and(Error::is_outage)), "{found:?}");
}

#[tokio::test]
async fn a_miss_without_an_opaque_belongs_to_the_oldest_get() {
    let (_peer, client) = meta_peer("EN\r\n").await;
    assert_eq!(client.get("k").await, Ok(None));
    assert_eq!(client.get("k").await, Ok(None));
}

#[tokio::test]
async fn a_value_that_the_server_finds_too_large_is_refused() {
    let server = Memcached::start(Kind::Plain);
    for protocol in [Protocol::Binary, Protocol::Meta] {
        let mut config = server.config(protocol);
        config.max_item_bytes = 4 << 20;
        let client = Client::new(config);
        let large = vec![b'x'; 2 << 20];
        assert!(matches!(client.set("k", &large).await, Err(Error::TooLarge { .. })));
        let items = [("k", (&large).into()), ("small", "v".into())];
        let stored = client.set_many(&items).await;
        assert!(matches!(stored[0], Err(Error::TooLarge { .. })), "{protocol:?}: {stored:?}");
        assert_eq!(stored[1], Ok(()), "{protocol:?}");
        assert_eq!(client.status()[0].outages, 0, "{protocol:?}");
    }
}
