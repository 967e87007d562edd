//! A thousand connections that send slowly, do not read, or wait for ever, and one visitor.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};
use tempfile::tempdir;
use test_support::{
    http::Browser,
    program::{Program, command},
    secrets::SECRET_KEY,
    wait::wait_until,
};

const CONNECTIONS: usize = 1000;

/// The memory of the process that the connections may take, in bytes.
pub(super) const MAX_MEMORY: u64 = 150 << 20;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Beginnings of exchanges that do not go on, and whether their answers are read.
pub(super) fn beginnings() -> Vec<(&'static str, String, bool)> {
    let post = "POST / HTTP/1.1\r\nHost: localhost\r\n";
    let refused = "Origin: http://evil.example\r\nTransfer-Encoding: chunked\r\n\r\n";
    vec![
        ("nothing", String::new(), true),
        ("half a head", GET[..20].to_owned(), true),
        ("half a second head", format!("{GET}{}", &GET[..20]), true),
        ("half a body", format!("{post}Content-Length: 100\r\n\r\nname="), true),
        ("a refused body without an end", format!("{post}{refused}"), true),
        ("ten requests, no answer read", GET.repeat(10), false),
        ("11,500 requests, no answer read", GET.repeat(11_500), false),
    ]
}

/// Connects with a small buffer for what is received, and sends as much as the kernel takes.
pub(super) fn begin(address: SocketAddr, beginning: &str) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut stream: TcpStream = socket.into();
    stream.set_nonblocking(true).unwrap();
    let sent = stream.write_all(beginning.as_bytes());
    assert!(sent.is_ok() || sent.is_err_and(|e| e.kind() == ErrorKind::WouldBlock));
    stream
}

/// Returns whether the server has closed a connection, after reading what it had sent.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut bytes = [0; 8192];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

/// Returns whether the server has dropped a connection. Reads nothing.
fn is_dropped(stream: &mut TcpStream) -> bool {
    stream.write(b"G").is_err_and(|error| error.kind() != ErrorKind::WouldBlock)
}

/// The memory of a process, in bytes.
pub(super) fn memory(program: &Program) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn a_thousand_hostile_connections_do_not_slow_a_visitor_and_are_all_closed() {
    // The test holds as many sockets as the app.
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let folder = tempdir().unwrap();
    let settings = [
        ("PORT", "0"),
        ("HOST", "127.0.0.1"),
        ("SECRET_KEY", SECRET_KEY),
        ("REQUEST_TIMEOUT", "3s"),
        ("IDLE_TIMEOUT", "3s"),
        ("WRITE_TIMEOUT", "3s"),
    ];
    let program = Program::start(command(folder.path(), &settings));
    let visitor = Browser::new(program.address());
    // A page of 2.7 MB.
    for _ in 0..1000 {
        assert_eq!(visitor.post_form("/", &[("name", &"&".repeat(500))]).status, 303);
    }
    assert_eq!(visitor.get("/").task_names().len(), 1000);

    let address = program.address()["http://".len()..].parse().unwrap();
    for (what, beginning, reads) in beginnings() {
        let mut hostile: Vec<_> = (0..CONNECTIONS).map(|_| begin(address, &beginning)).collect();
        for _ in 0..10 {
            let start = Instant::now();
            assert_eq!(Browser::new(program.address()).get("/").status, 200);
            assert!(start.elapsed() < Duration::from_secs(1), "{:?}: {what}", start.elapsed());
        }
        assert!(memory(&program) < MAX_MEMORY, "{} bytes: {what}", memory(&program));
        let ended = if reads { is_closed } else { is_dropped };
        wait_until(&format!("all are closed: {what}"), || hostile.iter_mut().all(ended));
    }
}
