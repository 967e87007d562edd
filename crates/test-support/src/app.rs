//! Starts the app, in this process or as a program of its own, each time with its own database.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use diesel::{Connection, connection::SimpleConnection};
use tasklist::{app::Application, config::Config, db::Db};
use tempfile::TempDir;
use tokio::sync::oneshot;
use ureq::{
    Agent,
    http::{HeaderMap, Request},
};

pub const SECRET_KEY: &str = "a key for tests, as long as it needs to be";

/// What the settings of tests hold that nobody must see, by what it is for.
pub const SECRETS: [(&str, &str); 7] = [
    ("short", "hunter2-hunter2"),
    ("database", "hunter2"),
    ("key", SECRET_KEY),
    ("previous", "the key of yesterday, no less long than today's"),
    ("token", "a token that opens the figures"),
    ("memcached", "correct-horse"),
    ("refused", "a password that no server knows"),
];

pub fn secret(of: &str) -> &'static str {
    SECRETS.iter().find(|(name, _)| *name == of).unwrap().1
}

/// Of whatever a test gets to see: pages, headers, output, logs.
pub fn assert_no_secret(text: &str) {
    for (of, secret) in SECRETS {
        assert!(!text.contains(secret), "the secret “{of}” is in: {text}");
    }
}

fn has_secret(text: &str) -> bool {
    SECRETS.iter().any(|(_, secret)| text.contains(secret))
}

/// Ends the tests when the app, in this process, logs a secret at any level.
struct Guard;

impl log::Log for Guard {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}", record.target(), record.args());
        // The visitor, who is in this process too, may log what he likes.
        let is_visitors = record.target().starts_with("ureq");
        if !is_visitors && has_secret(&line) {
            eprintln!("a secret was logged: {line}");
            std::process::abort();
        }
    }

    fn flush(&self) {}
}

/// How long a condition may take before the test says that it will not come true.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` is true.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Makes each named test once per database that is built in, and gives it the app on an own one.
macro_rules! on_every_database {
    ($($test:ident),+ $(,)?) => {
        $crate::support::on_every_database_by!(|d| &$crate::support::TestApp::on(d); $($test),+);
    };
}
pub(crate) use on_every_database;

/// Likewise, and gives it the empty database.
macro_rules! on_every_database_url {
    ($($test:ident),+ $(,)?) => {
        $crate::support::on_every_database_by!(|d| &d; $($test),+);
    };
}
pub(crate) use on_every_database_url;

macro_rules! on_every_database_by {
    (|$database:ident| $argument:expr; $($test:ident),+) => {
        #[cfg(feature = "sqlite")]
        mod sqlite {
            $(#[test]
            fn $test() {
                let $database = $crate::support::TestDatabase::sqlite();
                super::$test($argument);
            })+
        }
        #[cfg(feature = "postgres")]
        mod postgres {
            $(#[test]
            fn $test() {
                let $database = $crate::support::TestDatabase::postgres();
                super::$test($argument);
            })+
        }
        #[cfg(feature = "mysql")]
        mod mysql {
            $(#[test]
            fn $test() {
                let $database = $crate::support::TestDatabase::mysql();
                super::$test($argument);
            })+
        }
    };
}
pub(crate) use on_every_database_by;

