#![cfg_attr(
    all(feature = "actix", feature = "memcached", feature = "tera"),
    doc = include_str!("../README.md")
)]
#![cfg_attr(
    not(all(feature = "actix", feature = "memcached", feature = "tera")),
    doc = "A cache for server-rendered apps. The README shows most features together."
)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(missing_docs)]

pub mod backend;
mod cache;
#[cfg(feature = "diesel")]
mod diesel_ledger;
#[cfg(feature = "tera")]
mod fragment;
mod freshness;
mod memo;
#[cfg(doc)]
pub mod peers;
#[cfg(feature = "session")]
mod session;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "actix")]
mod view_cache;

#[cfg(feature = "prometheus")]
pub use cache::events::prometheus::CacheMetrics;
pub use cache::{
    Cache,
    builder::CacheBuilder,
    counters::Counter,
    events::{CacheEvent, CacheEventKind, stats::LayerStats},
    key::join_key,
    lifetime::Lifetime,
    near::at_hand::AtHand,
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
/// Caches the results of an async function, and declares the constant of its [`Memo`].
///
/// The function takes a `&Cache`; all other arguments make up the key, or those that `key(…)` names: whatever else
/// the result depends on must be the same for all calls. The constant has the function's name in upper case. If
/// the type of the result ends with `Result`, only `Ok` is stored.
///
/// | setting | |
/// |---|---|
/// | `lifetime = …` | the [`Lifetime`] of the results; required |
/// | `key(a, b)` | the arguments that make up the key; default: all |
/// | `groups("a", "b")` | the groups of all results, see [`Memo::in_groups`] |
/// | `name = "…"` | the name of the memo; default: the function's path |
/// | `version = "…"` | see [`Memo::versioned_by`] |
///
/// Two functions of one name and module, such as local ones, need names of their own.
///
/// Give the memo a name before you move or rename the function: another name means other keys, and while processes
/// of both versions run, they do not forget each other's results.
///
/// ```
/// use everfresh::{Cache, Lifetime, memoize};
/// # struct Db;
/// # impl Db { async fn names(&self, _: &str, _: u32) -> Result<Vec<String>, std::io::Error> { Ok(vec![]) } }
///
/// #[memoize(key(owner, page), lifetime = Lifetime::Forever, groups("tasks"))]
/// async fn task_names(
///     cache: &Cache,
///     db: &Db,
///     owner: &str,
///     page: u32,
/// ) -> Result<Vec<String>, std::io::Error> {
///     db.names(owner, page).await
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), std::io::Error> {
/// # let db = Db;
/// let cache = Cache::memory(1 << 20).build();
/// let names = task_names(&cache, &db, "Ada", 1).await?;
///
/// // After a write to this page:
/// TASK_NAMES.forget(&cache, &("Ada", 1)).await;
/// # Ok(())
/// # }
/// ```
#[cfg(feature = "macros")]
pub use everfresh_macros::memoize;
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
