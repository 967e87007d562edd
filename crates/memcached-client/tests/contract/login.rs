//! Successful and refused log-ins.

use std::time::Duration;

use memcached_client::{Client, Error, Protocol, ServerState};
use test_support::{
    memcached::{Kind, Memcached, PASSWORD, USER, credentials},
    wait::eventually,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::peers::{Peer, SASL_AUTH, read, response};

#[tokio::test]
async fn a_refused_log_in_is_reported_without_the_password() {
    for (protocol, kind) in [(Protocol::Binary, Kind::Sasl), (Protocol::Text, Kind::AuthFile)] {
        let server = Memcached::start(kind);
        let mut config = server.config(protocol);
        config.credentials = Some(credentials("wrong-password"));
        let client = Client::new(config);
        let error = client.get("k").await.unwrap_err();
        assert!(error.is_outage(), "{error}");
        assert!(error.to_string().contains("log-in was refused"), "{error}");
        let status = client.status();
        assert!(
            matches!(&status[0].state, ServerState::Down { reason } if reason.contains("log-in"))
        );
        let printed = format!("{error} {error:?} {status:?} {client:?}");
        assert!(!printed.contains("wrong-password"), "{printed}");
        assert!(
            matches!(client.get("k").await, Err(Error::ServerDown(_))),
            "later operations fail at once"
        );
    }
}

#[tokio::test]
async fn a_server_that_quotes_the_log_in_does_not_reveal_the_password() {
    let peer = Peer::start(|mut stream| async move {
        let mut received = [0; 1024];
        let length = stream.read(&mut received).await.unwrap_or(0);
        let quoted = String::from_utf8_lossy(&received[..length]).replace("\r\n", " ");
        let _ = stream.write_all(format!("SERVER_ERROR what is {quoted}?\r\n").as_bytes()).await;
    })
    .await;
    let mut config = peer.config();
    config.protocol = Protocol::Text;
    config.credentials = Some(credentials("quoted-password"));
    let client = Client::new(config);
    let error = client.get("k").await.unwrap_err();
    assert!(error.to_string().contains("***"), "{error}");
    let printed = format!("{error} {error:?} {:?} {client:?}", client.status());
    assert!(!printed.contains("quoted-password"), "{printed}");
}

#[tokio::test]
async fn a_long_response_to_the_log_in_is_refused() {
    let peer = Peer::start(|mut stream| async move {
        let request = read(&mut stream).await.unwrap();
        let _ = stream.write_all(&response(&request, &[b'x'; 10_000])).await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mut config = peer.config();
    config.credentials = Some(credentials(PASSWORD));
    let error = Client::new(config).get("k").await.unwrap_err().to_string();
    assert!(error.contains("the limit is 4096"), "{error}");
}

#[tokio::test]
async fn a_server_that_requires_credentials_is_down_without_them() {
    for (protocol, kind) in [(Protocol::Binary, Kind::Sasl), (Protocol::Text, Kind::AuthFile)] {
        let server = Memcached::start(kind);
        let mut config = server.config(protocol);
        config.credentials = None;
        let error = Client::new(config).get("k").await.unwrap_err();
        assert!(error.to_string().contains("log-in was refused"), "{error}");
    }
}

#[tokio::test]
async fn a_server_without_log_in_does_not_store_the_password() {
    let server = Memcached::start(Kind::Plain);
    for protocol in [Protocol::Binary, Protocol::Text] {
        let mut config = server.config(protocol);
        config.credentials = Some(credentials(PASSWORD));
        let outcome = Client::new(config).get("k").await;
        if protocol == Protocol::Binary {
            let error = outcome.unwrap_err().to_string();
            assert!(error.contains("the server has no log-in by SASL"), "{error}");
        }
    }
    let plain = server.client(Protocol::Binary);
    assert_eq!(plain.get("login").await.unwrap(), None);
    assert_eq!(plain.get(USER).await.unwrap(), None);
}

#[tokio::test]
async fn a_refused_log_in_is_tried_again() {
    let tries = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = tries.clone();
    let peer = Peer::start(move |mut stream| {
        let tries = counted.clone();
        async move {
            let mut refuse = true;
            while let Some(request) = read(&mut stream).await {
                if request.opcode == SASL_AUTH {
                    refuse = tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 3;
                }
                let mut answer = response(&request, b"");
                if refuse {
                    answer[7] = 0x20;
                }
                if stream.write_all(&answer).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let mut config = peer.config();
    config.credentials = Some(credentials(PASSWORD));
    config.retry_timeout = Duration::from_millis(1);
    let client = Client::new(config);
    assert!(client.get("k").await.is_err());
    eventually("the log-in is accepted", async || client.get("k").await.is_ok()).await;
    assert!(tries.load(std::sync::atomic::Ordering::Relaxed) >= 4);
}

#[tokio::test]
async fn a_failing_server_is_not_sent_the_password_as_a_value() {
    let received = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = received.clone();
    let peer = Peer::start(move |mut stream| {
        let log = log.clone();
        async move {
            let mut buffer = [0; 1000];
            while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                log.lock().unwrap().extend_from_slice(&buffer[..length]);
                let _ = stream.write_all(b"SERVER_ERROR backend is down\r\n").await;
            }
        }
    })
    .await;
    let mut config = peer.config();
    config.protocol = Protocol::Text;
    config.credentials = Some(credentials(PASSWORD));
    assert!(Client::new(config).get("k").await.is_err());
    let received = String::from_utf8(received.lock().unwrap().clone()).unwrap();
    assert!(!received.contains(&format!("set {USER} 0 0")), "{received}");
}

/// MemCachier refuses memcached's log-in and accepts its own.
#[tokio::test]
async fn the_text_log_in_of_memcachier_is_supported() {
    let peer = Peer::start(|mut stream| async move {
        let expected = format!("set {USER} 0 0 {}\r\n{PASSWORD}\r\n", PASSWORD.len());
        let mut received = Vec::new();
        while received.iter().filter(|byte| **byte == b'\n').count() < 2 {
            if stream.read_buf(&mut received).await.unwrap_or(0) == 0 {
                return;
            }
        }
        if received != expected.as_bytes() {
            let _ = stream.write_all(b"CLIENT_ERROR authentication failure\r\n").await;
            return;
        }
        stream.write_all(b"STORED\r\n").await.unwrap();
        let mut commands = String::new();
        loop {
            let mut buffer = [0; 100];
            let length = stream.read(&mut buffer).await.unwrap_or(0);
            if length == 0 {
                return;
            }
            commands.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
            let answer: &[u8] = match commands.as_str() {
                "version\r\n" => b"VERSION 1\r\n",
                "get k\r\n" => b"VALUE k 0 5\r\nright\r\nEND\r\n",
                _ => continue,
            };
            commands.clear();
            stream.write_all(answer).await.unwrap();
        }
    })
    .await;
    let mut config = peer.config();
    config.protocol = Protocol::Text;
    config.credentials = Some(credentials(PASSWORD));
    assert_eq!(Client::new(config).get("k").await.unwrap().unwrap().data, "right");
}
