//! A proxy in front of a memcached server that disturbs the traffic.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Read, Write},
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

/// The first byte of a request of the binary protocol.
const BINARY: u8 = 0x80;
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

    fn forward_requests(&self, client: TcpStream, mut server: TcpStream) {
        let mut reader = BufReader::new(&client);
        while let Ok((mut request, kind)) = read_request(&mut reader) {
            if kind == Kind::Store {
                // Delays stores as a network would: on the loopback they rarely lose a race.
                thread::sleep(Duration::from_micros(rand::rng().random_range(0..2000)));
                if self.is_unconditional {
                    // The CAS token. The control runs with the binary protocol.
                    assert_eq!(request[0], BINARY);
                    request[16..HEADER].fill(0);
                }
            }
            if kind == Kind::Delete && !self.is_forwarded() {
                break;
            }
            if server.write_all(&request).is_err() {
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

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Store,
    Delete,
    Other,
}

/// Reads one request, of whichever protocol.
fn read_request(client: &mut impl BufRead) -> io::Result<(Vec<u8>, Kind)> {
    let first = *client.fill_buf()?.first().ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut request = Vec::new();
    if first == BINARY {
        request.resize(HEADER, 0);
        client.read_exact(&mut request)?;
        let length = u32::from_be_bytes(request[8..12].try_into().unwrap()) as usize;
        request.resize(HEADER + length, 0);
        client.read_exact(&mut request[HEADER..])?;
        let kind = match request[1] {
            opcode if SETS.contains(&opcode) => Kind::Store,
            opcode if DELETES.contains(&opcode) => Kind::Delete,
            _ => Kind::Other,
        };
        return Ok((request, kind));
    }
    client.read_until(b'\n', &mut request)?;
    let line = String::from_utf8_lossy(&request).into_owned();
    let words: Vec<_> = line.split_whitespace().collect();
    let length = match words.first() {
        Some(&"ms") => words.get(2),
        Some(&("set" | "add" | "cas")) => words.get(4),
        Some(&("md" | "delete")) => return Ok((request, Kind::Delete)),
        _ => None,
    };
    let Some(length) = length.and_then(|length| length.parse::<usize>().ok()) else {
        return Ok((request, Kind::Other));
    };
    let start = request.len();
    request.resize(start + length + 2, 0);
    client.read_exact(&mut request[start..])?;
    Ok((request, Kind::Store))
}
