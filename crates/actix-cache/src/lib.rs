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
mod builder;
mod cache;
mod codec;
#[cfg(feature = "memcached")]
mod environment;
mod flight;
#[cfg(feature = "tera")]
mod fragment;
mod invalidate;
mod key;
mod lease;
mod lifetime;
mod memoize;
mod numbers;
#[cfg(feature = "memcached")]
mod servers;
#[cfg(feature = "session")]
mod session;
mod stats;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "actix")]
mod view_cache;

pub use builder::CacheBuilder;
pub use cache::Cache;
#[cfg(feature = "memcached")]
pub use environment::{EnvironmentError, servers_from_variables};
#[cfg(feature = "tera")]
pub use fragment::{Templates, TemplatesError, fragment_key};
pub use invalidate::{Invalidation, Ledger, REPLAY_AGE, REPLAY_INTERVAL, replay, replay_once};
pub use key::{KeyParts, join_key};
pub use lifetime::Lifetime;
pub use memoize::{Grouped, Grouping, Memo, Mode, Single};
#[cfg(feature = "memcached")]
pub use servers::ServerReport;
#[cfg(feature = "session")]
pub use session::{CacheSessionStore, DurableSessions, NoDurableSessions, UNAVAILABLE};
pub use stats::LayerStats;
#[cfg(feature = "actix")]
pub use view_cache::{ViewCache, ViewCacheBuilder, view_key};
