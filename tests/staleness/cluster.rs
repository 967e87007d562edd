//! The processes, servers and proxies of one run, and its readers.

use std::{
    collections::VecDeque,
    env,
    sync::{
        Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use diesel::{prelude::*, sql_types::Text};
use memcached_client::{Client, Config};
use tempfile::{TempDir, tempdir};
use test_support::{
    http::Browser,
    memcached::{Kind, Memcached},
    program::Program,
};

use crate::{
    checker::{Checker, JUDGEMENT_DELAY, PageView},
    journal::Journal,
    proxy::Proxy,
    subject::{Subject, Task},
};

pub const PROCESSES: usize = 2;

/// The protection of entries against stale stores, and where they are.
#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Mode {
    /// Leases, with the query and the page on different servers.
    TwoServers,
    /// Leases, with the query and the page on one server: a write deletes both in one batch.
    OneServer,
    /// Pages and searches in a group: a write deletes the group.
    Groups,
    /// Unconditional stores, as if there were no leases.
    CommitThenDelete,
}

pub struct Cluster {
    mode: Mode,
    pub subject: Subject,
    pub folder: TempDir,
    pub url: String,
    pub memcached: Vec<Mutex<Memcached>>,
    pub proxies: Vec<Proxy>,
    pub prefix: String,
    /// The protocol between programs and memcached.
    pub protocol: String,
    pub programs: Vec<Mutex<Option<Program>>>,
    addresses: Vec<RwLock<String>>,
    pub checker: Checker,
    pub next_name: AtomicU64,
    /// Tasks without a write in flight.
    pub idle: Mutex<Vec<Task>>,
    /// Held for reading during each write, and for writing by a fault that needs its own write.
    pub gate: RwLock<()>,
    /// Number of writes in flight.
    pub writing: AtomicUsize,
    pub is_over: AtomicBool,
    pub reads: AtomicU64,
    pub stale: AtomicU64,
    pub journal: Journal,
}

impl Cluster {
    pub fn start(mode: Mode) -> Self {
        let memcached: Vec<_> = (0..2).map(|_| Memcached::start(Kind::Plain)).collect();
        let proxies: Vec<_> = memcached
            .iter()
            .map(|server| Proxy::start(&server.address(), mode == Mode::CommitThenDelete))
            .collect();
        let folder = tempdir().unwrap();
        let subject = if mode == Mode::Groups { Subject::Wiki } else { Subject::Tasklist };
        let cluster = Self {
            mode,
            subject,
            url: format!("sqlite://{}/tasks.sqlite3", folder.path().display()),
            prefix: key_prefix(&proxies, mode == Mode::OneServer),
            protocol: match mode {
                Mode::CommitThenDelete => "binary".to_owned(),
                _ => env::var("STALENESS_PROTOCOL").unwrap_or("auto".to_owned()),
            },
            folder,
            memcached: memcached.into_iter().map(Mutex::new).collect(),
            proxies,
            programs: (0..PROCESSES).map(|_| Mutex::new(None)).collect(),
            addresses: (0..PROCESSES).map(|_| RwLock::default()).collect(),
            checker: Checker::default(),
            next_name: AtomicU64::new(0),
            idle: Mutex::default(),
            gate: RwLock::new(()),
            writing: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            reads: AtomicU64::new(0),
            stale: AtomicU64::new(0),
            journal: Journal::default(),
        };
        (0..PROCESSES).for_each(|process| cluster.start_process(process));
        cluster
    }

    pub fn start_process(&self, process: usize) {
        let program = Program::start(self.subject.command(self));
        program.address().clone_into(&mut self.addresses[process].write().unwrap());
        *self.programs[process].lock().unwrap() = Some(program);
    }

    pub fn address(&self, process: usize) -> String {
        self.addresses[process].read().unwrap().clone()
    }

    pub fn database(&self) -> SqliteConnection {
        let mut conn = SqliteConnection::establish(&self.url).unwrap();
        diesel::sql_query("PRAGMA busy_timeout = 5000").execute(&mut conn).unwrap();
        conn
    }

    /// Returns each row of the ledger as its keys and its age in milliseconds.
    fn ledger(&self) -> String {
        #[derive(QueryableByName)]
        struct LedgerRow {
            #[diesel(sql_type = Text)]
            text: String,
        }

        let query = "SELECT keys || ' ' || CAST((julianday('now') - 2440587.5) * 86400000 - \
                     created_at AS INTEGER) AS text FROM cache_invalidations";
        let rows = diesel::sql_query(query).load::<LedgerRow>(&mut self.database()).unwrap();
        rows.into_iter().map(|row| row.text.replace('\n', ", ")).collect::<Vec<_>>().join("; ")
    }

    /// Reads pages from each process in turn and judges them, until the run is over.
    pub fn read_until_over(&self, mut process: usize) {
        let mut pages = VecDeque::new();
        while !self.is_over.load(Ordering::Relaxed) {
            process = (process + 1) % PROCESSES;
            let browser = Browser::new(&self.address(process));
            for number in 0..50 {
                let requested = Instant::now();
                // The leases protect the start page alone: others are in groups.
                let number = if self.mode == Mode::CommitThenDelete { 0 } else { number };
                let (path, lists) = self.subject.page(number);
                // The process may have been killed.
                let Some(page) = browser.try_get(path) else { break };
                let received = Instant::now();
                assert_eq!(page.status, 200, "{}", page.body);
                let facts = self.subject.facts(&page, lists);
                pages.push_back(PageView { process, requested, received, lists, facts });
                self.reads.fetch_add(1, Ordering::Relaxed);
            }
            while pages.front().is_some_and(|page| page.requested.elapsed() > JUDGEMENT_DELAY) {
                self.judge(&pages.pop_front().unwrap());
            }
        }
        thread::sleep(JUDGEMENT_DELAY);
        for page in &pages {
            self.judge(page);
        }
    }

    /// Records when the machine stood still, or was short of CPU: replays are late then, too.
    pub fn watch_the_clock(&self) {
        const STEP: Duration = Duration::from_millis(10);
        while !self.is_over.load(Ordering::Relaxed) {
            let begun = Instant::now();
            thread::sleep(STEP);
            let late = begun.elapsed().saturating_sub(STEP);
            if late > 10 * STEP {
                self.journal.record(|| format!("this machine stood still for {late:?}"));
            }
        }
    }

    fn judge(&self, page: &PageView) {
        if let Some(fault) = self.checker.staleness(page) {
            self.stale.fetch_add(1, Ordering::Relaxed);
            let (process, ledger, age) = (page.process, self.ledger(), page.requested.elapsed());
            self.journal.record_stale_page(&format!(
                "process {process}: {fault}, {age:?} ago; ledger: {ledger}"
            ));
        }
    }
}

/// Returns a key prefix that puts the query and the page on one server, or on different ones.
fn key_prefix(proxies: &[Proxy], on_one: bool) -> String {
    let servers = proxies.iter().map(|proxy| proxy.address.to_string().parse().unwrap()).collect();
    let client = Client::new(Config::new(servers));
    for n in 0..1000 {
        let prefix = format!("s{n}:");
        let query = client.server_of(format!("{prefix}tasks.all")).unwrap();
        let page = client.server_of(format!("{prefix}view//")).unwrap();
        if (query == page) == on_one {
            return prefix;
        }
    }
    panic!("no prefix distributes the keys as wanted");
}
