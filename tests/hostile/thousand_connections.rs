//! A thousand connections of each hostile kind at once.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use tempfile::tempdir;
use test_support::{
    http::Browser,
    program::{Program, command},
    secrets::SECRET_KEY,
    wait::wait_until,
};

use crate::{
    alone,
    attack::{begin, beginnings, make_large, visit},
};

const CONNECTIONS: usize = 1000;

/// After which the app gives up the connections. A visitor who is answered earlier has not waited for them.
const TIMEOUT: Duration = Duration::from_secs(10);

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

#[test]
fn a_visitor_is_served_while_a_thousand_hostile_connections_are_open_and_they_are_all_closed() {
    let _alone = alone();
    // The test holds as many sockets as the app.
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let folder = tempdir().unwrap();
    let timeout = format!("{}s", TIMEOUT.as_secs());
    let settings = [
        ("PORT", "0"),
        ("HOST", "127.0.0.1"),
        ("SECRET_KEY", SECRET_KEY),
        ("TASKS_PER_PAGE", "1000"),
        ("REQUEST_TIMEOUT", &timeout),
        ("IDLE_TIMEOUT", &timeout),
        ("WRITE_TIMEOUT", &timeout),
    ];
    let program = Program::start(command(folder.path(), &settings));
    let visitor = Browser::new(program.address());
    make_large(&visitor);

    let address = program.address()["http://".len()..].parse().unwrap();
    for (what, beginning, reads) in beginnings() {
        let begun = Instant::now();
        let mut hostile: Vec<_> = (0..CONNECTIONS).map(|_| begin(address, &beginning)).collect();
        visit(program.address(), &program, what);
        assert!(begun.elapsed() < TIMEOUT, "the visitor waited for the others: {what}");
        let ended = if reads { is_closed } else { is_dropped };
        wait_until(&format!("all are closed: {what}"), || hostile.iter_mut().all(ended));
    }
}
