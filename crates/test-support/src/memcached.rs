//! Real memcached servers, each on its own address or socket.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpStream},
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use memcached_client::{Client, Config, Credentials, Protocol, ServerAddress};
use tempfile::TempDir;

use crate::wait::{PATIENCE, wait_until};

/// The user that servers with a log-in know.
pub const USER: &str = "tester";
/// The name in the certificates of servers with TLS.
pub const TLS_NAME: &str = "memcached.test";
/// The password of [`USER`].
pub const PASSWORD: &str = "correct-horse";

/// The transport and log-in of a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// TCP without log-in.
    Plain,
    /// A unix socket without log-in.
    UnixSocket,
    /// `-S`: log-in by SASL, binary protocol only.
    Sasl,
    /// `-C`: no CAS tokens.
    WithoutCas,
    /// `-Y`: log-in by the text protocol.
    AuthFile,
    /// `-Z`: TLS, with a certificate for [`TLS_NAME`].
    Tls,
    /// TLS, and log-in by SASL.
    TlsSasl,
    /// TLS, and log-in by the text protocol.
    TlsAuthFile,
    /// TLS, and the certificate of a client is required.
    TlsForClients,
    /// `-B ascii`: no binary protocol.
    Ascii,
    /// `-B binary`: only the binary protocol.
    OnlyBinary,
}

impl Kind {
    fn has_log_in(self) -> bool {
        matches!(self, Self::Sasl | Self::TlsSasl | Self::AuthFile | Self::TlsAuthFile)
    }

    fn has_tls(self) -> bool {
        matches!(self, Self::Tls | Self::TlsSasl | Self::TlsAuthFile | Self::TlsForClients)
    }
}

/// A memcached process. It is killed when the value is dropped.
pub struct Memcached {
    kind: Kind,
    child: Option<Child>,
    /// A loopback address that no other test uses, so that the port is always free.
    host: Ipv4Addr,
    port: u16,
    folder: TempDir,
}

