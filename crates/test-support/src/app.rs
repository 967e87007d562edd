//! The task list in the test's own process.

use std::{sync::mpsc, thread};

use tasklist::{app::Application, config::Config, db::Db};
use tokio::sync::oneshot;

use crate::{
    database::TestDatabase,
    http::Browser,
    secrets::{SECRET_KEY, SECRETS},
    wait::wait_until,
};

/// The app on a free port. It stops when this is dropped.
pub struct TestApp {
    pub port: u16,
    pub database: TestDatabase,
    _stop: oneshot::Sender<()>,
}

impl TestApp {
    pub fn on_sqlite() -> Self {
        Self::on(TestDatabase::sqlite())
    }

    pub fn on(database: TestDatabase) -> Self {
        Self::with(database, &[])
    }

    /// The app with additional settings.
    pub fn with(database: TestDatabase, settings: &[(&str, &str)]) -> Self {
        let mut all = vec![
            ("PORT", "0"),
            ("HOST", "127.0.0.1"),
            ("DATABASE_URL", database.url.as_str()),
            ("DATABASE_POOL_SIZE", "4"),
            ("SECRET_KEY", SECRET_KEY),
            ("WEB_CONCURRENCY", "2"),
            // A pause of a busy machine is no outage.
            ("MEMCACHE_TIMEOUT", "10s"),
            ("MEMCACHE_CONNECT_TIMEOUT", "10s"),
        ];
        all.extend(settings);
        let config = Config::from_environment(&all.into_iter().collect()).unwrap();
        Db::new(&config.database).migrate().unwrap();
        // The first app of the process installs it.
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

    pub fn browser(&self) -> Browser {
        Browser::new(&format!("http://127.0.0.1:{}", self.port))
    }

    /// Waits until all invalidations are confirmed and their rows removed: from then on nothing is
    /// deleted from the cache until the next write.
    pub fn settle(&self) {
        wait_until("the ledger is empty", || {
            self.browser().get("/metrics").body.contains("tasklist_ledger_rows 0\n")
        });
    }

    /// Adds tasks, whose ids then count from 1.
    pub fn with_tasks(&self, names: &[&str]) -> Browser {
        let browser = self.browser();
        for name in names {
            assert_eq!(browser.post_form("/", &[("name", name)]).status, 303);
        }
        browser.get("/");
        browser
    }
}

/// Aborts the tests when the app, in this process, logs a secret at any level.
struct LogGuard;

impl log::Log for LogGuard {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}", record.target(), record.args());
        // The HTTP client of the tests, in this process too, may log its own requests.
        let is_client = record.target().starts_with("ureq");
        if !is_client && SECRETS.iter().any(|(_, secret)| line.contains(secret)) {
            eprintln!("a secret was logged: {line}");
            std::process::abort();
        }
    }

    fn flush(&self) {}
}
