//! A proxy in front of a memcached server that counts round trips.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use memcached_client::{Client, Config, ServerAddress};

use crate::{
    memcached::{Kind, Memcached},
    wait::PATIENCE,
};

/// A memcached server and a proxy for it, which speaks the binary protocol.
pub struct CountingProxy {
    server: Memcached,
    address: SocketAddr,
    round_trips: Arc<AtomicUsize>,
}

impl CountingProxy {
    /// Starts the server and the proxy.
    pub fn start() -> Self {
        let server = Memcached::start(Kind::Plain);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let target = server.address().to_string();
        let round_trips = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&round_trips);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(&target).unwrap());
                let (from_server, to_client) =
                    (server.try_clone().unwrap(), client.try_clone().unwrap());
                let counter = Arc::clone(&counter);
                thread::spawn(move || forward_counting(client, server, &counter));
                thread::spawn(move || forward(from_server, to_client));
            }
        });
        Self { server, address, round_trips }
    }

    /// Returns a client that uses the proxy.
    pub fn client(&self) -> Client {
        let servers = ServerAddress::parse_list(&self.address.to_string()).unwrap();
        let mut config = Config::new(servers);
        config.timeout = PATIENCE;
        config.connect_timeout = PATIENCE;
        Client::new(config)
    }

    /// Returns the address of the proxy.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Returns the server behind the proxy.
    pub fn server(&self) -> &Memcached {
        &self.server
    }

    /// Returns the number of round trips since the last call.
    pub fn round_trips(&self) -> usize {
        self.round_trips.swap(0, Ordering::SeqCst)
    }
}

/// Quiet commands of the binary protocol, which the server answers only with a hit or an error.
const QUIET: [u8; 16] = [
    0x09, 0x0d, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1e, 0x24, 0x25, 0x26,
];

/// Forwards requests and counts each command that is not quiet as one round trip. The heartbeat of the replay and
/// the look at the epoch, which go on beside all requests, are not counted.
fn forward_counting(mut client: TcpStream, mut server: TcpStream, counter: &AtomicUsize) {
    let mut frame = vec![0; 24];
    while client.read_exact(&mut frame[..24]).is_ok() {
        let length = u32::from_be_bytes(frame[8..12].try_into().unwrap()) as usize;
        frame.resize(24 + length, 0);
        client.read_exact(&mut frame[24..]).unwrap();
        let is_beside = frame.ends_with(b"%replay") || frame.ends_with(b"%epoch");
        if !QUIET.contains(&frame[1]) && !is_beside {
            counter.fetch_add(1, Ordering::SeqCst);
        }
        if server.write_all(&frame).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
}

fn forward(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}
