//! Stops the server without losing a request.
//!
//! 1. For [`DRAIN`] the server goes on answering, with `Connection: close`: a client that reuses a
//!    connection may be sending its next request at this very moment.
//! 2. For a quarter of a second the kernel begins no new connections, and the server takes all that it has begun:
//!    closing a listener resets them. A client that connects now tries again a second later.
//! 3. The listener and idle connections are closed. Requests in progress have [`GRACE_SECONDS`].

use std::{future::Future, io, net::TcpListener, time::Duration};

use actix_web::{
    rt,
    rt::signal::unix::{SignalKind, signal as on_signal},
};
use tokio::sync::watch;

use super::listen::SocketFile;

/// The time for which answers carry `Connection: close` before the server stops.
pub const DRAIN: Duration = Duration::from_secs(1);

/// The time in which the server takes the connections that the kernel has begun.
const BACKLOG: Duration = Duration::from_millis(250);

/// The time in which idle connections usually end.
const CLOSE: Duration = Duration::from_millis(50);

/// Seconds for requests in progress after [`DRAIN`]. Together they are below the 30 s between SIGTERM
/// and SIGKILL of platforms such as Heroku.
pub const GRACE_SECONDS: u64 = 25;

/// How far the stop of the server is. All workers share it.
#[derive(Clone, Debug)]
pub(crate) struct Draining(watch::Sender<Stage>);

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Stage {
    Serving,
    Draining,
    Closing,
}

/// The places where the server listens, until no new connections are to begin.
pub(super) enum Door {
    Tcp(Vec<TcpListener>),
    Unix(SocketFile),
}

impl Default for Draining {
    fn default() -> Self {
        Self(watch::Sender::new(Stage::Serving))
    }
}

impl Draining {
    /// Returns whether connections are to be closed after their answer.
    pub(crate) fn has_begun(&self) -> bool {
        *self.0.borrow() != Stage::Serving
    }

    /// Waits for `shutdown`, then drains. Resolves when the server may stop to accept connections.
    pub(super) async fn begin_after(self, shutdown: impl Future<Output = ()>, door: Door) {
        shutdown.await;
        log::info!("stopping: connections are being closed");
        self.0.send_replace(Stage::Draining);
        rt::time::sleep(DRAIN).await;
        if let Err(error) = door.close() {
            log::warn!("connections that begin while the server stops may be reset: {error}");
        }
        rt::time::sleep(BACKLOG).await;
        self.0.send_replace(Stage::Closing);
        // Actix looks only once a second whether connections are left.
        rt::time::sleep(CLOSE).await;
    }

    /// Waits until idle connections are to be closed.
    pub(super) async fn closing(&self) {
        // The sender is `self`, so it cannot be gone.
        let _ = self.0.subscribe().wait_for(|stage| *stage == Stage::Closing).await;
    }
}

impl Door {
    /// Lets the kernel begin no new connections. Those that it has begun can still be accepted.
    fn close(self) -> io::Result<()> {
        match self {
            Self::Tcp(listeners) => listeners.iter().try_for_each(refuse_syn),
            Self::Unix(file) => {
                file.remove();
                Ok(())
            }
        }
    }
}

/// Resolves at SIGTERM or SIGINT.
pub async fn signal() {
    let Some(mut signals) = [SignalKind::terminate(), SignalKind::interrupt()]
        .into_iter()
        .map(|kind| on_signal(kind).ok())
        .collect::<Option<Vec<_>>>()
    else {
        log::error!("cannot listen for signals; the server stops only when it is killed");
        return std::future::pending().await;
    };
    std::future::poll_fn(|context| {
        let arrived = signals.iter_mut().any(|s| s.poll_recv(context).is_ready());
        if arrived { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// Drops packets that would begin a connection (RFC 9293, section 3.1: the flags are byte 13 of the
/// header), with a filter of the kernel.
#[cfg(target_os = "linux")]
fn refuse_syn(listener: &TcpListener) -> io::Result<()> {
    use libc::{BPF_ABS, BPF_B, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET};
    use socket2::{SockFilter, SockRef};

    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    let instruction = |code: u32, jump_if_true, jump_if_false, k| {
        // All codes fit into 16 bits.
        SockFilter::new(u16::try_from(code).unwrap_or_default(), jump_if_true, jump_if_false, k)
    };
    SockRef::from(listener).attach_filter(&[
        instruction(BPF_LD | BPF_B | BPF_ABS, 0, 0, FLAGS),
        instruction(BPF_JMP | BPF_JSET | BPF_K, 0, 1, SYN),
        instruction(BPF_RET | BPF_K, 0, 0, 0),
        instruction(BPF_RET | BPF_K, 0, 0, u32::MAX),
    ])
}

#[cfg(not(target_os = "linux"))]
fn refuse_syn(_: &TcpListener) -> io::Result<()> {
    Ok(())
}
