//! The app as its visitors see it over HTTP.

mod concurrency;
mod csrf;
mod hosts;
mod interface;
mod shutdown;
mod slow_visitors;
