//! No stale page, whatever breaks: two processes of the app on one database and two memcached
//! servers, each behind a proxy that makes trouble; writers, readers, and a checker that knows when
//! each write was acknowledged.
//!
//! A short form runs with the other tests. The long one:
//!
//! ```sh
//! STALENESS_FAULTS=1000 STALENESS_READS=1000000 cargo test --release --test staleness -- --nocapture
//! ```
//!
//! The same is then done to "commit, then delete": proxies make every store unconditional, as if
//! there were no leases, and the checker must find stale pages, else it would prove nothing.

#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used
)]

mod checker;
mod journal;
mod proxy;

use std::{
    collections::{BTreeMap, VecDeque},
    env,
    sync::{
        Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use everfresh::REPLAY_AGE;
use memcached_client::{Client, Config};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use tempfile::{TempDir, tempdir};
use test_support::{
    http::Browser,
    memcached::{Kind, Memcached},
    program::{Program, command},
    secrets::SECRET_KEY,
};

use self::{
    checker::{Checker, JUDGED_AFTER, Seen, Write},
    journal::Journal,
    proxy::{Proxy, Trouble},
};

const PROCESSES: usize = 2;
const READERS: usize = 3;
const WRITERS: usize = 2;

/// So many tasks are on the page while it is busy.
const TASKS: usize = 8;

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Fault {
    /// `kill -9` of a process before its so manieth delete reaches a server (0: at any time), which
    /// is then dropped.
    Kill(usize),
    Restart,
    Hang,
    Cut,
    Delay,
    Garble,
}

const FAULTS: [Fault; 8] = [
    Fault::Kill(0),
    Fault::Kill(1),
    Fault::Kill(2),
    Fault::Restart,
    Fault::Hang,
    Fault::Cut,
    Fault::Delay,
    Fault::Garble,
];

struct World {
    folder: TempDir,
    url: String,
    memcached: Vec<Mutex<Memcached>>,
    proxies: Vec<Proxy>,
    prefix: String,
    programs: Vec<Mutex<Option<Program>>>,
    addresses: Vec<RwLock<String>>,
    checker: Checker,
    next_name: AtomicU64,
    /// Writers hold it while they write; who makes a fault of a write holds it alone.
    gate: RwLock<()>,
    writing: AtomicUsize,
    is_over: AtomicBool,
    reads: AtomicU64,
    stale: AtomicU64,
    journal: Journal,
}

/// How entries are kept fresh, and where they are.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Way {
    OnTwoServers,
    /// A write deletes the query and the page together.
    OnOneServer,
    /// As if there were no leases.
    CommitThenDelete,
}

/// What has come of a run.
struct Report {
    reads: u64,
    stale: u64,
    writes: u64,
    strict: u64,
    faults: BTreeMap<Fault, usize>,
    in_flight: usize,
    journal: String,
}

impl World {
    fn new(way: Way) -> Self {
        let memcached: Vec<_> = (0..2).map(|_| Memcached::start(Kind::Plain)).collect();
        let proxies: Vec<_> = memcached
            .iter()
            .map(|server| Proxy::start(&server.address(), way == Way::CommitThenDelete))
            .collect();
        let folder = tempdir().unwrap();
        let world = Self {
            url: format!("sqlite://{}/tasks.sqlite3", folder.path().display()),
            prefix: prefix(&proxies, way == Way::OnOneServer),
            folder,
            memcached: memcached.into_iter().map(Mutex::new).collect(),
            proxies,
            programs: (0..PROCESSES).map(|_| Mutex::new(None)).collect(),
            addresses: (0..PROCESSES).map(|_| RwLock::default()).collect(),
            checker: Checker::default(),
            next_name: AtomicU64::new(0),
            gate: RwLock::new(()),
            writing: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            reads: AtomicU64::new(0),
            stale: AtomicU64::new(0),
            journal: Journal::default(),
        };
        (0..PROCESSES).for_each(|process| world.start(process));
        world
    }

    fn start(&self, process: usize) {
        let listed: Vec<_> = self.proxies.iter().map(|proxy| proxy.address.to_string()).collect();
        let settings = [
            ("PORT", "0"),
            ("HOST", "127.0.0.1"),
            ("SECRET_KEY", SECRET_KEY),
            ("DATABASE_URL", &self.url),
            ("MEMCACHIER_SERVERS", &listed.join(",")),
            ("CACHE_KEY_PREFIX", &self.prefix),
            // Longer than a busy machine takes, so that only a fault is an outage.
            ("MEMCACHE_TIMEOUT", "500ms"),
            ("SESSION_STORE", "cookie"),
            ("RUST_LOG", "error"),
        ];
        let program = Program::start(command(self.folder.path(), &settings));
        program.address().clone_into(&mut self.addresses[process].write().unwrap());
        *self.programs[process].lock().unwrap() = Some(program);
    }

    fn address(&self, process: usize) -> String {
        self.addresses[process].read().unwrap().clone()
    }

    /// Adds a task, or deletes one when there are enough.
    fn write(&self, process: usize) {
        let victim = self.checker.take_one(TASKS);
        let (name, write) = match &victim {
            Some(name) => (name.clone(), Write::Delete),
            None => (format!("t{}", self.next_name.fetch_add(1, Ordering::Relaxed)), Write::Add),
        };
        let browser = Browser::new(&self.address(process));
        let path = match write {
            Write::Add => "/".to_owned(),
            Write::Delete => {
                self.checker.delete_begins(&name);
                format!("/{}/delete", self.id_of(&name))
            }
        };
        self.writing.fetch_add(1, Ordering::SeqCst);
        self.journal.note(|| format!("process {process}: {write:?} {name}"));
        let begun = SystemTime::now();
        let reply = browser.try_post_form(&path, &[("name", &name)]);
        let status = reply.map(|reply| reply.status);
        let answered = Instant::now();
        self.writing.fetch_sub(1, Ordering::SeqCst);
        // Whatever is not answered the database knows.
        let is_there = match status {
            Some(303) => write == Write::Add,
            _ => self.id_in_database(&name).is_some(),
        };
        let certain_from = self.certain_from(begun, answered);
        let grace = self.checker.is_known(&name, is_there, certain_from);
        self.journal.note(|| format!("process {process}: {write:?} {name}: {status:?}, {grace:?}"));
    }

    fn id_of(&self, name: &str) -> i64 {
        self.id_in_database(name).unwrap_or(i64::MAX)
    }

    /// From when on it is certain that what writes since then made wrong is gone from the cache. If
    /// their rows go before anybody else may take them for left and replay them, it was when they were
    /// answered; if they go later, when that is seen.
    fn certain_from(&self, begun: SystemTime, answered: Instant) -> Option<Instant> {
        use diesel::{dsl::sql, prelude::*, sql_types::BigInt};

        let since = begun.duration_since(UNIX_EPOCH).unwrap().as_millis();
        let mut database = self.database();
        // The database's clock is rounded.
        let mut left = |and: &str| -> i64 {
            let rows = format!(
                "(SELECT COUNT(*) FROM cache_invalidations WHERE created_at >= {since} - 1 {and})"
            );
            diesel::select(sql::<BigInt>(&rows)).first(&mut database).unwrap()
        };
        let until = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        loop {
            let left = left(&format!("AND created_at <= {until}"));
            // Looked at after the rows, for this thread may be held up in between.
            let is_over = begun.elapsed().unwrap() + Duration::from_millis(50) >= REPLAY_AGE;
            match left {
                0 if is_over => return Some(Instant::now()),
                0 => return Some(answered),
                _ if is_over => return None,
                _ => thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// The keys of each row of the ledger, and how old it is in milliseconds.
    fn ledger(&self) -> String {
        use diesel::{prelude::*, sql_types::Text};

        #[derive(QueryableByName)]
        struct Left {
            #[diesel(sql_type = Text)]
            row: String,
        }

        let query = "SELECT keys || ' ' || CAST((julianday('now') - 2440587.5) * 86400000 - \
                     created_at AS INTEGER) AS row FROM cache_invalidations";
        let rows = diesel::sql_query(query).load::<Left>(&mut self.database()).unwrap();
        rows.into_iter().map(|left| left.row.replace('\n', ", ")).collect::<Vec<_>>().join("; ")
    }

    fn database(&self) -> diesel::SqliteConnection {
        use diesel::prelude::*;

        let mut conn = SqliteConnection::establish(&self.url).unwrap();
        diesel::sql_query("PRAGMA busy_timeout = 5000").execute(&mut conn).unwrap();
        conn
    }

    fn id_in_database(&self, name: &str) -> Option<i64> {
        use diesel::prelude::*;

        diesel::table! { task (id) { id -> BigInt, name -> Text, } }
        let found = task::table.filter(task::name.eq(name)).select(task::id);
        found.first(&mut self.database()).optional().unwrap()
    }

    /// Reads until it is over.
    fn read(&self, mut process: usize) {
        let mut seen = VecDeque::new();
        while !self.is_over.load(Ordering::Relaxed) {
            process = (process + 1) % PROCESSES;
            let browser = Browser::new(&self.address(process));
            for _ in 0..50 {
                let asked = Instant::now();
                let Some(page) = browser.try_get("/") else { break };
                assert_eq!(page.status, 200, "{}", page.body);
                let names = page.task_names().into_iter().map(str::to_owned).collect();
                seen.push_back(Seen { process, asked, received: Instant::now(), names });
                self.reads.fetch_add(1, Ordering::Relaxed);
            }
            let is_ripe = |page: &Seen| page.asked.elapsed() > JUDGED_AFTER;
            while let Some(page) = seen.front().filter(|page| is_ripe(page)) {
                self.judge(page);
                seen.pop_front();
            }
        }
        thread::sleep(JUDGED_AFTER);
        for page in &seen {
            self.judge(page);
        }
    }

    fn judge(&self, page: &Seen) {
        if let Some(what) = self.checker.staleness(page) {
            self.stale.fetch_add(1, Ordering::Relaxed);
            let (process, left, ago) = (page.process, self.ledger(), page.asked.elapsed());
            self.journal
                .incident(&format!("process {process}: {what}, {ago:?} ago; ledger: {left}"));
        }
    }

    fn write_until_over(&self, writer: usize) {
        let mut rng = StdRng::seed_from_u64(writer as u64);
        while !self.is_over.load(Ordering::Relaxed) {
            let gate = self.gate.read().unwrap();
            self.write(rng.random_range(0..PROCESSES));
            drop(gate);
            thread::sleep(Duration::from_millis(rng.random_range(0..30)));
        }
    }

    /// Makes a fault; whether a write was in flight when it began.
    fn make(&self, fault: Fault, rng: &mut StdRng) -> bool {
        if let Fault::Kill(step) = fault {
            return self.kill(step, rng);
        }
        let server = rng.random_range(0..self.proxies.len());
        self.wait_for_a_write();
        self.checker.fault_begins();
        let in_flight = self.writing.load(Ordering::SeqCst) > 0;
        let a_while = Duration::from_millis(rng.random_range(20..1500));
        self.journal.note(|| format!("server {server}: {fault:?}"));
        match fault {
            Fault::Restart => self.memcached[server].lock().unwrap().restart(),
            Fault::Hang => {
                self.memcached[server].lock().unwrap().signal("STOP");
                thread::sleep(a_while);
                self.memcached[server].lock().unwrap().signal("CONT");
            }
            Fault::Cut => self.proxies[server].cut(),
            Fault::Delay => {
                self.proxies[server].make(Trouble::Delay(Duration::from_millis(400)));
                thread::sleep(a_while);
                self.proxies[server].make(Trouble::None);
            }
            Fault::Garble => {
                self.proxies[server].make(Trouble::Garble);
                thread::sleep(a_while);
                self.proxies[server].make(Trouble::None);
            }
            Fault::Kill(_) => {}
        }
        self.journal.note(|| format!("server {server}: {fault:?} is over"));
        self.checker.fault_ends();
        in_flight
    }

    /// Most of the time there is one soon.
    fn wait_for_a_write(&self) {
        let begun = Instant::now();
        while self.writing.load(Ordering::SeqCst) == 0 && begun.elapsed() < Duration::from_secs(1) {
            std::hint::spin_loop();
        }
    }

    /// Whether it was in the middle of a write.
    fn kill(&self, step: usize, rng: &mut StdRng) -> bool {
        let _alone = self.gate.write().unwrap();
        let process = rng.random_range(0..PROCESSES);
        let (announce, announced) = mpsc::channel();
        if step > 0 {
            // Also for the other process, whose deletes are held as well.
            self.checker.fault_begins();
            self.proxies.iter().for_each(|proxy| proxy.hold_deletes(announce.clone()));
        }
        let in_flight = thread::scope(|scope| {
            let writing = scope.spawn(|| self.write(process));
            if step == 0 {
                self.wait_for_a_write();
                thread::sleep(Duration::from_micros(rng.random_range(0..3000)));
            }
            let mut held = None;
            for number in 1..=step {
                // A write that is nothing but a look has no deletes.
                let Ok(decide) = announced.recv_timeout(Duration::from_secs(2)) else { break };
                if number < step {
                    decide.send(true).unwrap();
                } else {
                    held = Some(decide);
                }
            }
            let in_flight = self.writing.load(Ordering::SeqCst) > 0;
            drop(self.programs[process].lock().unwrap().take());
            self.journal.note(|| format!("process {process}: killed at {step}"));
            self.proxies.iter().for_each(Proxy::release_deletes);
            if let Some(decide) = held {
                let _ = decide.send(false);
            }
            drop(announced);
            writing.join().unwrap();
            in_flight
        });
        if step > 0 {
            self.checker.fault_ends();
        }
        self.start(process);
        // It begins by replaying all that is left, however young: not the rows of the next writes.
        thread::sleep(REPLAY_AGE);
        self.journal.note(|| format!("process {process}: started"));
        in_flight
    }
}

/// A prefix with which the query and the page are on one server, or on two.
fn prefix(proxies: &[Proxy], on_one: bool) -> String {
    let servers = proxies.iter().map(|proxy| proxy.address.to_string().parse().unwrap()).collect();
    let client = Client::new(Config::new(servers));
    let on = |prefix: &str, key: &str| client.server_of(format!("{prefix}{key}")).unwrap().clone();
    let mut prefixes = (0..1000).map(|n| format!("s{n}:"));
    let is_on_one = |prefix: &str| on(prefix, "tasks.all") == on(prefix, "view//");
    prefixes.find(|prefix| is_on_one(prefix) == on_one).unwrap()
}

fn setting(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Faults of the short form, and of "commit, then delete".
const SHORT: u64 = 24;
const FEW: u64 = 5_000;

fn run(way: Way) -> Report {
    let faults = setting("STALENESS_FAULTS", SHORT);
    let reads = setting("STALENESS_READS", FEW);
    let (faults, reads) = match way {
        // Ours are half and half.
        Way::OnTwoServers | Way::OnOneServer => (faults / 2, reads / 2),
        Way::CommitThenDelete => (faults.min(SHORT), FEW),
    };
    let number = usize::try_from(faults).unwrap();
    let mut rng = StdRng::seed_from_u64(setting("STALENESS_SEED", 1));
    let world = World::new(way);
    let mut faults: Vec<_> = FAULTS.into_iter().cycle().take(number).collect();
    faults.shuffle(&mut rng);
    let (mut made, mut in_flight) = (BTreeMap::new(), 0);
    thread::scope(|scope| {
        for reader in 0..READERS {
            let world = &world;
            scope.spawn(move || world.read(reader));
        }
        for writer in 0..WRITERS {
            let world = &world;
            scope.spawn(move || world.write_until_over(writer));
        }
        for fault in faults {
            in_flight += usize::from(world.make(fault, &mut rng));
            *made.entry(fault).or_insert(0) += 1;
            // Time for pages to be cached again, and then to be stale.
            thread::sleep(Duration::from_millis(rng.random_range(200..1000)));
        }
        while world.reads.load(Ordering::Relaxed) < reads {
            thread::sleep(Duration::from_millis(10));
        }
        world.is_over.store(true, Ordering::Relaxed);
    });
    Report {
        reads: world.reads.load(Ordering::Relaxed),
        stale: world.stale.load(Ordering::Relaxed),
        writes: world.next_name.load(Ordering::Relaxed),
        strict: world.checker.strict_writes(),
        faults: made,
        in_flight,
        journal: world.journal.of_incidents(),
    }
}

fn print(what: &str, report: &Report) {
    println!(
        "{what}: {} stale of {} reads ({} per million), {} tasks added, {} \
         writes without any grace, {} faults, {} of them while a write was in flight: {:?}",
        report.stale,
        report.reads,
        report.stale * 1_000_000 / report.reads.max(1),
        report.writes,
        report.strict,
        report.faults.values().sum::<usize>(),
        report.in_flight,
        report.faults,
    );
}

#[test]
fn no_page_is_stale_whatever_breaks_and_commit_then_delete_would_show_some() {
    let ours = [run(Way::OnTwoServers), run(Way::OnOneServer)];
    print("leases and a ledger, two servers", &ours[0]);
    print("leases and a ledger, one server", &ours[1]);
    let naive = run(Way::CommitThenDelete);
    print("commit, then delete", &naive);
    for ours in ours {
        assert_eq!(ours.stale, 0, "{}", ours.journal);
        assert!(ours.in_flight * 2 >= ours.faults.values().sum::<usize>());
        assert!(ours.strict * 2 >= ours.writes, "most writes had a second's grace");
    }
    assert!(naive.stale > 0, "the checker would have found nothing");
}
