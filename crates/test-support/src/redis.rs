//! A real Redis server, on an address of its own.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::{memcached::own_address, wait::wait_until};

const PORT: u16 = 6379;

/// A Redis process. It is killed when the value is dropped.
pub struct RedisServer {
    child: Option<Child>,
    host: Ipv4Addr,
    settings: Vec<&'static str>,
    folder: TempDir,
}

impl RedisServer {
    /// Starts a server that keeps nothing over a restart.
    pub fn start() -> Self {
        Self::with(&["--save", "", "--appendonly", "no"])
    }

    /// Starts a server with other settings.
    pub fn with(settings: &[&'static str]) -> Self {
        let (host, folder) = (own_address(), tempfile::tempdir().unwrap());
        let mut server = Self { child: None, host, settings: settings.to_vec(), folder };
        server.run();
        server
    }

    /// Starts the process.
    pub fn run(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--bind", &self.host.to_string(), "--port", &PORT.to_string()]);
        command.args(&self.settings).arg("--dir").arg(self.folder.path());
        let child = command.stdout(Stdio::null()).spawn();
        self.child = Some(child.expect("cannot run redis-server; bin/setup installs it"));
        wait_until("redis-server answers", || self.ask("PING").is_some_and(|it| it == "+PONG"));
    }

    /// Kills the process. Its address stays its own.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn url(&self) -> String {
        format!("redis://{}:{PORT}", self.host)
    }

    /// Sends a command, and returns the first line of the answer; `None` without one.
    pub fn ask(&self, command: &str) -> Option<String> {
        let mut stream = TcpStream::connect((self.host, PORT)).ok()?;
        stream.write_all(format!("{command}\r\n").as_bytes()).ok()?;
        let mut answer = [0; 512];
        let length = stream.read(&mut answer).ok()?;
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        Some(answer.lines().next()?.to_owned())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