/// The app in this process, on a free port. It stops when this is dropped.
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

    /// With settings besides.
    pub fn with(database: TestDatabase, settings: &[(&str, &str)]) -> Self {
        let mut all = vec![
            ("PORT", "0"),
            ("HOST", "127.0.0.1"),
            ("DATABASE_URL", database.url.as_str()),
            ("DATABASE_POOL_SIZE", "4"),
            ("SECRET_KEY", SECRET_KEY),
            ("WEB_CONCURRENCY", "2"),
            // No pause of a busy machine is an outage.
            ("MEMCACHE_TIMEOUT", "10s"),
            ("MEMCACHE_CONNECT_TIMEOUT", "10s"),
        ];
        all.extend(settings);
        let config = Config::from_environment(&all.into_iter().collect()).unwrap();
        Db::new(&config.database).migrate().unwrap();
        // Once is enough.
        if log::set_logger(&Guard).is_ok() {
            log::set_max_level(log::LevelFilter::Trace);
        }
        let (stop, stopped) = oneshot::channel();
        let (say_port, port) = mpsc::channel();
        thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let until_dropped = async { drop(stopped.await) };
                let app = Application::build(config, until_dropped).unwrap();
                say_port.send(app.port().unwrap()).unwrap();
                app.run().await.unwrap();
            });
        });
        Self { port: port.recv().unwrap(), database, _stop: stop }
    }

    pub fn browser(&self) -> Browser {
        Browser::new(&format!("http://127.0.0.1:{}", self.port))
    }

    /// Waits until all invalidations are confirmed and their rows are gone: from then on nothing is
    /// deleted from the cache until the next write.
    pub fn settle(&self) {
        wait_until("all is confirmed", || {
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

/// A database of a test's own, empty.
pub struct TestDatabase {
    pub url: String,
    _folder: Option<TempDir>,
}

impl TestDatabase {
    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/tasks.sqlite3", folder.path().display());
        Self { url, _folder: Some(folder) }
    }

    /// One that is somebody else's to remove.
    pub fn at(url: &str) -> Self {
        Self { url: url.to_owned(), _folder: None }
    }

    /// On the server that `bin/test` started.
    #[cfg(feature = "postgres")]
    pub fn postgres() -> Self {
        use diesel::PgConnection;

        let server = server("TEST_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432");
        let name = format!("tasklist_{}", unique());
        PgConnection::establish(&format!("{server}/postgres"))
            .unwrap()
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .unwrap();
        Self { url: format!("{server}/{name}"), _folder: None }
    }

    /// Likewise, on MySQL or MariaDB, with a name such as PythonAnywhere gives.
    #[cfg(feature = "mysql")]
    pub fn mysql() -> Self {
        use diesel::MysqlConnection;

        let server = server("TEST_MYSQL_URL", "mysql://root@127.0.0.1:3306");
        let name = format!("tasklist${}", unique());
        MysqlConnection::establish(&server)
            .unwrap()
            .batch_execute(&format!("CREATE DATABASE `{name}`"))
            .unwrap();
        let (place, options) = server.split_once('?').unwrap_or((&server, ""));
        Self { url: format!("{place}/{name}?{options}"), _folder: None }
    }

    /// The name of its folder below `migrations/`.
    pub fn kind(&self) -> &str {
        self.url.split(':').next().unwrap()
    }

    /// Locks out every write until the returned connection is dropped.
    pub fn lock(&self) -> Box<dyn std::any::Any> {
        let lock = match self.kind() {
            "postgres" => "BEGIN; LOCK TABLE task IN EXCLUSIVE MODE",
            "mysql" => "LOCK TABLES task READ",
            _ => "BEGIN IMMEDIATE",
        };
        self.execute(lock)
    }

    /// A connection that waits for the locks of others, as the app's do. An app that has been
    /// stopped may still be writing.
    #[cfg(feature = "sqlite")]
    fn open_sqlite(&self) -> diesel::SqliteConnection {
        let mut conn = diesel::SqliteConnection::establish(&self.url).unwrap();
        conn.batch_execute("PRAGMA busy_timeout = 5000").unwrap();
        conn
    }

    /// On SQLite, asked behind the app's back.
    #[cfg(feature = "sqlite")]
    pub fn number_of_tasks(&self) -> usize {
        use diesel::{RunQueryDsl, dsl::sql, select, sql_types::BigInt};

        let mut conn = self.open_sqlite();
        let count = select(sql::<BigInt>("(SELECT COUNT(*) FROM task)"));
        usize::try_from(count.get_result::<i64>(&mut conn).unwrap()).unwrap()
    }

    /// What SQLite finds wrong with the file: `ok`, or a list.
    #[cfg(feature = "sqlite")]
    pub fn integrity(&self) -> String {
        use diesel::{QueryableByName, RunQueryDsl, sql_query, sql_types::Text};

        #[derive(QueryableByName)]
        struct Found {
            #[diesel(sql_type = Text)]
            integrity_check: String,
        }
        let mut conn = self.open_sqlite();
        let found = sql_query("PRAGMA integrity_check").load::<Found>(&mut conn).unwrap();
        found.into_iter().map(|found| found.integrity_check).collect()
    }

    /// Ends all connections to it, as a server does with those that idle.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub fn end_connections(&self) {
        #[cfg(feature = "postgres")]
        if self.kind() == "postgres" {
            self.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid()",
            );
        }
        #[cfg(feature = "mysql")]
        if self.kind() == "mysql" {
            self.execute(
                // One may end by itself meanwhile (1094: there is no such thread).
                "BEGIN NOT ATOMIC DECLARE CONTINUE HANDLER FOR 1094 BEGIN END; \
                 FOR other IN (SELECT id FROM information_schema.processlist \
                 WHERE db = DATABASE() AND id <> CONNECTION_ID()) \
                 DO KILL other.id; END FOR; END",
            );
        }
    }

    /// The socket of the file system on which its server listens.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub fn socket(&self) -> std::path::PathBuf {
        let socket = if self.kind() == "mysql" {
            self.url.split_once("unix_socket=").unwrap().1.to_owned()
        } else {
            format!("{}/.s.PGSQL.5432", self.url.split(['@', '/']).nth(3).unwrap())
        };
        socket.replace("%2F", "/").into()
    }

    /// The same database, behind something that listens on a port.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub fn at_port(&self, port: u16) -> String {
        let (place, _) = self.url.split_once('?').unwrap_or((&self.url, ""));
        let (_, name) = place.rsplit_once('/').unwrap();
        let user = if self.kind() == "mysql" { "root" } else { "postgres" };
        format!("{}://{user}@127.0.0.1:{port}/{name}", self.kind())
    }

    /// Runs SQL behind the app's back, on a connection of its own that ends when it is dropped.
    pub fn execute(&self, sql: &str) -> Box<dyn std::any::Any> {
        fn run(mut conn: impl Connection + 'static, sql: &str) -> Box<dyn std::any::Any> {
            conn.batch_execute(sql).unwrap();
            Box::new(conn)
        }
        match self.kind() {
            #[cfg(feature = "postgres")]
            "postgres" => run(diesel::PgConnection::establish(&self.url).unwrap(), sql),
            #[cfg(feature = "mysql")]
            "mysql" => run(diesel::MysqlConnection::establish(&self.url).unwrap(), sql),
            #[cfg(feature = "sqlite")]
            "sqlite" => run(self.open_sqlite(), sql),
            other => panic!("no database for {other}"),
        }
    }
}

