//! Graceful shutdown on SIGTERM.

use std::{
    io::{BufReader, Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use tempfile::tempdir;
use test_support::{
    http::{RawReply, exchange},
    program::{Program, command},
    wait::wait_until,
};

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
const CLIENTS: usize = 16;

fn start() -> (tempfile::TempDir, Program) {
    let folder = tempdir().unwrap();
    let settings = [("PORT", "0"), ("HOST", "127.0.0.1"), ("RUST_LOG", "error")];
    let program = Program::start(command(folder.path(), &settings));
    (folder, program)
}

#[test]
fn sigterm_under_load_resets_no_request_on_a_reused_connection() {
    let (_folder, mut program) = start();
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let mut stream = BufReader::new(program.connect());
                let answered = &answered;
                // Like a router, a client closes the connection when it is asked to.
                scope.spawn(move || {
                    loop {
                        let reply =
                            exchange(&mut stream, REQUEST).expect("a response, not a reset");
                        assert!(reply.head.starts_with("http/1.1 200"), "{}", reply.head);
                        answered.fetch_add(1, Ordering::Relaxed);
                        if reply.closes() {
                            return;
                        }
                    }
                })
            })
            .collect();
        wait_until("1000 requests are answered", || answered.load(Ordering::Relaxed) > 1000);
        program.terminate();
        for client in clients {
            client.join().unwrap();
        }
    });
    let (status, output) = program.wait();
    assert!(status.success(), "{output}");
}

#[test]
fn sigterm_under_load_resets_no_new_connection() {
    for _ in 0..5 {
        let (_folder, mut program) = start();
        let address = program.address()["http://".len()..].parse().unwrap();
        let answered = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                // Each request has its own connection, which begins or is refused, and is answered if
                // it has begun.
                scope.spawn(|| {
                    let patience = Duration::from_millis(500);
                    while let Ok(stream) = TcpStream::connect_timeout(&address, patience) {
                        let request =
                            REQUEST.replace("localhost", "localhost\r\nconnection: close");
                        let reply = exchange(&mut BufReader::new(stream), &request);
                        let reply = reply.expect("a response, not a reset");
                        assert!(reply.head.starts_with("http/1.1 200"), "{}", reply.head);
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            wait_until("1000 requests are answered", || answered.load(Ordering::Relaxed) > 1000);
            program.terminate();
        });
        assert!(program.wait().0.success());
    }
}

#[test]
fn a_request_in_progress_at_sigterm_is_finished() {
    let (_folder, mut program) = start();
    let mut stream = program.connect();
    let head =
        "POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 9\r\n\r\nname=";
    stream.write_all(head.as_bytes()).unwrap();
    let mut idle = BufReader::new(program.connect());
    exchange(&mut idle, REQUEST).unwrap();
    program.terminate();
    wait_until("the server drains", || exchange(&mut idle, REQUEST).map_or(true, |r| r.closes()));
    stream.write_all(b"Milk").unwrap();
    let reply = RawReply::read(&mut BufReader::new(stream)).unwrap();
    assert!(reply.head.starts_with("http/1.1 303"), "{}", reply.head);
    assert!(program.wait().0.success());
}

#[test]
fn an_idle_connection_does_not_delay_the_shutdown() {
    let (_folder, mut program) = start();
    let mut idle = BufReader::new(program.connect());
    exchange(&mut idle, REQUEST).unwrap();
    program.terminate();
    assert!(program.wait().0.success());
    assert_eq!(idle.read(&mut [0]).unwrap_or(0), 0, "the server closes the connection");
}