impl Memcached {
    /// Starts a server.
    pub fn start(kind: Kind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Self { kind, child: None, host: own_address(), port: PORT, folder };
        if matches!(kind, Kind::Sasl | Kind::TlsSasl) {
            server.write_sasl_files();
        }
        if kind.has_tls() {
            server.use_certificate(&Certificate::valid());
        }
        fs::write(server.path("users"), format!("{USER}:{PASSWORD}\n")).unwrap();
        assert!(server.run(), "memcached did not start");
        server
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The file of the authority that has signed the certificates of this server and its clients.
    pub fn ca_file(&self) -> std::path::PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The files of a certificate for a client, and of its key.
    pub fn client_certificate(&self) -> [std::path::PathBuf; 2] {
        ["server.pem", "server.key"].map(|name| self.folder.path().join(name))
    }

    /// Uses another certificate from the next start on.
    pub fn use_certificate(&self, certificate: &Certificate) {
        fs::write(self.path("ca.pem"), &certificate.ca).unwrap();
        fs::write(self.path("server.pem"), &certificate.chain).unwrap();
        fs::write(self.path("server.key"), &certificate.key).unwrap();
    }

    fn write_sasl_files(&self) {
        let database = self.path("sasldb2");
        let config = format!(
            "mech_list: plain\npwcheck_method: auxprop\nauxprop_plugin: sasldb\n\
             sasldb_path: {database}\n"
        );
        fs::write(self.path("memcached.conf"), config).unwrap();
        let host = Command::new("hostname").output().unwrap().stdout;
        let host = String::from_utf8(host).unwrap();
        let mut saslpasswd2 = Command::new("saslpasswd2")
            .args(["-p", "-c", "-f", &database, "-a", "memcached", "-u", host.trim(), USER])
            .stdin(Stdio::piped())
            .spawn()
            .expect("cannot run saslpasswd2; bin/setup installs it");
        saslpasswd2.stdin.take().unwrap().write_all(PASSWORD.as_bytes()).unwrap();
        assert!(saslpasswd2.wait().unwrap().success());
    }

    /// Starts the process on the address of this server. Returns `false` if it does not accept
    /// connections.
    pub fn run(&mut self) -> bool {
        let host = self.host.to_string();
        let (port, socket, users) = (self.port.to_string(), self.path("s"), self.path("users"));
        let mut command = Command::new("memcached");
        let tls = format!(
            "ssl_chain_cert={},ssl_key={},ssl_ca_cert={}",
            self.path("server.pem"),
            self.path("server.key"),
            self.path("ca.pem")
        );
        let for_clients = format!("{tls},ssl_verify_mode=2");
        command.args(["-u", "root", "-U", "0", "-t", "1", "-m", "64"]);
        command.args(match self.kind {
            Kind::UnixSocket => vec!["-s", &socket],
            Kind::Plain => vec!["-l", &host, "-p", &port],
            Kind::WithoutCas => vec!["-l", &host, "-p", &port, "-C"],
            Kind::Sasl => vec!["-l", &host, "-p", &port, "-S"],
            Kind::Tls => vec!["-l", &host, "-p", &port, "-Z", "-o", &tls],
            Kind::TlsSasl => vec!["-l", &host, "-p", &port, "-S", "-Z", "-o", &tls],
            Kind::TlsForClients => vec!["-l", &host, "-p", &port, "-Z", "-o", &for_clients],
            Kind::Ascii => vec!["-l", &host, "-p", &port, "-B", "ascii"],
            Kind::OnlyBinary => vec!["-l", &host, "-p", &port, "-B", "binary"],
            Kind::TlsAuthFile => vec!["-l", &host, "-p", &port, "-Y", &users, "-Z", "-o", &tls],
            Kind::AuthFile => vec!["-l", &host, "-p", &port, "-Y", &users],
        });
        command.env("SASL_CONF_PATH", self.folder.path());
        let child = command
            .stderr(Stdio::null())
            .spawn()
            .expect("cannot run memcached; bin/setup installs it");
        self.child = Some(child);
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if self.child.as_mut().unwrap().try_wait().unwrap().is_some() {
                return false;
            }
            let reachable = match self.kind {
                Kind::UnixSocket => UnixStream::connect(&socket).is_ok(),
                _ => TcpStream::connect((self.host, self.port)).is_ok(),
            };
            if reachable {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// Returns the address or socket of the server.
    pub fn address(&self) -> ServerAddress {
        match self.kind {
            Kind::UnixSocket => self.path("s").parse().unwrap(),
            kind if kind.has_tls() => format!("tls://{}:{}", self.host, self.port).parse().unwrap(),
            _ => format!("{}:{}", self.host, self.port).parse().unwrap(),
        }
    }

    /// Returns the settings of a client, with credentials if the server has a log-in.
    pub fn config(&self, protocol: Protocol) -> Config {
        let mut config = config_of(std::slice::from_ref(self));
        config.protocol = protocol;
        config.tls.ca_file = Some(self.ca_file());
        config.tls.server_name = Some(TLS_NAME.to_owned());
        if self.kind.has_log_in() {
            config.credentials = Some(credentials(PASSWORD));
        }
        config
    }

    /// Returns a client with long time-outs.
    pub fn client(&self, protocol: Protocol) -> Client {
        Client::new(self.config(protocol))
    }

    /// Returns a client with a short time-out, for servers that hang.
    pub fn hasty_client(&self, protocol: Protocol, timeout: Duration) -> Client {
        let mut config = self.config(protocol);
        config.timeout = timeout;
        Client::new(config)
    }

    /// Kills the process, if it is running.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Kills the process and starts it again, without its entries.
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.run(), "memcached did not start again");
    }

    /// Like [`Memcached::restart`], as a server of another kind at the same address.
    pub fn restart_as(&mut self, kind: Kind) {
        self.kind = kind;
        self.restart();
    }

    /// Sends a signal, for example `STOP` or `CONT`. With `STOP`, waits until all threads have stopped.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap();
        assert!(sent.success());
        let threads = format!("/proc/{pid}/task");
        let is_stopped = |thread: std::io::Result<std::fs::DirEntry>| {
            let status = std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
            status.contains("State:\tT")
        };
        wait_until("the process has stopped", || {
            name != "STOP" || std::fs::read_dir(&threads).unwrap().all(is_stopped)
        });
    }

