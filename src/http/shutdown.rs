//! Stops the server without resetting connections.
//!
//! A client that reuses a connection may send its next request at the very moment at which the server
//! closes it. So for [`DRAIN`] the server goes on answering, with `Connection: close`, and stops when
//! the clients have closed their connections.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix_web::{
    Error,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::ConnectionType,
    middleware::Next,
    rt,
    rt::signal::unix::{SignalKind, signal as on_signal},
    web::Data,
};

/// The time for which responses carry `Connection: close` before the server stops.
pub const DRAIN: Duration = Duration::from_secs(1);

/// Seconds for requests in progress after [`DRAIN`]. Together they are below the 30 s between SIGTERM
/// and SIGKILL of platforms such as Heroku.
pub const GRACE_SECONDS: u64 = 25;

/// Whether the server is about to stop. All workers share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draining(Arc<AtomicBool>);

impl Draining {
    /// Waits for `shutdown`, then drains. Resolves when the server may close its connections.
    pub(crate) async fn begin_after(self, shutdown: impl Future<Output = ()>) {
        shutdown.await;
        log::info!("stopping: connections are being closed");
        self.0.store(true, Ordering::Relaxed);
        rt::time::sleep(DRAIN).await;
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

/// A middleware that closes the connection after each response while draining.
pub(crate) async fn close_connections(
    req: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let draining =
        req.app_data::<Data<Draining>>().is_some_and(|draining| draining.0.load(Ordering::Relaxed));
    let mut res = next.call(req).await?;
    if draining {
        res.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    Ok(res)
}
