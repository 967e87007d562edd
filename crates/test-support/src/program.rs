//! The task list as a separate process.

use std::{
    env,
    io::{BufRead, BufReader, Read},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
};

use crate::{secrets::assert_no_secret, wait::PATIENCE};

/// The running program. It is killed when the value is dropped.
pub struct Program {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: mpsc::Receiver<String>,
    /// The line that the program prints after it has started.
    pub summary: String,
}

/// Returns the path of the program that Cargo has built for the running test.
pub fn binary() -> PathBuf {
    let test = env::current_exe().unwrap();
    // target/PROFILE/deps/TEST-HASH
    test.ancestors().nth(2).unwrap().join("tasklist")
}

/// Returns a command that runs the program in `folder`, with only `settings` as its environment.
pub fn command(folder: &Path, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(folder).env_clear().envs(settings.iter().copied());
    command
}

impl Program {
    /// Starts the program and waits until it has printed its summary.
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

    /// Returns the URL in the summary: `http://host:port`.
    pub fn address(&self) -> &str {
        self.summary.split_whitespace().find(|word| word.starts_with("http://")).unwrap()
    }

    /// Opens a TCP connection to the program.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address()["http://".len()..]).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// Waits for the program to end. Returns its exit status, and its standard error followed by its
    /// standard output.
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
        // Both calls fail if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let output = self.stderr.recv_timeout(PATIENCE).unwrap_or_default();
        if !thread::panicking() {
            assert_no_secret(&output);
        }
    }
}

/// Reads a pipe in a thread. Sends all of its text at the end.
fn collect(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        pipe.read_to_end(&mut text).unwrap();
        sender.send(String::from_utf8_lossy(&text).into_owned())
    });
    receiver
}
