//! Servers that do what a test tells them, on a port of this process.

use std::{future::Future, sync::Arc};

use memcached_client::{Config, ServerAddress};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A peer that answers each connection by script. It ends when this is dropped.
pub struct Peer {
    address: ServerAddress,
    task: JoinHandle<()>,
}

impl Peer {
    /// `serve` gets each connection that is made, as it comes.
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

/// A request of the binary protocol, as far as a script needs it.
pub struct Asked {
    pub opcode: u8,
    pub opaque: [u8; 4],
}

pub const GET: u8 = 0x00;
pub const NOOP: u8 = 0x0a;
pub const SASL_AUTH: u8 = 0x21;

/// Reads one request; `None` at the end.
pub async fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut header = [0; 24];
    stream.read_exact(&mut header).await.ok()?;
    let body = u32::from_be_bytes(header[8..12].try_into().unwrap());
    stream.read_exact(&mut vec![0; body as usize]).await.ok()?;
    Some(Asked { opcode: header[1], opaque: header[12..16].try_into().unwrap() })
}

/// A response to `asked`, found if there is a value.
pub fn response(asked: &Asked, value: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 24];
    (frame[0], frame[1]) = (0x81, asked.opcode);
    frame[12..16].copy_from_slice(&asked.opaque);
    let extras: &[u8] = if asked.opcode == GET { &[0; 4] } else { &[] };
    let body = u32::try_from(extras.len() + value.len()).unwrap();
    frame[4] = u8::try_from(extras.len()).unwrap();
    frame[8..12].copy_from_slice(&body.to_be_bytes());
    [&frame, extras, value].concat()
}

/// Answers the NOOP with which a connection begins, then leaves the rest to the script.
pub async fn greet(stream: &mut TcpStream) {
    if let Some(asked) = read(stream).await {
        assert_eq!(asked.opcode, NOOP);
        stream.write_all(&response(&asked, b"")).await.unwrap();
    }
}
