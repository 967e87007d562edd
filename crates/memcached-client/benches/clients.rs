//! Compares this client with others, which take turns with one memcached server:
//!
//! ```sh
//! cargo bench -p memcached-client --features text
//! ```
//!
//! Clients run on one core, as one worker of a server, and memcached on another: otherwise the scheduler moves them,
//! which changes the figures of one operation in flight by a tenth from turn to turn. Where that is not possible,
//! a line says so. `memcache` is blocking and gets one thread per operation in flight. Clients that cannot share a
//! connection get one per operation in flight. pylibmc is included if `/usr/bin/python3` can import it, gomemcache if
//! Go and Debian's package of it are there.
//!
//! The congestion control of TCP is Linux's default, or that of the variable `CONGESTION_CONTROL`: BBR sends the bytes of
//! each connection at a pace, which on one machine is slower than the machine. Where it is another one, the program
//! runs in a network of its own, as root; otherwise a line says so.
//!
//! The variable TURNS is the number of turns per client (default 5), MILLISECONDS the length of a turn
//! (default 400). The figures are medians; on a busy machine only their ratios are meaningful. BYTES, JOBS and
//! CLIENTS select some of them: `BYTES=30,300 JOBS=1,8 CLIENTS=binary,async` measures values of 30 and 300 bytes, 1
//! and 8 in flight, with the clients whose name has one of the words.

#![allow(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unwrap_used
)]

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitStatus},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_memcached::AsciiProtocol;
use memcached_client::{Client, Protocol};
use test_support::memcached::{Kind, Memcached, keep_on_core};
use tokio::{io::BufWriter, net::TcpStream, runtime::Runtime, task::JoinSet, time::timeout};

/// Keys of a batch.
const KEYS: usize = 30;

/// The time-out of an operation, so that a dead server is noticed. The other asynchronous clients have none, and get
/// tokio's for gets of one key.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Keys that are stored, so that operations in flight ask for different ones: this client would send
/// concurrent gets of one key only once. Of large values, as many as fit into memcached.
fn stored_keys(size: usize) -> usize {
    if size > 20_000 { 2 * KEYS } else { 20 * KEYS }
}

const CLIENTS: [&str; 8] = [
    "this crate, binary",
    "this crate, meta",
    "this crate, text",
    "memcache-async",
    "async-memcached",
    "memcache (blocking)",
    "gomemcache",
    "pylibmc",
];

/// A workload.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Job {
    /// Gets of one key, with this number in flight.
    Gets(usize),
    /// Batches of [`KEYS`] keys, with one in flight.
    Batch,
}

fn main() {
    set_congestion_control();
    let turns: usize = setting("TURNS", 5);
    let turn = Duration::from_millis(setting("MILLISECONDS", 400));
    let server = Memcached::start(Kind::Plain);
    let address = server.address().to_string();
    if !(server.keep_on_core(1) && keep_on_core(std::process::id(), 0)) {
        println!("client and server share all cores");
    }
    for size in [30, 300, 10_000, 500_000] {
        if !is_selected("BYTES", |word| word == size.to_string()) {
            continue;
        }
        fill(&server, size);
        println!("\nvalues of {size} bytes; operations per second (of the first)");
        let jobs = [Job::Gets(1), Job::Gets(8), Job::Gets(64), Job::Gets(512), Job::Batch];
        let names = ["1 in flight", "8", "64", "512", "30 keys"];
        println!("{:22}{}", "", names.map(|name| format!("{name:>18}")).concat());
        let keys = Keys::of(size);
        let mut figures: BTreeMap<(usize, Job), Vec<f64>> = BTreeMap::new();
        for (job, title) in jobs.into_iter().zip(names) {
            if !is_selected("JOBS", |word| title.split(' ').next() == Some(word)) {
                continue;
            }
            for _ in 0..turns {
                for (number, name) in CLIENTS.iter().enumerate() {
                    if !is_selected("CLIENTS", |word| name.contains(word)) {
                        continue;
                    }
                    if let Some(figure) = measure(number, job, &address, &keys, turn) {
                        figures.entry((number, job)).or_default().push(figure);
                    }
                }
            }
        }
        for (number, name) in CLIENTS.iter().enumerate() {
            let columns = jobs.map(|job| column(&mut figures, number, job));
            println!("{name:22}{}", columns.concat());
        }
    }
    println!();
    allocations(&server);
}

