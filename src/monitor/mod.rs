//! What the app tells about itself: access log, metrics, dashboard.

pub(crate) mod access_log;
pub(crate) mod dashboard;
pub(crate) mod history;
pub(crate) mod metrics;
