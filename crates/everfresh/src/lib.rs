#![cfg_attr(
    all(feature = "actix", feature = "memcached", feature = "tera"),
    doc = include_str!("../README.md")
)]
#![cfg_attr(
    not(all(feature = "actix", feature = "memcached", feature = "tera")),
    doc = "A cache for server-rendered apps. The README shows most features together."
)]
#![warn(missing_docs)]

mod backend;
mod cache;
#[cfg(feature = "diesel")]
mod diesel_ledger;
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

pub use cache::{
    Cache,
    builder::CacheBuilder,
    key::{KeyParts, join_key},
    lifetime::Lifetime,
    near::at_hand::AtHand,
    stats::LayerStats,
};
#[cfg(feature = "memcached")]
pub use cache::{
    environment::{EnvironmentError, NamedServers, servers_from_variables},
    servers::ServerReport,
};
#[cfg(feature = "diesel")]
pub use diesel_ledger::{
    database::DieselDatabase,
    ledger::DieselLedger,
    pool::{DieselPool, DieselPoolError},
    table::{Backlog, Dialect, LedgerConnection, RowId},
    writer::DieselWriter,
};
#[cfg(feature = "tera")]
pub use fragment::{Templates, TemplatesError, fragment_key};
pub use freshness::{
    group::group_key,
    invalidation::Invalidation,
    replay::{Ledger, REPLAY_AGE, REPLAY_INTERVAL, replay, replay_once},
    write::{Attempt, Writer},
};
#[cfg(feature = "memcached")]
pub use memcached_client;
pub use memo::{Grouped, Grouping, Memo, Mode, Single};
#[cfg(feature = "session")]
pub use session::{
    CacheSessionStore, DurableSessions, NoDurableSessions, UNAVAILABLE, WatchedSessions,
};
#[cfg(feature = "actix")]
pub use view_cache::{ViewCache, builder::ViewCacheBuilder, view_key};
