//! Opens connections: resolves names, connects and sets socket options. Knows no protocol.

#[cfg(feature = "tls")]
pub(crate) mod tls;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream, lookup_host},
    time::timeout,
};

use crate::{address::ServerAddress, config::Config};

/// The idle time after which TCP checks whether the peer is still reachable.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A connection by TCP, TLS or a unix socket.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Stream {
    /// Resolves the host name and connects to the first of its addresses that accepts. Each address
    /// gets an equal share of [`Config::connect_timeout`].
    pub(crate) async fn connect(address: &ServerAddress, config: &Config) -> io::Result<Self> {
        match address {
            ServerAddress::Tcp { host, port } => {
                Ok(Self::Tcp(connect_tcp(host, *port, config.connect_timeout).await?))
            }
            #[cfg(feature = "tls")]
            ServerAddress::Tls { host, port } => {
                let stream = connect_tcp(host, *port, config.connect_timeout).await?;
                Ok(Self::Tls(Box::new(tls::wrap(stream, host, &config.tls).await?)))
            }
            #[cfg(not(feature = "tls"))]
            ServerAddress::Tls { .. } => {
                let problem = "TLS requires the Cargo feature `tls` of memcached-client";
                Err(io::Error::new(io::ErrorKind::Unsupported, problem))
            }
            ServerAddress::Unix(path) => Ok(Self::Unix(UnixStream::connect(path).await?)),
        }
    }

    /// Returns whether there may be bytes to read, or an error. If not, the socket wakes `cx`. Over TLS only a read can
    /// tell, because bytes that have been decrypted already do not make the socket ready.
    pub(crate) fn may_have_more(&self, cx: &mut Context<'_>) -> bool {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx).is_ready(),
            #[cfg(feature = "tls")]
            Self::Tls(_) => true,
            Self::Unix(stream) => stream.poll_read_ready(cx).is_ready(),
        }
    }
}

/// Connects and sets the options of the socket.
async fn connect_tcp(host: &str, port: u16, limit: Duration) -> io::Result<TcpStream> {
    let stream = connect_to_any(host, port, limit).await?;
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(stream)
}

async fn connect_to_any(host: &str, port: u16, limit: Duration) -> io::Result<TcpStream> {
    let addresses: Vec<_> = lookup_host((host, port)).await?.collect();
    let share = limit / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    for address in addresses {
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = error,
            Err(_) => failure = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failure)
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
