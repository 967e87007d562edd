//! Failures around the app that must lose no acknowledged task.

#[cfg(any(feature = "postgres", feature = "mysql"))]
mod database_outages;
#[cfg(feature = "sqlite")]
mod full_disk;
mod kills;
