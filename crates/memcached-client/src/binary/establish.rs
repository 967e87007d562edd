//! Opens a connection, logs in, and waits for the first response.

use std::io;

use bytes::BytesMut;
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::protocol::{Frame, Request, Response, decode, opcode, status, status_text};
use crate::{
    config::{Config, Credentials, ServerAddress},
    health::Outage,
    stream::Stream,
};

/// The longest body of a response during the log-in, in bytes.
const MAX_LOGIN_BODY: usize = 4096;

/// Connects, logs in, and waits for the response to a NOOP. A server that accepts connections but
/// hangs, or that requires a log-in, fails here.
pub(crate) async fn establish(address: &ServerAddress, config: &Config) -> Result<Stream, Outage> {
    let mut stream =
        Stream::connect(address, config.connect_timeout).await.map_err(connection_failed)?;
    let mut out = BytesMut::new();
    if let Some(credentials) = &config.credentials {
        request_login(credentials, &mut out);
    }
    Request { opcode: opcode::NOOP, ..Request::default() }.encode(&mut out);
    stream.write_all(&out).await.map_err(connection_failed)?;
    let mut buffer = BytesMut::new();
    if config.credentials.is_some() {
        let response = read_response(&mut stream, &mut buffer, opcode::SASL_AUTH).await?;
        check_login(&response)?;
    }
    let response = read_response(&mut stream, &mut buffer, opcode::NOOP).await?;
    check_login(&response)?;
    if buffer.is_empty() {
        Ok(stream)
    } else {
        Err(Outage::Protocol("bytes after the last response".to_owned()))
    }
}

/// Encodes a log-in by SASL PLAIN (RFC 4616): an empty authorization identity, the user name and the
/// password, separated by NUL bytes.
fn request_login(credentials: &Credentials, out: &mut BytesMut) {
    let (user, password) = (&credentials.username, credentials.password.expose_secret());
    let value = format!("\0{user}\0{password}");
    let value = value.as_bytes();
    Request { opcode: opcode::SASL_AUTH, key: b"PLAIN", value, ..Request::default() }.encode(out);
}

fn check_login(response: &Response) -> Result<(), Outage> {
    match response.status {
        status::OK => Ok(()),
        status::UNKNOWN_COMMAND => {
            Err(Outage::Login("the server has no log-in by SASL".to_owned()))
        }
        code => Err(Outage::Login(status_text(code).to_owned())),
    }
}

async fn read_response(
    stream: &mut Stream,
    buffer: &mut BytesMut,
    opcode: u8,
) -> Result<Response, Outage> {
    loop {
        match decode(buffer, MAX_LOGIN_BODY).map_err(|error| Outage::Protocol(error.to_string()))? {
            Frame::Response(response) if response.opcode == opcode => return Ok(response),
            Frame::Response(_) => {
                return Err(Outage::Protocol("a response to another request".to_owned()));
            }
            Frame::Incomplete(_) => {}
        }
        if stream.read_buf(buffer).await.map_err(connection_failed)? == 0 {
            return Err(Outage::Connection("the server closed the connection".to_owned()));
        }
    }
}

pub(super) fn connection_failed(error: io::Error) -> Outage {
    Outage::Connection(error.to_string())
}
