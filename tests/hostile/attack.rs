//! Connections that begin an exchange and do not go on, and a visitor meanwhile.

use std::{
    fs,
    io::{ErrorKind, Write},
    net::{SocketAddr, TcpStream},
};

use socket2::{Domain, Socket, Type};
use test_support::{http::Browser, program::Program};

/// The memory of the process that the connections may take, in bytes.
pub(crate) const MAX_MEMORY: u64 = 150 << 20;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Beginnings of exchanges that do not go on, and whether their answers are read.
pub(crate) fn beginnings() -> Vec<(&'static str, String, bool)> {
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
pub(crate) fn begin(address: SocketAddr, beginning: &str) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut stream: TcpStream = socket.into();
    stream.set_nonblocking(true).unwrap();
    let sent = stream.write_all(beginning.as_bytes());
    assert!(sent.is_ok() || sent.is_err_and(|e| e.kind() == ErrorKind::WouldBlock));
    stream
}

/// The memory of a process, in bytes.
pub(crate) fn memory(program: &Program) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Requests the page ten times, on new connections, and checks the memory of the app.
pub(crate) fn visit(address: &str, program: &Program, what: &str) {
    for _ in 0..10 {
        assert_eq!(Browser::new(address).get("/").status, 200, "{what}");
    }
    assert!(memory(program) < MAX_MEMORY, "{} bytes: {what}", memory(program));
}

/// Adds tasks until the page has 2.7 MB.
pub(crate) fn make_large(visitor: &Browser) {
    for _ in 0..1000 {
        assert_eq!(visitor.post_form("/", &[("name", &"&".repeat(500))]).status, 303);
    }
    assert_eq!(visitor.get("/").task_names().len(), 1000);
}
