//! Peers that misbehave: whatever they send, callers get an error in time, and what comes after is
//! right again.

use std::time::Duration;

use memcached_client::{Client, Error, Protocol};
use test_support::wait::eventually;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::peers::{Asked, Peer, greet, read, response};

/// A peer that greets, and answers the first request of its first connection with what `bad`
/// makes of it; all others properly.
async fn once_bad<F>(bad: impl Fn(TcpStream, Asked) -> F + Send + Sync + Clone + 'static) -> Peer
where
    F: Future<Output = ()> + Send + 'static,
{
    let first = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    Peer::start(move |mut stream| {
        let (bad, first) = (bad.clone(), first.clone());
        async move {
            greet(&mut stream).await;
            while let Some(asked) = read(&mut stream).await {
                if first.swap(false, std::sync::atomic::Ordering::Relaxed) {
                    return bad(stream, asked).await;
                }
                if stream.write_all(&response(&asked, b"right")).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

async fn sends(bytes: impl Fn(&Asked) -> Vec<u8> + Send + Sync + Clone + 'static) -> Peer {
    once_bad(move |mut stream, asked| {
        let bytes = bytes(&asked);
        async move {
            stream.write_all(&bytes).await.unwrap();
            // Until the client has had enough.
            let _ = stream.read(&mut [0; 1]).await;
        }
    })
    .await
}

/// The first get fails, and when the server has been found well again the next is right.
async fn assert_one_failure(peer: Peer) -> Error {
    let client = Client::new(peer.config());
    let error = client.get("k").await.unwrap_err();
    assert!(error.is_outage(), "{error}");
    eventually("the server is used again", async || {
        client.get("k").await.is_ok_and(|value| value.unwrap().data == "right")
    })
    .await;
    error
}

#[tokio::test]
async fn half_a_frame_and_then_silence() {
    let peer = sends(|asked| response(asked, b"right")[..20].to_vec()).await;
    assert!(matches!(assert_one_failure(peer).await, Error::Timeout { .. }));
}

#[tokio::test]
async fn a_wrong_opaque() {
    let peer =
        sends(|asked| response(&Asked { opaque: [0xff; 4], ..*asked }, b"someone else's")).await;
    assert!(assert_one_failure(peer).await.to_string().contains("matches no request"));
}

#[tokio::test]
async fn a_wrong_opcode() {
    let peer = sends(|asked| response(&Asked { opcode: 0x55, ..*asked }, b"")).await;
    assert!(assert_one_failure(peer).await.to_string().contains("matches no request"));
}

#[tokio::test]
async fn a_wrong_magic() {
    let peer = sends(|_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()).await;
    assert!(assert_one_failure(peer).await.to_string().contains("is not a response's"));
}

#[tokio::test]
async fn an_absurd_length() {
    let peer = sends(|asked| {
        let mut frame = response(asked, b"right");
        frame[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
        frame
    })
    .await;
    assert!(assert_one_failure(peer).await.to_string().contains("claims a body"));
}

#[tokio::test]
async fn it_closes_in_the_middle_of_a_value() {
    let peer = once_bad(|mut stream, asked| async move {
        stream.write_all(&response(&asked, &[b'x'; 1000])[..500]).await.unwrap();
    })
    .await;
    assert!(matches!(assert_one_failure(peer).await, Error::Connection { .. }));
}

#[tokio::test]
async fn it_never_answers() {
    let peer = once_bad(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 1]).await;
    })
    .await;
    assert!(matches!(assert_one_failure(peer).await, Error::Timeout { .. }));
}

#[tokio::test]
async fn it_answers_twice() {
    let peer = once_bad(|mut stream, asked| async move {
        let twice = [response(&asked, b"right"), response(&asked, b"wrong")].concat();
        stream.write_all(&twice).await.unwrap();
        while let Some(asked) = read(&mut stream).await {
            let _ = stream.write_all(&response(&asked, b"right")).await;
        }
    })
    .await;
    let client = Client::new(peer.config());
    for _ in 0..100 {
        match client.get("k").await {
            Ok(value) => assert_eq!(value.unwrap().data, "right"),
            Err(error) => assert!(error.is_outage(), "{error}"),
        }
    }
    eventually("the server is used again", async || client.get("k").await.is_ok()).await;
}

#[tokio::test]
async fn it_answers_slowly_byte_by_byte_but_in_time() {
    let peer = once_bad(|mut stream, asked| async move {
        for byte in response(&asked, b"right") {
            stream.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        while let Some(asked) = read(&mut stream).await {
            stream.write_all(&response(&asked, b"right")).await.unwrap();
        }
    })
    .await;
    let client = Client::new(peer.config());
    for _ in 0..3 {
        assert_eq!(client.get("k").await.unwrap().unwrap().data, "right");
    }
}

#[tokio::test]
async fn one_surprise_fails_all_who_wait_on_the_connection_and_at_once() {
    let peer = sends(|asked| response(&Asked { opaque: [0xff; 4], ..*asked }, b"")).await;
    let mut config = peer.config();
    config.timeout = Duration::from_secs(600);
    let client = Client::new(config);
    let all = futures_util::future::join_all((0..50).map(|_| client.get("k"))).await;
    assert!(all.iter().all(|answer| matches!(answer, Err(Error::Connection { .. }))), "{all:?}");
}

#[tokio::test]
async fn no_more_wait_than_the_limit_allows() {
    let peer = Peer::start(|mut stream| async move {
        greet(&mut stream).await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mut config = peer.config();
    config.max_in_flight = 10;
    let client = Client::new(config);
    let all = futures_util::future::join_all((0..15).map(|_| client.get("k"))).await;
    let refused =
        |answer: &&Result<_, _>| matches!(answer, Err(Error::Overloaded { limit: 10, .. }));
    assert_eq!(all.iter().filter(refused).count(), 5);
    let late = |answer: &&Result<_, _>| matches!(answer, Err(Error::Timeout { .. }));
    assert_eq!(all.iter().filter(late).count(), 10);
}

/// A peer of the text protocol that answers each line of a connection in turn.
async fn text_peer(answers: &'static [&'static str]) -> (Peer, Client) {
    let peer = Peer::start(move |mut stream| async move {
        let mut received = Vec::new();
        for answer in ["VERSION 1.6.18\r\n"].iter().chain(answers) {
            while !received.ends_with(b"\r\n") {
                if stream.read_buf(&mut received).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            received.clear();
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        let _ = stream.read(&mut [0; 1]).await;
    })
    .await;
    let mut config = peer.config();
    config.protocol = Protocol::Text;
    (peer, Client::new(config))
}

#[tokio::test]
async fn text_that_no_memcached_sends_is_an_outage() {
    for answer in [
        "HTTP/1.1 400 Bad Request\r\n",
        "VALUE k 0 99999999999999999\r\n",
        "VALUE k 0 18446744073709551615\r\n",
        "VALUE\r\nEND\r\n",
        "\r\n",
        "VALUE k 0 10\r\nhalf",
    ] {
        let (_peer, client) = text_peer(vec![answer].leak()).await;
        let error = client.get("k").await.unwrap_err();
        assert!(error.is_outage(), "{answer:?}: {error}");
    }
}

#[tokio::test]
async fn an_add_that_is_answered_by_anything_but_stored_has_not_been_done() {
    let (_peer, client) = text_peer(&["END\r\n"]).await;
    assert!(client.add("k", "v").await.is_err());
}

#[tokio::test]
async fn an_error_of_the_text_protocol_reaches_the_caller() {
    let (_peer, client) = text_peer(&["SERVER_ERROR out of memory\r\n"]).await;
    let error = client.get("k").await.unwrap_err();
    assert!(error.to_string().contains("SERVER_ERROR out of memory"), "{error}");
}

#[tokio::test]
async fn text_that_is_answered_twice_never_gives_one_key_the_value_of_another() {
    let (_peer, client) = text_peer(&[
        "VALUE k 0 5\r\nfirst\r\nEND\r\nVALUE k 0 5\r\nfirst\r\nEND\r\n",
        "VALUE other 0 6\r\nsecond\r\nEND\r\n",
    ])
    .await;
    let _ = client.get("k").await;
    if let Ok(Some(value)) = client.get("other").await {
        assert_eq!(value.data, "second");
    }
    let (_peer, client) = text_peer(&["VALUE another 0 5\r\nwrong\r\nEND\r\n"]).await;
    assert!(client.get("k").await.unwrap_err().is_outage());
}

#[tokio::test]
async fn a_set_that_is_answered_by_a_condition_is_an_error() {
    for status in [1, 2, 5] {
        let peer = once_bad(move |mut stream, asked| async move {
            let mut frame = response(&asked, b"");
            frame[7] = status;
            stream.write_all(&frame).await.unwrap();
            let _ = stream.read(&mut [0; 1]).await;
        })
        .await;
        let outcome = Client::new(peer.config()).set("k", "v").await;
        assert!(matches!(outcome, Err(Error::Refused { .. })), "{status}: {outcome:?}");
    }
}

#[tokio::test]
async fn what_is_asked_while_a_write_is_stuck_still_ends_in_time() {
    let peer = Peer::start(|mut stream| async move {
        greet(&mut stream).await;
        // Answers as soon as it has the header, and reads no more.
        let mut header = [0; 24];
        stream.read_exact(&mut header).await.unwrap();
        let asked = Asked { opcode: header[1], opaque: header[12..16].try_into().unwrap() };
        let mut frame = response(&asked, b"");
        frame[7] = 3;
        stream.write_all(&frame).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let mut config = peer.config();
    config.max_item_bytes = 1 << 30;
    config.timeout = Duration::from_secs(3);
    let client = Client::new(config);
    let large = vec![b'x'; 60_000_000];
    assert!(matches!(client.set("large", &large).await, Err(Error::TooLarge { .. })));
    let next = tokio::time::timeout(test_support::wait::PATIENCE, client.get("k")).await;
    assert!(matches!(next, Ok(Err(Error::Timeout { .. }))), "{next:?}");
}

/// The first connection leads nowhere; all later ones are fine.
#[tokio::test]
async fn an_attempt_to_connect_that_hangs_holds_up_nobody_once_the_server_is_known_to_be_well() {
    for protocol in [Protocol::Binary, Protocol::Text] {
        let is_first = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        let peer = Peer::start(move |mut stream| {
            let is_first = is_first.swap(false, std::sync::atomic::Ordering::Relaxed);
            async move {
                if is_first {
                    return std::future::pending().await;
                }
                if protocol == Protocol::Binary {
                    greet(&mut stream).await;
                    while let Some(asked) = read(&mut stream).await {
                        let _ = stream.write_all(&response(&asked, b"right")).await;
                    }
                    return;
                }
                answer_text(stream, Duration::ZERO).await;
            }
        })
        .await;
        let mut config = peer.config();
        config.protocol = protocol;
        config.connect_timeout = Duration::from_secs(600);
        let client = Client::new(config);
        assert!(matches!(client.get("k").await, Err(Error::Timeout { .. })));
        eventually("the server is used again", async || client.get("k").await.is_ok()).await;
        assert!(client.status()[0].outages <= 2, "{protocol:?}: {:?}", client.status());
    }
}

/// Answers `get k`, each after so long.
async fn answer_text(mut stream: TcpStream, after: Duration) {
    let mut line = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        line.push(byte);
        let answer: &[u8] = match &line[..] {
            b"version\r\n" => b"VERSION 1\r\n",
            b"get k\r\n" => b"VALUE k 0 5\r\nright\r\nEND\r\n",
            _ => continue,
        };
        line.clear();
        tokio::time::sleep(after).await;
        let _ = stream.write_all(answer).await;
    }
}

#[tokio::test]
async fn those_who_have_waited_for_others_take_nobody_for_dead() {
    let peer = Peer::start(|stream| answer_text(stream, Duration::from_millis(5))).await;
    let mut config = peer.config();
    config.protocol = Protocol::Text;
    // Not long enough for all of them, one after the other.
    config.timeout = Duration::from_secs(2);
    let client = Client::new(config);
    let all = futures_util::future::join_all((0..1000).map(|_| client.get("k"))).await;
    assert!(all.iter().any(Result::is_ok));
    assert!(all.iter().any(|answer| matches!(answer, Err(Error::Timeout { .. }))));
    assert_eq!(client.status()[0].outages, 0, "{:?}", client.status());
}

/// What a `set` looks like when memcache-async writes it: it asks for no answer, and our round trip
/// follows.
#[tokio::test]
async fn the_text_transport_goes_through_memcache_async() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let peer = Peer::start(move |mut stream| {
        let tell = tell.clone();
        async move {
            let mut received = Vec::new();
            loop {
                let before = received.len();
                if stream.read_buf(&mut received).await.unwrap_or(0) == 0 {
                    return;
                }
                let versions = |bytes: &[u8]| {
                    bytes.windows(9).filter(|window| window == b"version\r\n").count()
                };
                for _ in versions(&received[..before])..versions(&received) {
                    stream.write_all(b"VERSION 1.6.18\r\n").await.unwrap();
                    tell.send(String::from_utf8(received.clone()).unwrap()).unwrap();
                }
            }
        }
    })
    .await;
    let mut config = peer.config();
    config.protocol = Protocol::Text;
    Client::new(config).set("k", "value").await.unwrap();
    let greeting = told.recv().await.unwrap();
    let written = told.recv().await.unwrap();
    assert_eq!(written[greeting.len()..], *"set k 0 0 5 noreply\r\nvalue\r\nversion\r\n");
}