/// The URL of a server that `bin/test` starts.
#[cfg(any(feature = "postgres", feature = "mysql"))]
fn server(variable: &str, example: &str) -> String {
    let advice = format!("{variable} names no server, such as {example}; bin/test starts one");
    std::env::var(variable).expect(&advice)
}

/// A part of a name that nobody else has.
#[cfg(any(feature = "postgres", feature = "mysql"))]
fn unique() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};

    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A visitor with cookies, who follows no redirect.
pub struct Browser {
    agent: Agent,
    base: String,
}

/// An answer, read whole.
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Reply {
    /// A header's value; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// What sets the cookie `name`; empty if nothing does.
    pub fn cookie(&self, name: &str) -> &str {
        let cookies = self.headers.get_all("set-cookie").iter();
        let mut cookies = cookies.map(|value| value.to_str().unwrap());
        cookies.find(|cookie| cookie.split('=').next() == Some(name)).unwrap_or_default()
    }

    /// The names on the page, as escaped there.
    pub fn task_names(&self) -> Vec<&str> {
        between(&self.body, r#"class="task-name""#, "</span>")
            .map(|rest| rest.split_once('>').unwrap().1)
            .collect()
    }

    /// The ids that the delete buttons send.
    pub fn task_ids(&self) -> Vec<&str> {
        between(&self.body, r#"action="/"#, "/delete").filter(|id| !id.contains('"')).collect()
    }

    /// The texts of the flash messages.
    pub fn flashes(&self) -> Vec<String> {
        between(&self.body, r#"<p class="flash"#, "</p>")
            .map(|rest| rest.split_once('>').unwrap().1)
            .map(|text| text.replace("<bdi>", "").replace("</bdi>", ""))
            .collect()
    }
}

fn between<'a>(text: &'a str, start: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(start).skip(1).filter_map(move |rest| rest.split_once(end).map(|(found, _)| found))
}

impl Browser {
    pub fn new(base: &str) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(PATIENCE))
            .allow_non_standard_methods(true)
            .build()
            .new_agent();
        Self { agent, base: base.to_owned() }
    }

    pub fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], "")
    }

    pub fn post(&self, path: &str) -> Reply {
        self.send("POST", path, &[], "")
    }

    pub fn post_form(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        self.post_body(path, &serde_urlencoded::to_string(fields).unwrap())
    }

    /// The status, if the server lives long enough to answer.
    pub fn try_post_form(&self, path: &str, fields: &[(&str, &str)]) -> Option<u16> {
        let request = self.agent.post(format!("{}{path}", self.base));
        let reply = request.send_form(fields.iter().copied()).ok()?;
        Some(reply.status().as_u16())
    }

    pub fn post_body(&self, path: &str, body: &str) -> Reply {
        self.send("POST", path, &[("content-type", "application/x-www-form-urlencoded")], body)
    }

    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let reply = if body.is_empty() && method != "POST" {
            self.agent.run(request.body(()).unwrap())
        } else {
            self.agent.run(request.body(body).unwrap())
        };
        let mut reply = reply.unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        let body = reply.body_mut().read_to_string().unwrap();
        assert_no_secret(&format!("{:?} {body}", reply.headers()));
        Reply { status: reply.status().as_u16(), headers: reply.headers().clone(), body }
    }
}

