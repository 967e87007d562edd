//! The app as its visitors see it over HTTP.

mod concurrency;
mod connections;
mod csrf;
mod hosts;
mod interface;
mod long_lists;
mod shutdown;
