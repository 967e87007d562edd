#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(missing_docs)]

mod address;
mod client;
mod cluster;
#[cfg(feature = "compression")]
mod compression;
mod config;
mod error;
mod events;
mod health;
mod key;
mod multiplexed;
mod protocol;
mod stream;
#[cfg(feature = "text")]
mod text;
mod text_login;
mod types;

pub use address::{AddressError, DEFAULT_PORT, ServerAddress};
pub use client::Client;
#[cfg(feature = "compression")]
pub use compression::{COMPRESSED, Compression};
pub use config::{Config, Credentials, Distribution, Failover};
pub use error::Error;
pub use events::{Event, Observer, Outcome};
pub use health::{ServerState, ServerStatus};
pub use key::{KeyError, MAX_KEY_BYTES};
pub use protocol::{Protocol, UnknownProtocol};
pub use secrecy::SecretString;
#[cfg(feature = "tls")]
pub use stream::tls::{ClientCertificate, TlsSettings};
pub use types::{
    Cas, Command, Deletion, Expiration, Item, Reservation, STAND_IN_LIFETIME, Swap, Value,
};