/// The app as a program of its own, in an empty folder. It is killed when this is dropped.
pub struct Program {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: mpsc::Receiver<String>,
    /// What it prints when it has started.
    pub summary: String,
}

/// The program with nothing in its environment but `settings`.
pub fn command(folder: &Path, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tasklist"));
    command.current_dir(folder).env_clear().envs(settings.iter().copied());
    command
}

impl Program {
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = collect(child.stderr.take().unwrap());
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut summary = String::new();
        stdout.read_line(&mut summary).unwrap();
        let mut program = Self { child, stdout, stderr, summary };
        let started = !program.summary.is_empty();
        assert!(started, "the program did not start: {}", program.wait().1);
        program
    }

    /// `http://host:port`, from what it printed.
    pub fn address(&self) -> &str {
        self.summary.split_whitespace().find(|word| word.starts_with("http://")).unwrap()
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address()["http://".len()..]).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// Waits for its end; returns how it ended, and all that it wrote to standard error and then
    /// to standard output.
    pub fn wait(&mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        let mut output = self.stderr.recv_timeout(PATIENCE).unwrap();
        self.stdout.read_to_string(&mut output).unwrap();
        assert_no_secret(&format!("{}{output}", self.summary));
        (status, output)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let output = self.stderr.recv_timeout(PATIENCE).unwrap_or_default();
        if !thread::panicking() {
            assert_no_secret(&output);
        }
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        pipe.read_to_end(&mut text).unwrap();
        sender.send(String::from_utf8_lossy(&text).into_owned())
    });
    receiver
}

/// Writes a request and reads one whole answer from a connection that stays open.
pub fn exchange(stream: &mut BufReader<TcpStream>, request: &str) -> std::io::Result<RawReply> {
    stream.get_mut().write_all(request.as_bytes())?;
    RawReply::read(stream)
}

/// An answer as it came over the wire.
#[derive(Debug)]
pub struct RawReply {
    pub head: String,
}

impl RawReply {
    pub fn read(stream: &mut BufReader<TcpStream>) -> std::io::Result<Self> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        let head = head.to_ascii_lowercase();
        let length = head
            .split_once("content-length: ")
            .map_or(0, |(_, rest)| rest.split_once("\r\n").unwrap().0.parse().unwrap());
        stream.read_exact(&mut vec![0; length])?;
        Ok(Self { head })
    }

    pub fn closes(&self) -> bool {
        self.head.contains("connection: close")
    }
}
