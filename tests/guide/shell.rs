//! A shell in an empty folder.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command, Stdio},
};

use tempfile::TempDir;
use test_support::{program::binary, wait::wait_until};

/// The ports in the text.
const PORTS: [&str; 4] = ["8080", "8081", "11211", "11212"];

/// Printed after each command.
const DONE: &str = "-- done --";

pub struct Shell {
    bash: Child,
    output: BufReader<ChildStdout>,
    folder: TempDir,
    /// The ports in the text, and those that are used in their place.
    ports: Vec<(&'static str, String)>,
    /// The port of each server, in the order of the shell's jobs.
    jobs: Vec<Option<String>>,
}

impl Shell {
    pub fn new() -> Self {
        // All are open at once, so that they differ.
        let free = PORTS.map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports =
            PORTS.into_iter().zip(free.map(|port| port.local_addr().unwrap().port().to_string()));
        let ports: Vec<_> = ports.collect();
        let folder = tempfile::tempdir().unwrap();
        let mut bash = Command::new("bash")
            .args(["--norc", "--noprofile"])
            .current_dir(folder.path())
            .env_clear()
            .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap()))
            .env("PROGRAMS", binary().parent().unwrap())
            .env("PORT", &ports[0].1)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(bash.stdout.take().unwrap());
        let mut shell = Self { bash, output, folder, ports, jobs: Vec::new() };
        shell.run(include_str!("prelude.sh"));
        shell
    }

    /// The shell as chapter 0 leaves it.
    pub fn with_memcached() -> Self {
        let mut shell = Self::new();
        shell.start("memcached -l 127.0.0.1 -p 11211", |_| true);
        shell.run("export MEMCACHE_SERVERS=localhost:11211");
        shell
    }

    /// Runs a command. Returns what it has printed.
    pub fn run(&mut self, command: &str) -> String {
        let command = self.with_free_ports(command);
        writeln!(self.bash.stdin.as_mut().unwrap(), "{command}\necho; echo '{DONE}'").unwrap();
        let mut printed = String::new();
        while !printed.ends_with(&format!("{DONE}\n")) {
            let read = self.output.read_line(&mut printed).unwrap();
            assert!(read > 0, "the shell has ended: {printed}");
        }
        printed.truncate(printed.len() - DONE.len() - 1);
        // The line of `echo` is empty, unless the command has ended within a line.
        let printed = printed.strip_suffix('\n').unwrap_or(&printed);
        // What the shell itself says about programs in the background.
        let is_about_job = |line: &str| line.starts_with('[') && line.contains(']');
        let printed: Vec<_> = printed.lines().filter(|line| !is_about_job(line)).collect();
        self.with_ports_of_text(&printed.join("\n"))
    }

    /// Runs a command until it prints what is expected.
    pub fn repeat(&mut self, command: &str, is_expected: impl Fn(&str) -> bool) {
        wait_until(&format!("$ {command}"), || {
            let printed = self.run(command);
            eprintln!("$ {command}\n{printed}"); // shown if the test fails
            is_expected(&printed)
        });
    }

    /// Starts a server, and waits until it has printed what is expected and listens.
    pub fn start(&mut self, command: &str, is_ready: impl Fn(&str) -> bool) {
        let port = self.port_of(command);
        for (index, job) in self.jobs.clone().into_iter().enumerate() {
            if job.as_ref() == Some(&port) {
                self.jobs[index] = None;
                self.run(&format!("kill %{0} && wait %{0} 2>/dev/null", index + 1));
            }
        }
        self.jobs.push(Some(port.clone()));
        let log = self.folder.path().join(format!("job{}.log", self.jobs.len()));
        let number = self.jobs.len();
        let started = self.run(&format!("{command} >job{number}.log 2>&1 &"));
        assert!(!started.contains("error"), "{started}");
        wait_until(&format!("$ {command}"), || {
            let printed = fs::read_to_string(&log).unwrap_or_default();
            is_ready(&self.with_ports_of_text(&printed))
                && TcpStream::connect(format!("127.0.0.1:{port}")).is_ok()
        });
    }

    fn port_of(&self, command: &str) -> String {
        let command = self.with_free_ports(command);
        let named = self.ports.iter().find(|(_, port)| {
            command.contains(&format!("PORT={port}")) || command.contains(&format!("-p {port}"))
        });
        named.unwrap_or(&self.ports[0]).1.clone()
    }

    fn with_free_ports(&self, text: &str) -> String {
        let replaced = |text: String, (old, new): &(&str, String)| text.replace(old, new);
        self.ports.iter().fold(text.to_owned(), replaced)
    }

    fn with_ports_of_text(&self, text: &str) -> String {
        let replaced = |text: String, (old, new): &(&str, String)| text.replace(new, old);
        self.ports.iter().fold(text.to_owned(), replaced)
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let stop =
            "for job in $(jobs -p); do kill -CONT -- -$job; kill -- -$job; done; wait; exit\n";
        if let Some(stdin) = &mut self.bash.stdin {
            let _ = stdin.write_all(stop.as_bytes());
        }
        let _ = self.bash.wait();
    }
}
