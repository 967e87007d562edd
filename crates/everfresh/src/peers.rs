//! Where users of other caches find what they know: this crate beside Flask-Caching, Django, Rails, `cached` and moka.
//!
//! "–" means that the library does not have it; what an app can build on it does not count.
//!
//! | | Flask-Caching | Django | Rails | `cached` | moka | here |
//! |---|---|---|---|---|---|---|
//! | result of a function | `@memoize` | `get_or_set` | `fetch` | `#[cached]` | `get_with`, `try_get_with` | [`memoize`](crate::memoize), [`Memo`](crate::Memo), [`Cache::get_with`](crate::Cache::get_with), [`Cache::get_or_compute`](crate::Cache::get_or_compute) |
//! | whole page | `@cached` | `cache_page` | gem actionpack-page_caching | – | – | [`ViewCache`](crate::ViewCache) |
//! | fragment of a template | `{% cache %}` | `{% cache %}` | `cache do` | – | – | `{% cache %}`: [`Templates`](crate::Templates) |
//! | nested fragments, renewed from within | – | – | Russian doll caching | – | – | `of=`: [`Templates`](crate::Templates) |
//! | sessions | Flask-Session | `SESSION_ENGINE` | `:cache_store` | – | – | [`CacheSessionStore`](crate::CacheSessionStore) |
//! | get, set, add, replace, touch, contains | `get`, `set`, `add`, `has` | `get`, `set`, `add`, `touch`, `in` | `read`, `write`, `exist?` | trait `Cached` | `get`, `insert`, `contains_key` | [`Cache`](crate::Cache) |
//! | many at once | `get_many`, `set_many` | `get_many`, `set_many` | `read_multi`, `write_multi` | – | – | [`Cache::get_many`](crate::Cache::get_many), [`Cache::set_many`](crate::Cache::set_many), [`Cache::delete_many`](crate::Cache::delete_many) |
//! | many computed at once | – | – | `fetch_multi` | – | – | [`Cache::get_or_compute_many`](crate::Cache::get_or_compute_many), [`Memo::call_many`](crate::Memo::call_many) |
//! | counters | `inc`, `dec` of cachelib | `incr`, `decr` | `increment`, `decrement` | – | – | [`Cache::counter`](crate::Cache::counter) |
//! | concurrent misses share one computation | – | – | – | `sync_writes` | yes | yes, over all workers; other processes wait for up to 100 ms |
//! | the old value while one computes | – | – | `race_condition_ttl` | – | – | [`Lifetime::stale_for`](crate::Lifetime::stale_for) |
//! | the last value after an error | – | – | – | `result_fallback` | – | [`Lifetime::stale_for`](crate::Lifetime::stale_for) |
//! | forget all results of a function | `delete_memoized` | – | – | clear its own store | `invalidate_all` | [`Memo::forget_all`](crate::Memo::forget_all), [`group_key`](crate::group_key) |
//! | forget many entries by one name | – | a version of keys | a version of keys | – | `invalidate_entries_if` | [`group_key`](crate::group_key) |
//! | renew on demand | `forced_update` | – | `force: true` | – | – | [`Mode::Refresh`](crate::Mode::Refresh), [`Cache::renew`](crate::Cache::renew), [`ViewCacheBuilder::renew_if`](crate::ViewCacheBuilder::renew_if) |
//! | use only for some calls | `unless` | – | `skip_nil` | `result`, `option` | – | [`Mode::Bypass`](crate::Mode::Bypass), [`Memo::call_with`](crate::Memo::call_with), [`ViewCacheBuilder::unless`](crate::ViewCacheBuilder::unless), [`ViewCacheBuilder::only_if`](crate::ViewCacheBuilder::only_if) |
//! | value read before a write is not stored after it | – | – | – | – | – | leases: [`Cache::get_or_compute`](crate::Cache::get_or_compute) |
//! | a crash between commit and deletion | stale | stale | stale | stale | in process | replayed: [`Cache::writer`](crate::Cache::writer) |
//! | clear on memcached | all programs | all programs | all programs | – | – | this cache alone: [`Cache::clear`](crate::Cache::clear); all programs: [`Cache::clear_servers`](crate::Cache::clear_servers) |
//! | bound of the in-process cache | entries | entries | bytes | entries | entries or weight | bytes: [`Cache::memory`](crate::Cache::memory) |
//! | events, metrics | – | – | `ActiveSupport::Notifications` | hits and misses | eviction listener | [`CacheBuilder::observe`](crate::CacheBuilder::observe), [`CacheBuilder::trace`](crate::CacheBuilder::trace), [`CacheMetrics`](crate::CacheMetrics), [`Cache::stats`](crate::Cache::stats) |
//! | other backends | Redis, files, own class | Redis, database, files, own class | Redis, files, own class | Redis, disk | – | `everfresh-redis`, [`backend`](crate::backend) |
//!
//! # Left out on purpose
//!
//! - **Deleting by a pattern of keys**: no memcached can, and on Redis it reads all keys. Groups do it by one deletion.
//! - **A lifetime that begins anew at each read**: an entry that is read often would never be renewed.
//! - **Eviction listeners**: servers evict without telling.
//! - **Files or a database as the backend**: slower than the query that they would save, and never evicted by need.
//! - **A key from the source code of a function** (`source_check`): a new version of a type is declared, by
//!   [`Memo::versioned_by`](crate::Memo::versioned_by).
//! - **"No result" as a miss** (`cache_none`): a stored `None` is a hit; to store some results only, see
//!   [`Memo::call_with`](crate::Memo::call_with).
//! - **Pages that answer POST.**
//! - **Operations that return errors**: a cache that cannot be reached is one without entries. Observers are told.
