//! A proxy in front of a memcached server that disturbs the traffic.

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

/// A disturbance of the replies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Disturbance {
    None,
    /// Delays each reply by a random time of at most this long.
    Delay(Duration),
    /// Flips a bit of each reply.
    Garble,
}

/// Decides on a delete that waits in the proxy: `true` forwards it, `false` drops it and its
/// connection. Without a decision it is forwarded.
pub type HeldDelete = mpsc::Sender<bool>;

pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: String,
    disturbance: Mutex<Disturbance>,
    /// Whether the condition of stores is removed, which disables the leases.
    is_unconditional: bool,
    /// Receives each delete that is held.
    hold: Mutex<Option<mpsc::Sender<HeldDelete>>>,
    connections: Mutex<HashMap<u64, TcpStream>>,
    next_connection: AtomicU64,
    is_over: AtomicBool,
}

/// Length of a header of the binary protocol.
const HEADER: usize = 24;
/// Set and its quiet form.
const SETS: [u8; 2] = [0x01, 0x11];
/// Delete and its quiet form.
const DELETES: [u8; 2] = [0x04, 0x14];

impl Proxy {
    pub fn start(target: &ServerAddress, is_unconditional: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target: target.to_string(),
            disturbance: Mutex::new(Disturbance::None),
            is_unconditional,
            hold: Mutex::new(None),
            connections: Mutex::default(),
            next_connection: AtomicU64::new(0),
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

    pub fn disturb(&self, disturbance: Disturbance) {
        *self.shared.disturbance.lock().unwrap() = disturbance;
    }

    pub fn end_connections(&self) {
        for (_, stream) in self.shared.connections.lock().unwrap().drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Holds each delete from now on and announces it, until the receiver is dropped.
    pub fn hold_deletes(&self, announce: mpsc::Sender<HeldDelete>) {
        *self.shared.hold.lock().unwrap() = Some(announce);
    }

    pub fn release_deletes(&self) {
        *self.shared.hold.lock().unwrap() = None;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.end_connections();
        // Wakes the accepting thread, which then ends.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(self: &Arc<Self>, client: TcpStream) {
        // Without its server the proxy closes the connection.
        let Ok(server) = TcpStream::connect(&self.target) else { return };
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
            let number = self.next_connection.fetch_add(1, Ordering::Relaxed);
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
                // Delays stores as a network would: on the loopback they rarely lose a race.
                thread::sleep(Duration::from_micros(rand::rng().random_range(0..2000)));
                if self.is_unconditional {
                    // The CAS token.
                    frame[16..HEADER].fill(0);
                }
            }
            if DELETES.contains(&frame[1]) && !self.is_forwarded() {
                break;
            }
            if server.write_all(&frame).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Both);
        let _ = client.shutdown(Shutdown::Both);
    }

    /// Announces a delete if deletes are held, and returns the decision.
    fn is_forwarded(&self) -> bool {
        let Some(announce) = self.hold.lock().unwrap().clone() else { return true };
        let (held_delete, decision) = mpsc::channel();
        announce.send(held_delete).is_err() || decision.recv().unwrap_or(true)
    }

    fn forward_replies(&self, mut server: TcpStream, mut client: TcpStream) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read) = server.read(&mut buffer) {
            if read == 0 {
                break;
            }
            match *self.disturbance.lock().unwrap() {
                Disturbance::None => {}
                Disturbance::Delay(most) => {
                    let micros = u64::try_from(most.as_micros()).unwrap();
                    thread::sleep(Duration::from_micros(rand::rng().random_range(0..micros)));
                }
                Disturbance::Garble => {
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
