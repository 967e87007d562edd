//! Puts a server further away: forwards connections to it, and delays all bytes in both directions.
//!
//! `bin/bench` starts it as `distance PORT TARGET MICROSECONDS`: the target is `host:port` or the path of a
//! unix socket, the delay that of one direction.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

const BUFFER: usize = 64 * 1024;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, target, delay] = &arguments[..] else {
        // `cargo bench` and `cargo test` start it without arguments.
        return Ok(());
    };
    let (port, delay): (u16, _) = (port.parse()?, Duration::from_micros(delay.parse()?));
    for client in TcpListener::bind(("127.0.0.1", port))?.incoming() {
        let client = client?;
        client.set_nodelay(true)?;
        let near = (client.try_clone()?, client);
        if target.starts_with('/') {
            let server = UnixStream::connect(target)?;
            relay(near, (server.try_clone()?, server), delay);
        } else {
            let server = TcpStream::connect(target)?;
            server.set_nodelay(true)?;
            relay(near, (server.try_clone()?, server), delay);
        }
    }
    Ok(())
}

/// A connection, to be read and to be written.
trait Side: Read + Write + Send + 'static {
    fn close(&self) -> io::Result<()>;
}

impl Side for TcpStream {
    fn close(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Both)
    }
}

impl Side for UnixStream {
    fn close(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Both)
    }
}

fn relay<A: Side, B: Side>((from_a, to_a): (A, A), (from_b, to_b): (B, B), delay: Duration) {
    forward(from_a, to_b, delay);
    forward(from_b, to_a, delay);
}

/// Forwards one direction, and closes both connections at its end.
fn forward(mut from: impl Side, mut to: impl Side, delay: Duration) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buffer = vec![0; BUFFER];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if sender.send((Instant::now() + delay, buffer[..read].to_vec())).is_err() {
                break;
            }
        }
        let _ = from.close();
    });
    thread::spawn(move || {
        for (due, bytes) in receiver {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.close();
    });
}
