//! A PostgreSQL or MariaDB server of one test, which it may kill, halt, and fill.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::{database::TestDatabase, wait::wait_until};

/// The kind of a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ServerKind {
    Postgres,
    MariaDb,
}

/// A server with its own data and unix socket. It is killed when the value is dropped.
pub struct DatabaseServer {
    kind: ServerKind,
    folder: TempDir,
    child: Option<Child>,
}

/// The commands of PostgreSQL are not in PATH on Debian.
fn postgres_folder() -> PathBuf {
    let mut versions: Vec<_> = fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is not installed; bin/setup installs it")
        .map(|entry| entry.unwrap().path().join("bin"))
        .collect();
    versions.sort();
    versions.pop().unwrap()
}

impl DatabaseServer {
    /// Starts a server with an empty database `tasks`. No file of it may become larger than
    /// `max_file_kib`, as if the disk were full.
    pub fn start(kind: ServerKind, max_file_kib: Option<u64>) -> Self {
        let mut server = Self { kind, folder: tempfile::tempdir().unwrap(), child: None };
        let data = server.path("data");
        let mut init = match kind {
            ServerKind::Postgres => {
                // The server refuses to run as root.
                if is_root() {
                    let owner = ["postgres", server.folder.path().to_str().unwrap()];
                    run(Command::new("chown").args(owner));
                }
                let mut init = server.command(&postgres_folder().join("initdb"));
                init.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust"]);
                init
            }
            ServerKind::MariaDb => {
                let mut init = server.command(Path::new("mariadb-install-db"));
                init.args(["--no-defaults", "--skip-test-db"]);
                init.arg("--auth-root-authentication-method=normal");
                init.arg(format!("--datadir={}", data.display()));
                init
            }
        };
        run(&mut init);
        server.run(None);
        let name = match kind {
            ServerKind::Postgres => server.url("postgres"),
            ServerKind::MariaDb => server.url("mysql"),
        };
        drop(TestDatabase::at(&name).execute("CREATE DATABASE tasks"));
        if max_file_kib.is_some() {
            server.kill();
            server.run_again(max_file_kib);
        }
        server
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns a command that runs as the user of the server.
    fn command(&self, program: &Path) -> Command {
        let mut command = if self.kind == ServerKind::Postgres && is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// Starts the process, and waits until it accepts connections.
    fn run(&mut self, max_file_kib: Option<u64>) {
        let limit = max_file_kib.map_or_else(|| "unlimited".to_owned(), |kib| kib.to_string());
        let mut command = self.command(Path::new("bash"));
        command.args(["-c", &format!("ulimit -f {limit}; trap '' XFSZ; exec \"$@\""), "bash"]);
        let folder = self.folder.path().display();
        match self.kind {
            ServerKind::Postgres => {
                command.arg(postgres_folder().join("postgres")).arg("-D").arg(self.path("data"));
                command.args(["-k", &folder.to_string(), "-c", "listen_addresses="]);
            }
            ServerKind::MariaDb => {
                command.args(["/usr/sbin/mariadbd", "--no-defaults", "--skip-networking"]);
                command.args(["--innodb-log-file-size=4M", "--innodb-buffer-pool-size=16M"]);
                command.arg(format!("--datadir={folder}/data"));
                command.arg(format!("--socket={folder}/socket"));
                if is_root() {
                    command.arg("--user=root");
                }
            }
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap());
        let is_ready = |server: &Self| {
            let admin = if server.kind == ServerKind::Postgres { "postgres" } else { "mysql" };
            UnixStream::connect(server.socket()).is_ok()
                && TestDatabase::at(&server.url(admin)).is_ready()
        };
        wait_until("the database server accepts connections", || is_ready(self));
    }

    fn socket(&self) -> PathBuf {
        match self.kind {
            ServerKind::Postgres => self.path(".s.PGSQL.5432"),
            ServerKind::MariaDb => self.path("socket"),
        }
    }

    /// Returns the URL of a database of the server.
    pub fn url(&self, name: &str) -> String {
        let folder = self.folder.path().to_str().unwrap().replace('/', "%2F");
        match self.kind {
            ServerKind::Postgres => format!("postgres://postgres@{folder}/{name}"),
            ServerKind::MariaDb => {
                format!("mysql://root@localhost/{name}?unix_socket={folder}%2Fsocket")
            }
        }
    }

    /// Sends a signal to all processes of the server.
    pub fn signal(&self, name: &str) {
        if let Some(child) = &self.child {
            signal(name, &with_descendants(child.id()));
        }
    }

    /// Kills all processes of the server at once, as a crash does.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let processes = with_descendants(child.id());
        signal("KILL", &processes);
        child.wait().unwrap();
        // The next start fails while one of them is left.
        let is_alive = |id: &u32| parent_of(*id).is_some();
        wait_until("the processes have ended", || !processes.iter().any(is_alive));
    }

    /// Starts the server again after it was killed.
    pub fn restart(&mut self) {
        self.run_again(None);
    }

    fn run_again(&mut self, max_file_kib: Option<u64>) {
        // The files of the processes that were killed.
        for file in ["data/postmaster.pid", ".s.PGSQL.5432", ".s.PGSQL.5432.lock", "socket"] {
            let _ = fs::remove_file(self.path(file));
        }
        self.run(max_file_kib);
    }
}

impl Drop for DatabaseServer {
    fn drop(&mut self) {
        self.signal("CONT");
        self.kill();
    }
}

fn signal(name: &str, processes: &[u32]) {
    let ids = processes.iter().map(u32::to_string);
    // It fails for those that have ended.
    let _ = Command::new("kill").arg(format!("-{name}")).args(ids).stderr(Stdio::null()).status();
}

/// Returns the parent of a process; `None` if the process has ended.
fn parent_of(id: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next()? == "Z" { None } else { fields.next()?.parse().ok() }
}

/// Returns a process, its children, and theirs. Servers start their processes in groups of their own.
fn with_descendants(id: u32) -> Vec<u32> {
    let all: Vec<(u32, u32)> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|id| Some((id, parent_of(id)?)))
        .collect();
    let mut found = vec![id];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(all.iter().filter(|(_, of)| *of == parent).map(|(id, _)| *id));
        next += 1;
    }
    found
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.starts_with(b"0")
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
}
