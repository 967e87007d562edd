//! What every request and response goes through, whatever the route.

pub(crate) mod csrf;
pub(crate) mod error_pages;
pub(crate) mod headers;
pub(crate) mod https;
pub(crate) mod request_body;
pub mod shutdown;
pub(crate) mod trusted_proxies;
