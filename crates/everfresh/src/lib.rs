#![cfg_attr(
    all(feature = "actix", feature = "memcached", feature = "tera"),
    doc = include_str!("../README.md")
)]
#![cfg_attr(
    not(all(feature = "actix", feature = "memcached", feature = "tera")),
    doc = "A cache for Actix apps. The README has the whole; it shows most features together."
)]
#![warn(missing_docs)]

mod backend;
mod cache;
#[cfg(feature = "tera")]
mod fragment;
mod freshness;
mod memo;
#[cfg(feature = "session")]
mod session;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "actix")]
mod view_cache;

#[cfg(feature = "memcached")]
pub use cache::environment::{EnvironmentError, servers_from_variables};
#[cfg(feature = "memcached")]
pub use cache::servers::ServerReport;
pub use cache::{
    Cache,
    builder::CacheBuilder,
    key::{KeyParts, join_key},
    lifetime::Lifetime,
    stats::LayerStats,
};
#[cfg(feature = "tera")]
pub use fragment::{Templates, TemplatesError, fragment_key};
pub use freshness::invalidation::{
    Invalidation, Ledger, REPLAY_AGE, REPLAY_INTERVAL, replay, replay_once,
};
pub use memo::{Grouped, Grouping, Memo, Mode, Single};
#[cfg(feature = "session")]
pub use session::{CacheSessionStore, DurableSessions, NoDurableSessions, UNAVAILABLE};
#[cfg(feature = "actix")]
pub use view_cache::{ViewCache, ViewCacheBuilder, view_key};
