#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod batch;
mod client;
mod config;
mod error;
mod health;
mod key;
mod link;
mod pipeline;
mod probe;
mod protocol;
mod ring;
mod shared;
mod stream;
mod transport;

pub use client::Client;
pub use config::{
    AddressError, Config, Credentials, DEFAULT_PORT, Failover, Protocol, STAND_IN_LIFETIME,
    ServerAddress,
};
pub use error::Error;
pub use health::{ServerStatus, State};
pub use key::{KeyError, MAX_KEY_BYTES};
pub use secrecy::SecretString;
pub use transport::{Cas, Command, Deletion, Expiration, Item, Swap, Value};
