#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(missing_docs)]

mod backend;
mod connection;
mod layout;
mod scripts;

pub use connection::{ConnectError, Redis};
