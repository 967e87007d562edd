//! A database server that is unreachable or ends idle connections.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};
use test_support::{app::TestApp, database::TestDatabase, wait::wait_until};

/// Declares each test for each database that is a server.
macro_rules! on_every_server {
    ($($test:ident),+ $(,)?) => {
        #[cfg(feature = "postgres")]
        mod postgres {
            $(#[test]
            fn $test() {
                super::$test(test_support::database::TestDatabase::postgres());
            })+
        }
        #[cfg(feature = "mysql")]
        mod mysql {
            $(#[test]
            fn $test() {
                super::$test(test_support::database::TestDatabase::mysql());
            })+
        }
    };
}

on_every_server![
    connections_ended_by_the_server_cause_no_failed_write,
    connections_ended_by_the_server_cause_no_failed_read,
    during_an_outage_cached_pages_are_served_and_writes_are_a_503,
];

fn connections_ended_by_the_server_cause_no_failed_write(database: TestDatabase) {
    let app = TestApp::on(database);
    let browser = app.browser();
    add_tasks_at_once(&app);
    app.database.end_connections();
    for _ in 0..8 {
        assert_eq!(browser.post_form("/", &[("name", "Milk")]).status, 303);
    }
    assert_eq!(browser.get("/").task_names().len(), 16);
}

fn connections_ended_by_the_server_cause_no_failed_read(database: TestDatabase) {
    let app = TestApp::on(database);
    let browser = app.browser();
    add_tasks_at_once(&app);
    app.database.end_connections();
    for _ in 0..8 {
        // This page is not cached.
        assert_eq!(browser.get("/1/edit").status, 200);
    }
}

/// Makes the app open several connections, each of which adds a task.
fn add_tasks_at_once(app: &TestApp) {
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let added = app.browser().post_form("/", &[("name", "Milk")]);
                assert_eq!(added.status, 303);
            });
        }
    });
}

fn during_an_outage_cached_pages_are_served_and_writes_are_a_503(database: TestDatabase) {
    let proxy = Proxy::start(database.socket());
    let app = TestApp::on(TestDatabase::at(&database.at_port(proxy.address.port())));
    let browser = app.with_tasks(&["Milk"]);
    let page = app.browser().get("/");
    assert_eq!(page.task_names(), ["Milk"]);

    proxy.set_unreachable(true);
    let refused = browser.post_form("/", &[("name", "Bread")]);
    assert_eq!((refused.status, refused.header("retry-after").as_str()), (503, "5"));
    assert!(refused.body.contains("<h1"), "{}", refused.body);
    assert_eq!(browser.get("/readyz").status, 503);
    assert_eq!(app.browser().get("/").task_names(), ["Milk"], "the cached page is still served");

    proxy.set_unreachable(false);
    wait_until("the app is ready again", || browser.get("/readyz").status == 200);
    assert_eq!(browser.post_form("/", &[("name", "Bread")]).status, 303);
    assert_eq!(app.browser().get("/").task_names(), ["Milk", "Bread"]);
}

/// Forwards TCP connections to the unix socket of a database server.
struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    is_unreachable: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    fn start(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let mut connections = accepting.connections.lock().unwrap();
                // The check needs the lock: a connection accepted now must be ended by
                // `set_unreachable`.
                if accepting.is_unreachable.load(Ordering::SeqCst) {
                    continue;
                }
                connections.push(client.try_clone().unwrap());
                drop(connections);
                let server = UnixStream::connect(&socket).unwrap();
                let (from_server, to_client) =
                    (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || {
                    forward(client, &server);
                    let _ = server.shutdown(Shutdown::Both);
                });
                thread::spawn(move || {
                    forward(from_server, &to_client);
                    let _ = to_client.shutdown(Shutdown::Both);
                });
            }
        });
        Self { address, shared }
    }

    /// Ends all connections, and refuses new ones while unreachable.
    fn set_unreachable(&self, is_unreachable: bool) {
        let mut connections = self.shared.connections.lock().unwrap();
        self.shared.is_unreachable.store(is_unreachable, Ordering::SeqCst);
        for client in connections.drain(..) {
            let _ = client.shutdown(Shutdown::Both);
        }
    }
}

/// Forwards bytes until one side ends.
fn forward(mut from: impl Read, mut to: impl Write) {
    let _ = std::io::copy(&mut from, &mut to);
}