    /// Keeps all threads on one core. Returns whether that succeeded.
    #[must_use]
    pub fn keep_on_core(&self, core: usize) -> bool {
        keep_on_core(self.child.as_ref().unwrap().id(), core)
    }

    /// Returns one of memcached's counters. Opens a connection without the client; requires a server
    /// without log-in on TCP.
    pub fn stat(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect((self.host, self.port)).unwrap();
        stream.write_all(b"stats\r\n").unwrap();
        let prefix = format!("STAT {name} ");
        let lines = BufReader::new(stream).lines().map(Result::unwrap);
        let line = lines.take_while(|line| line != "END").find(|line| line.starts_with(&prefix));
        line.unwrap()[prefix.len()..].parse().unwrap()
    }

    /// Returns the keys of all entries. Opens a connection without the client; requires a server
    /// without log-in on TCP.
    pub fn keys(&self) -> Vec<String> {
        let mut keys = None;
        wait_until("memcached lists its keys", || {
            keys = self.dump();
            keys.is_some()
        });
        keys.unwrap()
    }

    /// Returns the keys of all entries; `None` if the server is busy with its own crawler.
    fn dump(&self) -> Option<Vec<String>> {
        let mut stream = TcpStream::connect((self.host, self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"lru_crawler metadump all\r\n").unwrap();
        let mut keys = Vec::new();
        for line in BufReader::new(stream).lines().map(Result::unwrap) {
            if line == "END" {
                break;
            }
            // "BUSY" is the only other line.
            let escaped = line.strip_prefix("key=")?.split(' ').next()?;
            let pairs: Vec<(String, String)> = serde_urlencoded::from_str(escaped).unwrap();
            keys.push(pairs.into_iter().next()?.0);
        }
        Some(keys)
    }
}

impl Drop for Memcached {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Keeps all threads of a process on one core. Returns whether that succeeded.
#[must_use]
pub fn keep_on_core(pid: u32, core: usize) -> bool {
    let mut taskset = Command::new("taskset");
    taskset.args(["--all-tasks", "--cpu-list", "--pid", &core.to_string(), &pid.to_string()]);
    taskset.output().is_ok_and(|output| output.status.success())
}

/// Returns settings for `servers`, with time-outs so long that a pause of a busy machine does not count
/// as an outage.
pub fn config_of(servers: &[Memcached]) -> Config {
    let mut config = Config::new(servers.iter().map(Memcached::address).collect());
    config.timeout = PATIENCE;
    config.connect_timeout = PATIENCE;
    config
}

/// Returns the credentials of [`USER`] with `password`.
pub fn credentials(password: &str) -> Credentials {
    Credentials { username: USER.to_owned(), password: password.to_owned().into() }
}

/// A certificate and the authority that has signed it, in PEM format.
pub struct Certificate {
    ca: String,
    chain: String,
    key: String,
}

impl Certificate {
    /// A certificate for [`TLS_NAME`], and one for clients.
    pub fn valid() -> Self {
        Self::new(TLS_NAME, 4096)
    }

    /// A certificate for another name or address.
    pub fn of(name: &str) -> Self {
        Self::new(name, 4096)
    }

    /// A certificate that ended in the year 2000.
    pub fn expired() -> Self {
        Self::new(TLS_NAME, 2000)
    }

    fn new(name: &str, end: i32) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = authority.self_signed(&key).unwrap();
        let issuer = rcgen::Issuer::new(authority, key);
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(1990, 1, 1);
        params.not_after = rcgen::date_time_ymd(end, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        Self { ca: ca.pem(), chain: certificate.pem(), key: key.serialize_pem() }
    }
}

const PORT: u16 = 21211;

/// Returns a loopback address that no other test uses.
pub fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let process = std::process::id() % 1000;
    let [_, a, b, c] =
        ((process << 12) | (NEXT.fetch_add(1, Ordering::Relaxed) % 4000)).to_be_bytes();
    Ipv4Addr::new(127, a.max(1), b, c)
}