/// Runs this program in a network of its own if the congestion control is not the one that is wanted.
fn set_congestion_control() {
    const FILE: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
    let wanted = setting("CONGESTION_CONTROL", "cubic".to_owned());
    let Ok(congestion_control) = fs::read_to_string(FILE) else { return };
    if congestion_control.trim() == wanted {
        return;
    }
    let enter = format!("ip link set lo up && echo {wanted} >{FILE} && exec \"$@\"");
    let in_network = |program: &str| {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", &enter, "sh", program]).args(env::args().skip(1));
        command
    };
    if in_network("true").output().is_ok_and(|output| output.status.success()) {
        let problem = in_network(&env::args().next().unwrap()).exec();
        println!("cannot run in a network of its own: {problem}");
    }
    println!("the congestion control is {}", congestion_control.trim());
}

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Returns whether the list in a variable has a word that matches. Without the variable, all is selected.
fn is_selected(variable: &str, matches: impl Fn(&str) -> bool) -> bool {
    env::var(variable).map_or(true, |list| list.split(',').any(matches))
}

fn column(figures: &mut BTreeMap<(usize, Job), Vec<f64>>, number: usize, job: Job) -> String {
    let first = figures.get_mut(&(0, job)).map_or(f64::NAN, |turns| median(turns));
    match figures.get_mut(&(number, job)) {
        Some(turns) => {
            let figure = median(turns);
            format!("{:>18}", format!("{figure:.0} ({:.2})", figure / first))
        }
        None => format!("{:>18}", "-"),
    }
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn key(n: usize) -> String {
    format!("key{n}")
}

/// The stored keys, which all operations ask for in turn.
#[derive(Clone)]
struct Keys(Arc<(Vec<String>, AtomicUsize)>);

impl Keys {
    fn of(size: usize) -> Self {
        Self(Arc::new(((0..stored_keys(size)).map(key).collect(), AtomicUsize::new(0))))
    }

    fn next(&self) -> &str {
        let (keys, next) = &*self.0;
        &keys[next.fetch_add(1, Ordering::Relaxed) % keys.len()]
    }
}

fn fill(server: &Memcached, size: usize) {
    runtime().block_on(async {
        let client = server.client(Protocol::Binary);
        client.flush().await;
        for n in 0..stored_keys(size) {
            client.set(key(n), &vec![b'x'; size]).await.unwrap();
        }
    });
}

/// Returns the operations per second, or `None` if the client cannot run the job.
fn measure(client: usize, job: Job, address: &str, keys: &Keys, turn: Duration) -> Option<f64> {
    let (begun, done) = match client {
        0 => ours(Protocol::Binary, job, address, keys, turn),
        1 => ours(Protocol::Meta, job, address, keys, turn),
        2 => ours(Protocol::Text, job, address, keys, turn),
        3 => memcache_async(job, address, keys, turn),
        4 => async_memcached(job, address, keys, turn),
        // It has a connection and a thread for each operation in flight.
        5 if job == Job::Gets(512) => return None,
        5 => memcache_blocking(job, address, keys, turn),
        6 => return gomemcache(job, address, keys, turn),
        _ => return pylibmc(job, address, turn),
    };
    Some(done as f64 / begun.elapsed().as_secs_f64())
}

/// Runs tasks for one turn. Returns its start and the number of operations.
fn run<F: Future<Output = u64> + 'static>(
    job: Job,
    turn: Duration,
    task: impl Fn(Instant) -> F,
) -> (Instant, u64) {
    let in_flight = if let Job::Gets(number) = job { number } else { 1 };
    let runtime = runtime();
    let begun = Instant::now();
    let done = tokio::task::LocalSet::new().block_on(&runtime, async {
        let mut tasks = JoinSet::new();
        for _ in 0..in_flight {
            tasks.spawn_local(task(begun + turn));
        }
        tasks.join_all().await.into_iter().sum()
    });
    (begun, done)
}

fn ours(
    protocol: Protocol,
    job: Job,
    address: &str,
    stored: &Keys,
    turn: Duration,
) -> (Instant, u64) {
    let mut config = memcached_client::Config::new(vec![address.parse().unwrap()]);
    config.protocol = protocol;
    config.timeout = TIMEOUT;
    let client = Client::new(config);
    run(job, turn, |end| {
        let (client, stored) = (client.clone(), stored.clone());
        async move {
            let keys: Vec<_> = (0..KEYS).map(key).collect();
            let mut done = 0;
            while Instant::now() < end {
                if job == Job::Batch {
                    assert!(client.get_many(&keys).await.iter().all(Result::is_ok));
                } else {
                    assert!(client.get(stored.next()).await.unwrap().is_some());
                }
                done += 1;
            }
            done
        }
    })
}

