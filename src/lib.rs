//! A task list, rendered on the server with Actix and Tera, kept in a SQL database by Diesel.
//!
//! [`startup::Application`] is where the parts meet; `routes` lists every URL.

#[cfg(not(any(feature = "sqlite", feature = "postgres", feature = "mysql")))]
compile_error!("tasklist needs a database: enable the feature `sqlite`, `postgres` or `mysql`");

mod access_log;
mod assets;
mod cache_cli;
mod cache_config;
pub mod cli;
pub mod config;
mod csrf;
mod dashboard;
mod database_url;
pub mod db;
mod error;
mod flash;
mod handlers;
mod headers;
mod history;
mod https;
mod key_rotation;
mod ledger;
mod metrics;
mod migrations;
mod request_body;
mod routes;
mod session_config;
mod sessions;
pub mod shutdown;
pub mod startup;
pub mod task;
mod tasks_cache;
mod trusted_proxies;
mod views;
mod write_turns;
