#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod client;
mod cluster;
mod config;
mod error;
mod health;
mod key;
mod multiplexed;
mod stream;
#[cfg(feature = "text")]
mod text;
mod text_login;
#[cfg(feature = "tls")]
mod tls;
mod types;

pub use client::Client;
pub use config::{
    AddressError, Config, Credentials, DEFAULT_PORT, Failover, Protocol, STAND_IN_LIFETIME,
    ServerAddress,
};
pub use error::Error;
pub use health::{ServerState, ServerStatus};
pub use key::{KeyError, MAX_KEY_BYTES};
pub use secrecy::SecretString;
#[cfg(feature = "tls")]
pub use tls::{ClientCertificate, TlsSettings};
pub use types::{Cas, Command, Deletion, Expiration, Item, Swap, Value};
