//! TLS: which servers are trusted, and what the errors say.

use std::time::Duration;

use memcached_client::{Client, ClientCertificate, Config, Protocol, ServerAddress, ServerState};
use test_support::{
    memcached::{Certificate, Kind, Memcached, TLS_NAME},
    wait::eventually,
};

/// The error of the first operation, and the reason in the status.
async fn refused(config: Config) -> String {
    let client = Client::new(config);
    let error = client.get("k").await.unwrap_err();
    assert!(error.is_outage(), "{error}");
    match &client.status()[0].state {
        ServerState::Down { reason } => assert!(error.to_string().contains(reason), "{reason}"),
        ServerState::Up => panic!("the server is used: {error}"),
    }
    error.to_string()
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_is_refused_with_the_reason() {
    let mut server = Memcached::start(Kind::Tls);
    for (certificate, reason) in [
        (Certificate::expired(), "has expired"),
        (Certificate::of("another.test"), "is not for “memcached.test”"),
    ] {
        server.use_certificate(&certificate);
        server.restart();
        let error = refused(server.config(Protocol::Binary)).await;
        assert!(error.contains(reason), "{error}");
    }
    let mut foreign = server.config(Protocol::Binary);
    foreign.tls.ca_file = None;
    let error = refused(foreign).await;
    assert!(error.contains("authority"), "{error}");
}

#[tokio::test]
async fn without_a_server_name_the_certificate_must_be_for_the_host() {
    let server = Memcached::start(Kind::Tls);
    let mut config = server.config(Protocol::Binary);
    config.tls.server_name = None;
    let error = refused(config).await;
    assert!(error.contains("is not for “127."), "{error}");
}

#[tokio::test]
async fn files_that_cannot_be_read_are_named() {
    let server = Memcached::start(Kind::Tls);
    let mut config = server.config(Protocol::Binary);
    config.tls.ca_file = Some("/nowhere/ca.pem".into());
    let error = refused(config).await;
    assert!(error.contains("the CA file /nowhere/ca.pem cannot be read"), "{error}");
    let mut config = server.config(Protocol::Binary);
    let [_, key] = server.client_certificate();
    config.tls.ca_file = Some(key);
    let error = refused(config).await;
    assert!(error.contains("has no certificate"), "{error}");
}

#[tokio::test]
async fn a_server_without_tls_is_recognised() {
    let server = Memcached::start(Kind::Plain);
    let ServerAddress::Tcp { host, port } = server.address() else { panic!("not TCP") };
    let mut config = Config::new(vec![ServerAddress::Tls { host, port }]);
    config.tls.server_name = Some(TLS_NAME.to_owned());
    config.connect_timeout = Duration::from_secs(2);
    config.timeout = Duration::from_secs(5);
    let error = refused(config).await;
    assert!(error.contains("TLS"), "{error}");
}

#[tokio::test]
async fn a_server_that_requires_the_certificate_of_a_client_gets_it() {
    let server = Memcached::start(Kind::TlsForClients);
    let mut config = server.config(Protocol::Binary);
    let [certificates, key] = server.client_certificate();
    config.tls.client_certificate = Some(ClientCertificate { certificates, key });
    let client = Client::new(config);
    client.set("k", "v").await.unwrap();
    refused(server.config(Protocol::Binary)).await;
}

#[tokio::test]
async fn a_certificate_that_is_renewed_is_used_after_the_restart() {
    let mut server = Memcached::start(Kind::Tls);
    let client = server.client(Protocol::Binary);
    client.set("k", "v").await.unwrap();
    server.restart();
    eventually("the server is used again", async || client.set("k", "v").await.is_ok()).await;
}

#[tokio::test]
async fn large_batches_pass_through_tls() {
    let server = Memcached::start(Kind::Tls);
    let client = server.client(Protocol::Meta);
    let value = "x".repeat(100_000);
    let keys: Vec<_> = (0..100).map(|n| format!("k{n}")).collect();
    let items: Vec<_> = keys.iter().map(|key| (key, (&value).into())).collect();
    assert!(client.set_many(&items).await.iter().all(Result::is_ok));
    for found in client.get_many(&keys).await {
        assert_eq!(found.unwrap().unwrap().data.len(), value.len());
    }
}
