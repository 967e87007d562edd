//! Monitoring for operators: access log, metrics, dashboard, probes.

pub(crate) mod access_log;
pub(crate) mod admin_token;
pub(crate) mod dashboard;
mod format;
pub(crate) mod health;
pub(crate) mod history;
pub(crate) mod metrics;
