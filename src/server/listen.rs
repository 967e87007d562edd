//! Where the server listens: an address, or a unix socket whose file is removed at the end.

use std::{
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    os::unix::{
        fs::{FileTypeExt, MetadataExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};
use thiserror::Error;

use crate::config::ServerConfig;

/// The connections that the kernel holds for us until they are accepted.
const BACKLOG: i32 = 2048;

/// The time after which the kernel asks whether the other end of a silent connection is still there;
/// it gives up after three questions without an answer.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEP_ALIVE_RETRIES: u32 = 3;

/// The most bytes, for a connection, that the kernel takes before it can send them.
#[cfg(target_os = "linux")]
const MAX_UNSENT: u32 = 512 * 1024;

/// Listens on every address of a host. Accepted connections inherit the options that are set here.
/// The kernel drops a connection if its client acknowledges no byte for `write_timeout`.
pub(super) fn bind(host: &str, port: u16, write_timeout: Duration) -> io::Result<Vec<TcpListener>> {
    let bound: Vec<_> = (host, port)
        .to_socket_addrs()?
        .map(|address| bind_address(address, write_timeout))
        .collect();
    if bound.iter().any(Result::is_ok) {
        return Ok(bound.into_iter().flatten().collect());
    }
    bound.into_iter().next().unwrap_or(Err(io::ErrorKind::AddrNotAvailable.into())).map(|l| vec![l])
}

fn bind_address(address: SocketAddr, write_timeout: Duration) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    let keep_alive = TcpKeepalive::new()
        .with_time(KEEP_ALIVE)
        .with_interval(KEEP_ALIVE_INTERVAL)
        .with_retries(KEEP_ALIVE_RETRIES);
    socket.set_tcp_keepalive(&keep_alive)?;
    // A large answer is written in pieces, each of which would wait for the one before to arrive.
    socket.set_tcp_nodelay(true)?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_user_timeout(Some(write_timeout))?;
        socket.set_tcp_notsent_lowat(MAX_UNSENT)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Binds a unix socket. Replaces the file of a socket on which no server listens any more, and no
/// other file.
pub(super) fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    let is_socket = path.symlink_metadata().is_ok_and(|file| file.file_type().is_socket());
    let is_refused =
        || UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
    if is_socket && is_refused() {
        std::fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The file of a bound socket, as it was when it was bound: later another server may replace it.
#[derive(Clone, Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { identity: Self::identity_of(&path), path }
    }

    fn identity_of(path: &Path) -> Option<(u64, u64)> {
        path.symlink_metadata().ok().map(|file| (file.dev(), file.ino()))
    }

    /// Removes the file, unless it has been replaced.
    pub(super) fn remove(self) {
        if self.identity.is_some() && Self::identity_of(&self.path) == self.identity {
            // It may be removed at this very moment; that is fine.
            let _ = std::fs::remove_file(self.path);
        }
    }
}

/// Describes where the server listens, or should.
pub(super) fn describe(config: &ServerConfig, address: Option<SocketAddr>) -> String {
    match (&config.uds, address) {
        (Some(path), _) => format!("unix:{}", path.display()),
        (None, Some(address)) => format!("http://{address}"),
        (None, None) => format!("http://{}:{}", config.host, config.port),
    }
}

/// The reason that the server cannot listen, and the remedy.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {source}; {remedy}")]
pub struct ListenError {
    address: String,
    source: io::Error,
    remedy: &'static str,
}

impl ListenError {
    pub(super) fn new(config: &ServerConfig, source: io::Error) -> Self {
        let (address, remedy) = match &config.uds {
            Some(path) => (
                path.display().to_string(),
                "name with --uds a free path in a folder that is writable",
            ),
            None => (
                format!("{}:{}", config.host, config.port),
                "stop the program that uses this port, or set HOST and PORT to a free address",
            ),
        };
        Self { address, source, remedy }
    }
}
