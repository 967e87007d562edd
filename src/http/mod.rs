//! The parts of HTTP that concern all routes: middleware, errors and their pages.

pub(crate) mod allowed_hosts;
pub(crate) mod csrf;
pub(crate) mod error_pages;
pub(crate) mod forwarded;
pub(crate) mod headers;
pub(crate) mod https;
pub(crate) mod request_body;
pub(crate) mod request_id;
pub(crate) mod route;
pub(crate) mod visitor_requests;
pub(crate) mod write_rate;
