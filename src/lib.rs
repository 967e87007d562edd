//! A task list, rendered on the server with Actix and Tera, stored in a SQL database by Diesel.
//!
//! [`app::Application`] is where the parts meet; `routes` lists every URL.

#[cfg(not(any(feature = "sqlite", feature = "postgres", feature = "mysql")))]
compile_error!("tasklist needs a database: enable the feature `sqlite`, `postgres` or `mysql`");

pub mod app;
pub mod cli;
pub mod config;
pub mod db;
pub mod http;
mod monitor;
pub mod routes;
pub mod server;
mod session;
mod tasks;
mod views;

/// Tests the code of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
