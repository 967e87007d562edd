#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod address;
mod client;
mod cluster;
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
#[cfg(feature = "tls")]
mod tls;
mod types;

pub use address::{AddressError, DEFAULT_PORT, ServerAddress};
pub use client::Client;
pub use config::{Config, Credentials, Distribution, Failover};
pub use error::Error;
pub use events::{Event, Observer, Outcome};
pub use health::{ServerState, ServerStatus};
pub use key::{KeyError, MAX_KEY_BYTES};
pub use protocol::{Protocol, UnknownProtocol};
pub use secrecy::SecretString;
#[cfg(feature = "tls")]
pub use tls::{ClientCertificate, TlsSettings};
pub use types::{Cas, Command, Deletion, Expiration, Item, STAND_IN_LIFETIME, Swap, Value};
