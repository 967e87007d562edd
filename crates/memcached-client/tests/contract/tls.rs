//! TLS: which servers are trusted, and what the errors say.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use memcached_client::{Client, ClientCertificate, Config, Protocol, ServerAddress, ServerState};
use test_support::{
    memcached::{Certificate, Kind, Memcached, TLS_NAME},
    wait::eventually,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
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

/// Counts what passes between clients and a server with TLS.
#[derive(Clone, Default)]
struct Relay(Arc<Tally>);

#[derive(Default)]
struct Tally {
    /// Handshakes, and those among them that resume a session.
    handshakes: AtomicUsize,
    resumed: AtomicUsize,
    /// Records with application data that clients have sent.
    records: AtomicUsize,
    /// Closes all connections.
    cut: Notify,
}

/// The types of records (RFC 8446, section 5.1), of messages (section 4) and of extensions (section 4.2).
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const SERVER_HELLO: u8 = 2;
const PRE_SHARED_KEY: [u8; 2] = [0, 41];

/// Reads one record, with its header.
async fn record(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut record = vec![0; 5];
    stream.read_exact(&mut record).await.ok()?;
    record.resize(5 + usize::from(u16::from_be_bytes([record[3], record[4]])), 0);
    stream.read_exact(&mut record[5..]).await.ok()?;
    Some(record)
}

/// Returns whether a server accepts the session that the client has proposed (RFC 8446, section 4.1.3).
fn resumes(server_hello: &[u8]) -> bool {
    // The headers of record and message, version and random, the echoed session with its length, cipher suite
    // and compression, the length of the extensions.
    let session = 5 + 4 + 2 + 32;
    let mut extensions = &server_hello[session + 1 + usize::from(server_hello[session]) + 3 + 2..];
    while let [a, b, c, d, rest @ ..] = extensions {
        if [*a, *b] == PRE_SHARED_KEY {
            return true;
        }
        extensions = &rest[usize::from(u16::from_be_bytes([*c, *d]))..];
    }
    false
}

impl Relay {
    /// Starts to relay to the server of `config`, and makes that use the relay.
    async fn start(config: &mut Config) -> Self {
        let ServerAddress::Tls { host, port } = config.servers[0].clone() else { panic!("no TLS") };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        config.servers = vec![format!("tls://{address}").parse().unwrap()];
        let relay = Self::default();
        let started = relay.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect((host.as_str(), port)).await.unwrap();
                tokio::spawn(relay.clone().serve(client, server));
            }
        });
        started
    }

    async fn serve(self, client: TcpStream, server: TcpStream) {
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
            (client.into_split(), server.into_split());
        let requests = async {
            while let Some(record) = record(&mut from_client).await {
                if record[0] == APPLICATION_DATA {
                    self.0.records.fetch_add(1, Ordering::SeqCst);
                }
                to_server.write_all(&record).await.unwrap();
            }
        };
        let responses = async {
            while let Some(record) = record(&mut from_server).await {
                if record[0] == HANDSHAKE && record[5] == SERVER_HELLO {
                    self.0.handshakes.fetch_add(1, Ordering::SeqCst);
                    self.0.resumed.fetch_add(usize::from(resumes(&record)), Ordering::SeqCst);
                }
                to_client.write_all(&record).await.unwrap();
            }
        };
        // Both ends are closed as soon as one of them is.
        tokio::select! {
            () = requests => {},
            () = responses => {},
            () = self.0.cut.notified() => {},
        }
    }

    fn handshakes(&self) -> [usize; 2] {
        [self.0.handshakes.load(Ordering::SeqCst), self.0.resumed.load(Ordering::SeqCst)]
    }
}

#[tokio::test]
async fn a_session_is_resumed_by_the_next_connection() {
    let server = Memcached::start(Kind::Tls);
    let mut config = server.config(Protocol::Binary);
    let relay = Relay::start(&mut config).await;
    let client = Client::new(config);
    client.set("k", "v").await.unwrap();
    assert_eq!(relay.handshakes(), [1, 0]);
    relay.0.cut.notify_waiters();
    eventually("the connection is replaced", async || client.set("k", "v").await.is_ok()).await;
    let [handshakes, resumed] = relay.handshakes();
    assert_eq!(resumed, handshakes - 1);
    assert_ne!(resumed, 0);
}

#[tokio::test]
async fn a_batch_is_one_record() {
    let server = Memcached::start(Kind::Tls);
    for protocol in [Protocol::Binary, Protocol::Meta] {
        let mut config = server.config(protocol);
        let relay = Relay::start(&mut config).await;
        let client = Client::new(config);
        client.set("k", "v").await.unwrap();
        let before = relay.0.records.load(Ordering::SeqCst);
        let keys: Vec<_> = (0..100).map(|n| format!("k{n}")).collect();
        client.get_many(&keys).await;
        client.delete_many(&keys).await;
        assert_eq!(relay.0.records.load(Ordering::SeqCst) - before, 2, "{protocol:?}");
    }
}
