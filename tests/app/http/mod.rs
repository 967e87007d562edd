//! The app as its visitors see it over HTTP.

mod concurrency;
mod csrf;
mod interface;
mod shutdown;
mod slow_visitors;
