//! Failures around the app that must lose no acknowledged task.

#[cfg(any(feature = "postgres", feature = "mysql"))]
mod database_outages;
mod kills;
#[cfg(feature = "sqlite")]
mod sqlite_file;
