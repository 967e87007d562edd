//! Scripted servers, in the process of the tests.

mod bad;

use std::{future::Future, sync::Arc};

use memcached_client::{Config, ServerAddress};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A server that serves each connection by a script. It stops when it is dropped.
pub struct Peer {
    address: ServerAddress,
    task: JoinHandle<()>,
}

impl Peer {
    /// Starts a server on a free port, which calls `serve` with each connection.
    pub async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let serve = Arc::new(serve);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        Self { address, task }
    }

    pub fn config(&self) -> Config {
        Config::new(vec![self.address.clone()])
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The parts of a binary request that scripts need.
pub struct Request {
    pub opcode: u8,
    pub opaque: [u8; 4],
}

pub const GET: u8 = 0x00;
pub const NOOP: u8 = 0x0a;
pub const SASL_AUTH: u8 = 0x21;

/// Reads one request. Returns `None` at the end of the connection.
pub async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut header = [0; 24];
    stream.read_exact(&mut header).await.ok()?;
    let body = u32::from_be_bytes(header[8..12].try_into().unwrap());
    stream.read_exact(&mut vec![0; body as usize]).await.ok()?;
    Some(Request { opcode: header[1], opaque: header[12..16].try_into().unwrap() })
}

/// Encodes a successful response to `request`.
pub fn response(request: &Request, value: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 24];
    (frame[0], frame[1]) = (0x81, request.opcode);
    frame[12..16].copy_from_slice(&request.opaque);
    let extras: &[u8] = if request.opcode == GET { &[0; 4] } else { &[] };
    let body = u32::try_from(extras.len() + value.len()).unwrap();
    frame[4] = u8::try_from(extras.len()).unwrap();
    frame[8..12].copy_from_slice(&body.to_be_bytes());
    [&frame, extras, value].concat()
}

/// Answers the NOOP that the client sends first on a connection.
pub async fn greet(stream: &mut TcpStream) {
    if let Some(request) = read(stream).await {
        assert_eq!(request.opcode, NOOP);
        stream.write_all(&response(&request, b"")).await.unwrap();
    }
}
