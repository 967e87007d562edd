//! A database that is away, and a server that ends connections.

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

/// Makes each test for the databases that are servers.
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
    connections_that_the_server_has_ended_reach_no_visitor,
    while_the_database_is_away_cached_pages_are_served_and_the_rest_says_when_to_try_again,
];

fn connections_that_the_server_has_ended_reach_no_visitor(database: TestDatabase) {
    let app = TestApp::on(database);
    let browser = app.browser();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let added = app.browser().post_form("/", &[("name", "Milk")]);
                assert_eq!(added.status, 303);
            });
        }
    });
    app.database.end_connections();
    for _ in 0..8 {
        assert_eq!(browser.post_form("/", &[("name", "Milk")]).status, 303);
    }
    assert_eq!(browser.get("/").task_names().len(), 16);
}

fn while_the_database_is_away_cached_pages_are_served_and_the_rest_says_when_to_try_again(
    database: TestDatabase,
) {
    let proxy = Proxy::start(database.socket());
    let app = TestApp::on(TestDatabase::at(&database.at_port(proxy.address.port())));
    let browser = app.with_tasks(&["Milk"]);
    let page = app.browser().get("/");
    assert_eq!(page.task_names(), ["Milk"]);

    proxy.set_away(true);
    let refused = browser.post_form("/", &[("name", "Bread")]);
    assert_eq!((refused.status, refused.header("retry-after").as_str()), (503, "5"));
    assert!(refused.body.contains("<h1"), "{}", refused.body);
    assert_eq!(browser.get("/readyz").status, 503);
    assert_eq!(app.browser().get("/").task_names(), ["Milk"], "the cached page is still right");

    proxy.set_away(false);
    wait_until("it is ready again", || browser.get("/readyz").status == 200);
    assert_eq!(browser.post_form("/", &[("name", "Bread")]).status, 303);
    assert_eq!(app.browser().get("/").task_names(), ["Milk", "Bread"]);
}

/// Stands before a database that listens on a socket of the file system.
struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    is_away: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    fn start(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let mut open = accepting.open.lock().unwrap();
                if accepting.is_away.load(Ordering::SeqCst) {
                    continue;
                }
                open.push(client.try_clone().unwrap());
                drop(open);
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

    fn set_away(&self, is_away: bool) {
        let mut open = self.shared.open.lock().unwrap();
        self.shared.is_away.store(is_away, Ordering::SeqCst);
        for client in open.drain(..) {
            let _ = client.shutdown(Shutdown::Both);
        }
    }
}

/// Until one of them ends.
fn forward(mut from: impl Read, mut to: impl Write) {
    let _ = std::io::copy(&mut from, &mut to);
}
