//! Opens a connection, logs in, and waits for the first response.

use std::io;

use bytes::BytesMut;
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    codec::Codec,
    frame::{Frame, Request, Response, opcode, status, status_text},
};
use crate::{
    address::ServerAddress,
    config::{Config, Credentials},
    health::{Health, Outage},
    protocol::Protocol,
    stream::Stream,
    text_login,
};

/// The longest body of a response during the log-in, in bytes.
const MAX_LOGIN_BODY: usize = 4096;

/// An open connection, and the protocol that the server speaks.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(super) stream: Stream,
    pub(super) codec: Codec,
}

/// Connects, logs in, and waits for the response to a NOOP. A server that accepts connections but
/// hangs, or that requires a log-in, fails here. Tells `health` the protocol that the server speaks.
pub(crate) async fn establish(
    address: &ServerAddress,
    config: &Config,
    health: &Health,
) -> Result<Opened, Outage> {
    let opened = match config.protocol {
        Protocol::Meta => open(address, config, Codec::Meta).await,
        Protocol::Auto => find_out(address, config, health).await,
        _ => open(address, config, Codec::Binary).await,
    };
    opened.map_err(Refusal::outage)
}

/// Tries the protocols. The binary one comes first: its NOOP contains a line break, so that a server of
/// the others answers it, too, while a server that speaks only binary would wait for the rest of a line.
async fn find_out(
    address: &ServerAddress,
    config: &Config,
    health: &Health,
) -> Result<Opened, Refusal> {
    match open(address, config, Codec::Binary).await {
        Err(refusal) if refusal.is_other_protocol => {}
        outcome => return outcome.inspect(|_| health.speaks(Protocol::Binary)),
    }
    match open(address, config, Codec::Meta).await {
        Err(refusal) if refusal.has_text => {
            #[cfg(feature = "text")]
            health.speaks(Protocol::Text);
            Err(Outage::OnlyText.into())
        }
        outcome => outcome.inspect(|_| health.speaks(Protocol::Meta)),
    }
}

/// The reason why a connection could not be opened.
struct Refusal {
    outage: Outage,
    /// Whether the server may speak another protocol than the one that was tried.
    is_other_protocol: bool,
    /// Whether it has answered as a server of the text protocol.
    has_text: bool,
}

impl From<Outage> for Refusal {
    fn from(outage: Outage) -> Self {
        Self { outage, is_other_protocol: false, has_text: false }
    }
}

impl Refusal {
    fn other_protocol(outage: Outage) -> Self {
        Self { is_other_protocol: true, ..outage.into() }
    }

    fn outage(self) -> Outage {
        self.outage
    }
}

async fn open(address: &ServerAddress, config: &Config, codec: Codec) -> Result<Opened, Refusal> {
    let (for_sasl, for_text) = match codec {
        Codec::Binary => (config.credentials.as_ref(), None),
        Codec::Meta => (None, config.credentials.as_ref()),
    };
    let mut stream = if let Some(credentials) = for_text {
        let login = text_login::log_in(address, credentials, config).await;
        login.map_err(|outage| outage.shown(config))?
    } else {
        let stream = Stream::connect(address, config).await;
        stream.map_err(connection_failed)?
    };
    let mut out = BytesMut::new();
    if let Some(credentials) = for_sasl {
        request_login(credentials, &mut out);
    }
    codec.encode(&Request { opcode: opcode::NOOP, ..Request::default() }, &mut out);
    stream.write_all(&out).await.map_err(connection_failed)?;
    let mut buffer = BytesMut::new();
    if for_sasl.is_some() {
        let response = read_response(&mut stream, &mut buffer, codec, opcode::SASL_AUTH).await?;
        check_login(&response)?;
    }
    let response = read_response(&mut stream, &mut buffer, codec, opcode::NOOP).await?;
    if response.status == status::REFUSED {
        let message = config.server_text(&response.value);
        if message != "ERROR" {
            return Err(Outage::Login(message).into());
        }
        let reason = "it has no meta protocol, which memcached has since 1.6".to_owned();
        let refusal = Refusal::other_protocol(Outage::Protocol(reason));
        return Err(Refusal { has_text: true, ..refusal });
    }
    check_login(&response)?;
    if !buffer.is_empty() {
        return Err(Outage::Protocol("bytes after the last response".to_owned()).into());
    }
    Ok(Opened { stream, codec })
}

/// Encodes a log-in by SASL PLAIN (RFC 4616): an empty authorization identity, the user name and the
/// password, separated by NUL bytes.
fn request_login(credentials: &Credentials, out: &mut BytesMut) {
    let (user, password) = (&credentials.username, credentials.password.expose_secret());
    let value = format!("\0{user}\0{password}");
    let value = value.as_bytes();
    let request = Request { opcode: opcode::SASL_AUTH, key: b"PLAIN", value, ..Request::default() };
    Codec::Binary.encode(&request, out);
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
    codec: Codec,
    opcode: u8,
) -> Result<Response, Refusal> {
    loop {
        let decoded = codec.decode(buffer, MAX_LOGIN_BODY);
        // A server that does not speak the protocol sends an error in another one, or hangs up.
        match decoded.map_err(|e| Refusal::other_protocol(Outage::Protocol(e.to_string())))? {
            Frame::Response(response) if response.answers.contains(opcode) => return Ok(response),
            Frame::Response(_) => {
                return Err(Outage::Protocol("a response to another request".to_owned()).into());
            }
            Frame::Incomplete(_) => {}
        }
        if stream.read_buf(buffer).await.map_err(connection_failed)? == 0 {
            let outage = Outage::Connection("the server closed the connection".to_owned());
            return Err(Refusal::other_protocol(outage));
        }
    }
}

pub(super) fn connection_failed(error: io::Error) -> Outage {
    Outage::Connection(error.to_string())
}
