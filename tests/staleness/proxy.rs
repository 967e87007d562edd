//! Stands before a memcached server and makes trouble.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use memcached_client::ServerAddress;
use rand::RngExt;

/// What is done to what passes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trouble {
    None,
    /// Replies come late, by up to so long.
    Delay(Duration),
    /// A byte of a reply is another one.
    Garble,
}

pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: String,
    trouble: Mutex<Trouble>,
    /// Stores are made without a condition: as if there were no leases.
    is_naive: bool,
    /// Told when a delete has come, which then waits to be let go or dropped.
    hold: Mutex<Option<mpsc::Sender<mpsc::Sender<bool>>>>,
    connections: Mutex<HashMap<u64, TcpStream>>,
    next: AtomicU64,
    is_over: AtomicBool,
}

/// Of the binary protocol: where a frame's parts are, and commands.
const HEADER: usize = 24;
const SETS: [u8; 2] = [0x01, 0x11];
const DELETES: [u8; 2] = [0x04, 0x14];

impl Proxy {
    pub fn start(target: &ServerAddress, is_naive: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target: target.to_string(),
            trouble: Mutex::new(Trouble::None),
            is_naive,
            hold: Mutex::new(None),
            connections: Mutex::default(),
            next: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.is_over.load(Ordering::Relaxed) {
                    break;
                }
                accepting.serve(client);
            }
        });
        Self { address, shared }
    }

    pub fn make(&self, trouble: Trouble) {
        *self.shared.trouble.lock().unwrap() = trouble;
    }

    /// Ends all connections.
    pub fn cut(&self) {
        for (_, stream) in self.shared.connections.lock().unwrap().drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// From now on deletes wait; each is announced with the way to let it go (`true`) or to drop
    /// it. Until the receiver is dropped.
    pub fn hold_deletes(&self, announce: mpsc::Sender<mpsc::Sender<bool>>) {
        *self.shared.hold.lock().unwrap() = Some(announce);
    }

    pub fn release_deletes(&self) {
        *self.shared.hold.lock().unwrap() = None;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.cut();
        // So that it sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(self: &Arc<Self>, client: TcpStream) {
        // A server that is away is a connection that ends.
        let Ok(server) = TcpStream::connect(&self.target) else { return };
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            self.connections.lock().unwrap().insert(number, stream.try_clone().unwrap());
        }
        let (from_server, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        let (up, down) = (Arc::clone(self), Arc::clone(self));
        thread::spawn(move || up.forward_requests(client, server));
        thread::spawn(move || down.forward_replies(from_server, to_client));
    }

    fn forward_requests(&self, mut client: TcpStream, mut server: TcpStream) {
        let mut frame = vec![0; HEADER];
        while client.read_exact(&mut frame[..HEADER]).is_ok() {
            let length = u32::from_be_bytes(frame[8..12].try_into().unwrap()) as usize;
            frame.resize(HEADER + length, 0);
            if client.read_exact(&mut frame[HEADER..]).is_err() {
                break;
            }
            if SETS.contains(&frame[1]) {
                // Networks are not as fast as a loopback: stores come late.
                thread::sleep(Duration::from_micros(rand::rng().random_range(0..2000)));
                if self.is_naive {
                    frame[16..HEADER].fill(0);
                }
            }
            if DELETES.contains(&frame[1]) && !self.may_pass() {
                break;
            }
            if server.write_all(&frame).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Both);
        let _ = client.shutdown(Shutdown::Both);
    }

    fn may_pass(&self) -> bool {
        let Some(announce) = self.hold.lock().unwrap().clone() else { return true };
        let (decide, decision) = mpsc::channel();
        announce.send(decide).is_err() || decision.recv().unwrap_or(true)
    }

    fn forward_replies(&self, mut server: TcpStream, mut client: TcpStream) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read) = server.read(&mut buffer) {
            if read == 0 {
                break;
            }
            match *self.trouble.lock().unwrap() {
                Trouble::None => {}
                Trouble::Delay(most) => {
                    let micros = u64::try_from(most.as_micros()).unwrap();
                    thread::sleep(Duration::from_micros(rand::rng().random_range(0..micros)));
                }
                Trouble::Garble => {
                    let at = rand::rng().random_range(0..read);
                    buffer[at] ^= 1 << rand::rng().random_range(0..8);
                }
            }
            if client.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
    }
}
