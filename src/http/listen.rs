//! Where the server listens: an address, or a unix socket whose file is removed at the end.

use std::{
    io,
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt, MetadataExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::config::ServerConfig;

/// Binds a unix socket. Replaces the file of a socket on which no server listens any more, and no
/// other file.
pub(crate) fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    let is_socket = path.symlink_metadata().is_ok_and(|file| file.file_type().is_socket());
    let is_refused =
        || UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
    if is_socket && is_refused() {
        std::fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}

/// The file of a bound socket, as it was when it was bound: later another server may replace it.
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { identity: Self::identity_of(&path), path }
    }

    fn identity_of(path: &Path) -> Option<(u64, u64)> {
        path.symlink_metadata().ok().map(|file| (file.dev(), file.ino()))
    }

    /// Removes the file, unless it has been replaced.
    pub(crate) fn remove(self) {
        if self.identity.is_some() && Self::identity_of(&self.path) == self.identity {
            // It may be removed at this very moment; that is fine.
            let _ = std::fs::remove_file(self.path);
        }
    }
}

/// Describes where the server listens, or should.
pub(crate) fn describe(config: &ServerConfig, address: Option<SocketAddr>) -> String {
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
    pub(crate) fn new(config: &ServerConfig, source: io::Error) -> Self {
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
