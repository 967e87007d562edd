//! Connections that send slowly or do not read.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use tempfile::tempdir;
use test_support::{
    http::Browser,
    program::{Program, command},
    secrets::SECRET_KEY,
};

const SLOW_CONNECTIONS: usize = 1000;

/// Beginnings of slow exchanges: half a head, half a body, and two requests at once without a
/// reader for the responses.
const SLOW_EXCHANGES: [&str; 3] = [
    "GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
    "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n\
     Content-Length: 100\r\n\r\nname=",
    "GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
];

#[test]
fn a_thousand_slow_connections_do_not_stop_other_visitors() {
    // The test holds as many sockets as the app.
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let folder = tempdir().unwrap();
    let settings = [("PORT", "0"), ("HOST", "127.0.0.1"), ("SECRET_KEY", SECRET_KEY)];
    let program = Program::start(command(folder.path(), &settings));
    let mut slow: Vec<_> = (0..SLOW_CONNECTIONS)
        .map(|number| {
            let mut stream = program.connect();
            stream.write_all(SLOW_EXCHANGES[number % SLOW_EXCHANGES.len()].as_bytes()).unwrap();
            stream
        })
        .collect();
    for _ in 0..20 {
        let browser = Browser::new(program.address());
        assert_eq!(browser.post_form("/", &[("name", "Milk")]).status, 303);
        assert_eq!(browser.get("/").status, 200);
    }
    assert_eq!(Browser::new(program.address()).get("/").task_names().len(), 20);
    // Each slow connection gets a response too, at its deadline at the latest.
    assert!(slow.iter_mut().all(is_answered));
}

fn is_answered(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).is_ok() && answer.starts_with(b"HTTP/1.1 ")
}
