//! Peers that misbehave. Callers get an error in time, and later replies are right again.

use std::time::Duration;

use memcached_client::{Client, Error, Protocol};
use test_support::wait::eventually;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::peers::{Peer, Request, greet, read, response};

/// Starts a peer that serves the first request of its first connection with `bad`, and answers all
/// other requests correctly.
async fn misbehaves_once<F>(
    bad: impl Fn(TcpStream, Request) -> F + Send + Sync + Clone + 'static,
) -> Peer
where
    F: Future<Output = ()> + Send + 'static,
{
    let first = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    Peer::start(move |mut stream| {
        let (bad, first) = (bad.clone(), first.clone());
        async move {
            greet(&mut stream).await;
            while let Some(request) = read(&mut stream).await {
                if first.swap(false, std::sync::atomic::Ordering::Relaxed) {
                    return bad(stream, request).await;
                }
                if stream.write_all(&response(&request, b"right")).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

/// Starts a peer that sends `bytes` in reply to the first request.
async fn sends_once(bytes: impl Fn(&Request) -> Vec<u8> + Send + Sync + Clone + 'static) -> Peer {
    misbehaves_once(move |mut stream, request| {
        let bytes = bytes(&request);
        async move {
            stream.write_all(&bytes).await.unwrap();
            // Keep the connection open until the client closes it.
            let _ = stream.read(&mut [0; 1]).await;
        }
    })
    .await
}

/// Asserts that the first get fails, and that gets return the right value when the server is up again.
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
async fn half_a_frame_is_a_timeout() {
    let peer = sends_once(|request| response(request, b"right")[..20].to_vec()).await;
    assert!(matches!(assert_one_failure(peer).await, Error::Timeout { .. }));
}

#[tokio::test]
async fn a_wrong_opaque_closes_the_connection() {
    let peer = sends_once(|request| {
        response(&Request { opaque: [0xff; 4], ..*request }, b"of another request")
    })
    .await;
    assert!(assert_one_failure(peer).await.to_string().contains("matches no request"));
}

#[tokio::test]
async fn a_wrong_opcode_closes_the_connection() {
    let peer = sends_once(|request| response(&Request { opcode: 0x55, ..*request }, b"")).await;
    assert!(assert_one_failure(peer).await.to_string().contains("matches no request"));
}

#[tokio::test]
async fn a_wrong_magic_byte_closes_the_connection() {
    let peer = sends_once(|_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()).await;
    assert!(assert_one_failure(peer).await.to_string().contains("a response begins with 0x81"));
}

#[tokio::test]
async fn an_absurd_length_closes_the_connection() {
    let peer = sends_once(|request| {
        let mut frame = response(request, b"right");
        frame[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
        frame
    })
    .await;
    assert!(assert_one_failure(peer).await.to_string().contains("claims a body"));
}

#[tokio::test]
async fn a_value_longer_than_the_largest_item_is_an_outage() {
    let peer = sends_once(|request| response(request, &vec![b'x'; 2 << 20])).await;
    assert!(assert_one_failure(peer).await.to_string().contains("claims a body"));
    let (_peer, client) = text_peer(&["VALUE k 0 2097152\r\n"]).await;
    assert!(client.get("k").await.unwrap_err().is_outage());
}

#[tokio::test]
async fn an_endless_list_of_statistics_is_an_outage() {
    for (name, value) in [(&b"name"[..], &b"1"[..]), (b"name", &[b'x'; 5000])] {
        let peer = Peer::start(move |mut stream| async move {
            greet(&mut stream).await;
            let request = read(&mut stream).await.unwrap();
            let mut frame = response(&request, &[name, value].concat());
            frame[3] = u8::try_from(name.len()).unwrap();
            while stream.write_all(&frame).await.is_ok() {}
        })
        .await;
        let mut config = peer.config();
        config.timeout = Duration::from_secs(600);
        let (_, statistics) = Client::new(config).stats().await.remove(0);
        assert!(statistics.unwrap_err().to_string().contains("matches no request"));
    }
}

#[tokio::test]
async fn control_characters_of_a_server_are_escaped() {
    let (_peer, client) = text_peer(&["SERVER_ERROR \x1b[31mred\u{202e}\r\n"]).await;
    let error = client.get("k").await.unwrap_err().to_string();
    assert!(error.contains("SERVER_ERROR \\u{1b}[31mred\\u{202e}"), "{error}");

    let peer = sends_once(|request| response(request, b"1.6\x1b]0;title\x07")).await;
    let (_, version) = Client::new(peer.config()).version().await.remove(0);
    assert_eq!(version.unwrap(), "1.6\\u{1b}]0;title\\u{7}");
}

#[tokio::test]
async fn a_connection_closed_within_a_value_is_an_error() {
    let peer = misbehaves_once(|mut stream, request| async move {
        stream.write_all(&response(&request, &[b'x'; 1000])[..500]).await.unwrap();
    })
    .await;
    assert!(matches!(assert_one_failure(peer).await, Error::Connection { .. }));
}

#[tokio::test]
async fn a_peer_that_never_answers_is_a_timeout() {
    let peer = misbehaves_once(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 1]).await;
    })
    .await;
    assert!(matches!(assert_one_failure(peer).await, Error::Timeout { .. }));
}

#[tokio::test]
async fn a_second_response_never_answers_another_request() {
    let peer = misbehaves_once(|mut stream, request| async move {
        let twice = [response(&request, b"right"), response(&request, b"wrong")].concat();
        stream.write_all(&twice).await.unwrap();
        while let Some(request) = read(&mut stream).await {
            let _ = stream.write_all(&response(&request, b"right")).await;
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
async fn a_response_in_single_bytes_is_accepted() {
    let peer = misbehaves_once(|mut stream, request| async move {
        for byte in response(&request, b"right") {
            stream.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        while let Some(request) = read(&mut stream).await {
            stream.write_all(&response(&request, b"right")).await.unwrap();
        }
    })
    .await;
    let client = Client::new(peer.config());
    for _ in 0..3 {
        assert_eq!(client.get("k").await.unwrap().unwrap().data, "right");
    }
}

#[tokio::test]
async fn an_unexpected_response_fails_all_operations_in_flight_at_once() {
    let peer =
        sends_once(|request| response(&Request { opaque: [0xff; 4], ..*request }, b"")).await;
    let mut config = peer.config();
    config.timeout = Duration::from_secs(600);
    let client = Client::new(config);
    let all = futures_util::future::join_all((0..50).map(|_| client.get("k"))).await;
    assert!(all.iter().all(|answer| matches!(answer, Err(Error::Connection { .. }))), "{all:?}");
}

#[tokio::test]
async fn operations_beyond_the_limit_are_refused() {
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
    let timed_out = |answer: &&Result<_, _>| matches!(answer, Err(Error::Timeout { .. }));
    assert_eq!(all.iter().filter(timed_out).count(), 10);
}

/// Starts a text peer that answers the lines of each connection with `answers`, one by one.
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
async fn a_text_reply_that_memcached_does_not_send_is_an_outage() {
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
async fn a_text_add_without_the_reply_stored_is_an_error() {
    let (_peer, client) = text_peer(&["END\r\n"]).await;
    assert!(client.add("k", "v").await.is_err());
}

#[tokio::test]
async fn an_error_message_of_the_text_protocol_is_returned() {
    let (_peer, client) = text_peer(&["SERVER_ERROR out of memory\r\n"]).await;
    let error = client.get("k").await.unwrap_err();
    assert!(error.to_string().contains("SERVER_ERROR out of memory"), "{error}");
}

#[tokio::test]
async fn a_second_text_reply_never_answers_another_request() {
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
async fn a_set_with_the_status_of_a_condition_is_an_error() {
    for status in [1, 2, 5] {
        let peer = misbehaves_once(move |mut stream, request| async move {
            let mut frame = response(&request, b"");
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
async fn an_operation_behind_a_stuck_write_times_out() {
    let peer = Peer::start(|mut stream| async move {
        greet(&mut stream).await;
        // Answer as soon as the header has arrived, and read no more.
        let mut header = [0; 24];
        stream.read_exact(&mut header).await.unwrap();
        let request = Request { opcode: header[1], opaque: header[12..16].try_into().unwrap() };
        let mut frame = response(&request, b"");
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

/// The first connection hangs; later ones are served.
#[tokio::test]
async fn a_hung_attempt_to_connect_is_abandoned_when_the_server_is_up() {
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
                    while let Some(request) = read(&mut stream).await {
                        let _ = stream.write_all(&response(&request, b"right")).await;
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

/// Answers each `version` and `get k` after a pause of `after`.
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
async fn a_timeout_in_the_queue_is_not_an_outage() {
    let peer = Peer::start(|stream| answer_text(stream, Duration::from_millis(5))).await;
    let mut config = peer.config();
    config.protocol = Protocol::Text;
    // Too short for all operations, one after the other.
    config.timeout = Duration::from_secs(2);
    let client = Client::new(config);
    let all = futures_util::future::join_all((0..1000).map(|_| client.get("k"))).await;
    assert!(all.iter().any(Result::is_ok));
    assert!(all.iter().any(|answer| matches!(answer, Err(Error::Timeout { .. }))));
    assert_eq!(client.status()[0].outages, 0, "{:?}", client.status());
}

/// memcache-async asks for no reply to `set`, so the transport sends `version` after it.
#[tokio::test]
async fn a_text_set_is_followed_by_a_round_trip() {
    let (sender, mut received_bytes) = tokio::sync::mpsc::unbounded_channel();
    let peer = Peer::start(move |mut stream| {
        let sender = sender.clone();
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
                    sender.send(String::from_utf8(received.clone()).unwrap()).unwrap();
                }
            }
        }
    })
    .await;
    let mut config = peer.config();
    config.protocol = Protocol::Text;
    Client::new(config).set("k", "value").await.unwrap();
    let greeting = received_bytes.recv().await.unwrap();
    let written = received_bytes.recv().await.unwrap();
    assert_eq!(written[greeting.len()..], *"set k 0 0 5 noreply\r\nvalue\r\nversion\r\n");
}
