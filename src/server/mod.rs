//! The server below the app: it accepts connections, bounds what each may take, and stops without losing
//! a request.
//!
//! Actix parses HTTP and has few limits of its own; `connection` stands between the socket and its
//! parser, and `turns` around the app.

mod body;
mod connection;
mod exchange;
mod framing;
pub mod listen;
mod registry;
pub mod shutdown;
mod socket;
pub(crate) mod turns;

use std::{
    fmt,
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    time::Duration,
};

use actix_http::{HttpService, KeepAlive, Protocol, Request, error::DispatchError};
use actix_server::ServerBuilder;
use actix_service::{
    IntoServiceFactory, ServiceFactory, ServiceFactoryExt, fn_service, map_config,
};
use actix_web::{
    Error,
    body::MessageBody,
    dev::{AppConfig, Response, Service},
    rt::{
        self,
        net::{TcpStream, UnixStream},
    },
};

use self::{
    connection::Connection,
    exchange::Exchange,
    listen::{ListenError, SocketFile},
    registry::Registry,
    shutdown::{Door, Draining},
    socket::Socket,
};
use crate::config::{Limits, ServerConfig, TrustedProxies};

/// A server that listens and has not started.
pub(crate) struct Listening {
    server: ServerBuilder,
    door: Door,
    address: Option<SocketAddr>,
    /// Removed when the server has stopped, if it is still there.
    socket: Option<SocketFile>,
}

/// The parts of a server that all workers share.
#[derive(Clone)]
struct Settings {
    limits: Limits,
    /// The number of registries, which share the limits.
    shares: usize,
    proxies: TrustedProxies,
    draining: Draining,
}

/// Listens where the settings say. `app` makes the app, once for each worker.
pub(crate) fn listen<F, I, S, B>(
    config: &ServerConfig,
    limits: Limits,
    proxies: TrustedProxies,
    draining: Draining,
    app: F,
) -> Result<Listening, ListenError>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as Service<Request>>::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    let server =
        ServerBuilder::new().workers(config.workers).shutdown_timeout(shutdown::GRACE_SECONDS);
    let mut settings = Settings { limits, shares: config.workers, proxies, draining };
    let listening = match &config.uds {
        Some(path) => listen::bind_socket(path).and_then(|socket| {
            let file = SocketFile::new(path.clone());
            let make = move || {
                let registry = settings.registry();
                accept::<UnixStream>(registry, settings.limits).and_then(http(app()))
            };
            Ok(Listening {
                server: server.listen_uds("tasklist", socket, make)?,
                door: Door::Unix(file.clone()),
                address: None,
                socket: Some(file),
            })
        }),
        None => listen::bind(&config.host, config.port, limits.write_timeout).and_then(|sockets| {
            settings.shares *= sockets.len();
            let address = sockets.first().map(TcpListener::local_addr).transpose()?;
            let handles =
                sockets.iter().map(TcpListener::try_clone).collect::<io::Result<Vec<_>>>()?;
            let server = sockets.into_iter().try_fold(server, |server, socket| {
                let (settings, app) = (settings.clone(), app.clone());
                server.listen("tasklist", socket, move || {
                    let registry = settings.registry();
                    accept::<TcpStream>(registry, settings.limits).and_then(http(app()))
                })
            })?;
            Ok(Listening { server, door: Door::Tcp(handles), address, socket: None })
        }),
    };
    listening.map_err(|source| ListenError::new(config, source))
}

impl Listening {
    /// Returns one line that describes where the server listens.
    pub(crate) fn describe(&self, config: &ServerConfig) -> String {
        listen::describe(config, self.address)
    }

    /// Returns the TCP port; `None` for a unix socket.
    pub(crate) fn port(&self) -> Option<u16> {
        self.address.map(|address| address.port())
    }

    /// Serves until `shutdown` resolves, and the server has drained and stopped.
    pub(crate) async fn serve(
        self,
        draining: Draining,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let outcome =
            self.server.shutdown_signal(draining.begin_after(shutdown, self.door)).run().await;
        if let Some(socket) = self.socket {
            socket.remove();
        }
        outcome
    }
}

impl Settings {
    /// Creates the registry of the current worker.
    fn registry(&self) -> Rc<Registry> {
        let registry = Registry::new(&self.limits, self.shares, self.proxies.clone());
        let (closing, draining) = (Rc::clone(&registry), self.draining.clone());
        rt::spawn(async move {
            draining.closing().await;
            closing.close_idle();
        });
        registry
    }
}

/// Admits accepted sockets within the limits.
fn accept<S: Into<Socket>>(
    registry: Rc<Registry>,
    limits: Limits,
) -> impl ServiceFactory<
    S,
    Config = (),
    Response = (Connection, Protocol, Option<SocketAddr>),
    Error = DispatchError,
    InitError = (),
> {
    fn_service(move |socket: S| {
        let socket = socket.into();
        let peer = socket.peer();
        let slot = registry.admit(peer.map(|peer| peer.ip()));
        async move {
            let slot = slot.ok_or_else(|| io::Error::other("all connections are in use"))?;
            Ok((Connection::new(socket, slot, limits), Protocol::Http1, peer))
        }
    })
}

/// Makes a service that speaks HTTP over connections. Their deadlines are those of [`connection`].
fn http<I, S, B>(
    app: I,
) -> impl ServiceFactory<
    (Connection, Protocol, Option<SocketAddr>),
    Config = (),
    Response = (),
    Error = DispatchError,
    InitError = (),
>
where
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as Service<Request>>::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    let app = app.into_factory().map_err(|error| error.into().error_response());
    HttpService::build()
        .keep_alive(KeepAlive::Os)
        .client_request_timeout(Duration::ZERO)
        .client_disconnect_timeout(Duration::ZERO)
        .on_connect_ext(|connection: &Connection, extensions| {
            extensions.insert::<Rc<Exchange>>(connection.exchange());
        })
        .finish(map_config(app, |()| AppConfig::default()))
}
