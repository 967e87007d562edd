#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod backend;
mod connection;
mod layout;
mod scripts;

pub use connection::{ConnectError, Redis};