fn memcache_async(job: Job, address: &str, stored: &Keys, turn: Duration) -> (Instant, u64) {
    run(job, turn, |end| {
        let (address, stored) = (address.to_owned(), stored.clone());
        async move {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut client = memcache_async::ascii::Protocol::new(BufWriter::new(stream));
            let keys: Vec<_> = (0..KEYS).map(key).collect();
            let mut done = 0;
            while Instant::now() < end {
                if job == Job::Batch {
                    assert_eq!(client.get_multi(&keys).await.unwrap().len(), KEYS);
                } else {
                    timeout(TIMEOUT, client.get(stored.next())).await.unwrap().unwrap();
                }
                done += 1;
            }
            done
        }
    })
}

fn async_memcached(job: Job, address: &str, stored: &Keys, turn: Duration) -> (Instant, u64) {
    run(job, turn, |end| {
        let (address, stored) = (format!("tcp://{address}"), stored.clone());
        async move {
            let mut client = async_memcached::Client::new(address).await.unwrap();
            let keys: Vec<_> = (0..KEYS).map(key).collect();
            let mut done = 0;
            while Instant::now() < end {
                if job == Job::Batch {
                    assert_eq!(client.get_multi(&keys).await.unwrap().len(), KEYS);
                } else {
                    let value = timeout(TIMEOUT, client.get(stored.next())).await.unwrap();
                    assert!(value.unwrap().is_some());
                }
                done += 1;
            }
            done
        }
    })
}

fn memcache_blocking(job: Job, address: &str, stored: &Keys, turn: Duration) -> (Instant, u64) {
    let in_flight = if let Job::Gets(number) = job { number } else { 1 };
    let client = memcache::Client::builder()
        .add_server(format!("memcache://{address}?protocol=binary&tcp_nodelay=true"))
        .unwrap()
        .with_max_pool_size(u32::try_from(in_flight).unwrap())
        .build()
        .unwrap();
    let keys: Vec<_> = (0..KEYS).map(key).collect();
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    let (begun, done) = (Instant::now(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..in_flight {
            scope.spawn(|| {
                while begun.elapsed() < turn {
                    if job == Job::Batch {
                        assert_eq!(client.gets::<Vec<u8>>(&keys).unwrap().len(), KEYS);
                    } else {
                        client.get::<Vec<u8>>(stored.next()).unwrap();
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    (begun, done.into_inner())
}

/// Runs a Go program that counts operations. Each operation in flight has a connection.
fn gomemcache(job: Job, address: &str, stored: &Keys, turn: Duration) -> Option<f64> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/gomemcache.go");
        let program = env::temp_dir().join(format!("gomemcache-{}", std::process::id()));
        // Debian's Go packages are not modules.
        let variables = [("GO111MODULE", "off"), ("GOPATH", "/usr/share/gocode")];
        let mut build = Command::new("go");
        build.arg("build").arg("-o").arg(&program).arg(source).envs(variables);
        build.status().ok().filter(ExitStatus::success).map(|_| program)
    });
    let (in_flight, keys) = match job {
        Job::Gets(in_flight) => (in_flight, 1),
        Job::Batch => (1, KEYS),
    };
    let numbers = [in_flight, keys, stored.0.0.len(), usize::try_from(turn.as_millis()).unwrap()];
    let arguments = numbers.map(|number| number.to_string());
    let output = Command::new(program.as_ref()?).arg(address).args(arguments).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// Runs a Python script that counts operations. pylibmc is blocking and has one connection.
fn pylibmc(job: Job, address: &str, turn: Duration) -> Option<f64> {
    let operation = match job {
        Job::Gets(1) => "client.get('key7')",
        Job::Gets(_) => return None,
        Job::Batch => "client.get_multi(keys)",
    };
    let script = format!(
        "import pylibmc, time\n\
         client = pylibmc.Client(['{address}'], binary=True, behaviors={{'tcp_nodelay': True}})\n\
         keys = ['key%d' % n for n in range({KEYS})]\n\
         begun, done = time.perf_counter(), 0\n\
         while time.perf_counter() - begun < {}:\n    {operation}\n    done += 1\n\
         print(done / (time.perf_counter() - begun))",
        turn.as_secs_f64()
    );
    let output = Command::new("/usr/bin/python3").args(["-c", &script]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// Counts allocations on the thread that calls the client and serves the connection.
fn allocations(server: &Memcached) {
    const GETS: u64 = 10_000;
    let (runtime, client) = (runtime(), server.client(Protocol::Binary));
    runtime.block_on(client.get("key7")).unwrap();
    let counted = allocation_counter::measure(|| {
        runtime.block_on(async {
            for _ in 0..GETS {
                client.get("key7").await.unwrap();
            }
        });
    });
    println!(
        "allocations per get of a hit of 500,000 bytes: {:.2}",
        counted.count_total as f64 / GETS as f64
    );
}
