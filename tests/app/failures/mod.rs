//! Failures around the app that must lose no acknowledged task.

#[cfg(any(feature = "postgres", feature = "mysql"))]
mod database_outages;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod database_servers;
mod kills;
#[cfg(feature = "sqlite")]
mod sqlite_file;
