//! The task list, running in the process of the test.

use std::{sync::mpsc, thread};

use tasklist::{app::Application, config::Config, db::Db};
use tokio::sync::oneshot;

use crate::{
    database::TestDatabase,
    http::Browser,
    secrets::{SECRET_KEY, SECRETS},
    wait::wait_until,
};

/// The app on a free port. It stops when the value is dropped.
pub struct TestApp {
    pub port: u16,
    pub database: TestDatabase,
    _stop: oneshot::Sender<()>,
}

impl TestApp {
    /// Starts the app on an empty SQLite database.
    pub fn on_sqlite() -> Self {
        Self::on(TestDatabase::sqlite())
    }

    /// Starts the app on `database`.
    pub fn on(database: TestDatabase) -> Self {
        Self::with(database, &[])
    }

    /// Starts the app on `database` with additional settings, as pairs of a variable and its value.
    pub fn with(database: TestDatabase, settings: &[(&str, &str)]) -> Self {
        let mut all = vec![
            ("PORT", "0"),
            ("HOST", "127.0.0.1"),
            ("DATABASE_URL", database.url.as_str()),
            ("DATABASE_POOL_SIZE", "4"),
            ("SECRET_KEY", SECRET_KEY),
            ("WEB_CONCURRENCY", "2"),
            // Long enough that a pause of a busy machine does not count as an outage.
            ("MEMCACHE_TIMEOUT", "10s"),
            ("MEMCACHE_CONNECT_TIMEOUT", "10s"),
        ];
        all.extend(settings);
        let config = Config::from_environment(&all.into_iter().collect()).unwrap();
        Db::new(&config.database).migrate().unwrap();
        // Only the first app of the process can install the logger.
        if log::set_logger(&LogGuard).is_ok() {
            log::set_max_level(log::LevelFilter::Trace);
        }
        let (stop, stopped) = oneshot::channel();
        let (send_port, port) = mpsc::channel();
        thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let until_dropped = async { drop(stopped.await) };
                let app = Application::build(config, until_dropped).unwrap();
                send_port.send(app.port().unwrap()).unwrap();
                app.run().await.unwrap();
            });
        });
        Self { port: port.recv().unwrap(), database, _stop: stop }
    }

    /// Returns a new client of the app, without cookies.
    pub fn browser(&self) -> Browser {
        Browser::new(&format!("http://127.0.0.1:{}", self.port))
    }

    /// Waits until all invalidations are confirmed and the ledger is empty. After that, no entries are
    /// deleted from the cache until the next write.
    pub fn settle(&self) {
        wait_until("the ledger is empty", || {
            self.browser().get("/metrics").body.contains("tasklist_ledger_rows 0\n")
        });
    }

    /// Adds tasks. Their ids count from 1 in an empty database. Returns the client that added them.
    pub fn with_tasks(&self, names: &[&str]) -> Browser {
        let browser = self.browser();
        for name in names {
            assert_eq!(browser.post_form("/", &[("name", name)]).status, 303);
        }
        browser.get("/");
        browser
    }
}

/// A logger that aborts the process if a secret is logged at any level.
struct LogGuard;

impl log::Log for LogGuard {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}", record.target(), record.args());
        // The HTTP client of the tests runs in this process too, and may log its own requests.
        let is_client = record.target().starts_with("ureq");
        if !is_client && SECRETS.iter().any(|(_, secret)| line.contains(secret)) {
            eprintln!("a secret was logged: {line}");
            std::process::abort();
        }
    }

    fn flush(&self) {}
}
