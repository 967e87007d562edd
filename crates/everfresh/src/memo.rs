//! Memoized functions: results stored under a key of their arguments.

use std::{any::type_name, convert::Infallible, marker::PhantomData};

use serde::{Serialize, de::DeserializeOwned};

use crate::cache::{
    Cache,
    compute::Stored,
    key::{
        arguments::{ArgumentsKey, arguments_key},
        join_key,
    },
    lifetime::Lifetime,
    near::at_hand::AtHand,
};

/// A function with cached results: its name, and the types of its arguments and result.
///
/// Declare it as a constant, so that callers and invalidations use the same name. Or let
#[cfg_attr(feature = "macros", doc = "[`memoize`](crate::memoize)")]
#[cfg_attr(not(feature = "macros"), doc = "`memoize` (with the feature `macros`)")]
/// declare it for a function.
///
/// The arguments are any type that serde can serialize; several are a tuple. Different arguments give different
/// keys. Fields that the type does not serialize are not part of the key. A `HashSet` is no argument, because equal sets
/// are serialized in different orders: take a `BTreeSet`; a debug build panics. Borrowed arguments need no copy:
/// a `Memo<(u64, &str), T>` takes any `&(number, text)`.
///
/// ```
/// use everfresh::{Cache, Lifetime, Memo};
///
/// const SQUARE: Memo<u64, u64> = Memo::new("square", Lifetime::Forever);
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = Cache::memory(1 << 20).build();
/// let square = async |n: u64| SQUARE.get_with(&cache, &n, async || n * n).await;
/// assert_eq!(square(7).await, 49);
///
/// assert!(SQUARE.forget(&cache, &7).await);
/// assert_eq!(SQUARE.key(&7), "square/7");
/// # }
/// ```
///
/// A [`Grouped`] memo can forget all its results at once:
///
/// ```
/// use everfresh::{Grouped, Lifetime, Memo};
///
/// const PRICE: Memo<(u64, String), u64, Grouped> = Memo::grouped("price", Lifetime::Forever);
/// # async fn f(cache: &everfresh::Cache) {
/// PRICE.forget_all(cache).await;
/// # }
/// ```
#[derive(Debug)]
pub struct Memo<A: ?Sized, T, G = Single> {
    name: &'static str,
    lifetime: Lifetime,
    schema: u64,
    groups: &'static [&'static str],
    /// Covariant, so that a constant with `&'static str` takes any `&str`.
    types: Types<A, T, G>,
}

type Types<A, T, G> = PhantomData<(fn() -> PhantomData<A>, fn() -> (T, G))>;

/// The kind of a [`Memo`] that forgets the result of one list of arguments at a time. A hit reads one
/// entry.
#[derive(Clone, Copy, Debug)]
pub struct Single;

/// The kind of a [`Memo`] that can also forget all results at once: each result belongs to a
/// group of the memo (see [`group_key`](crate::group_key)). A hit takes one round trip, if both are on one
/// server.
#[derive(Clone, Copy, Debug)]
pub struct Grouped;

/// The use of the cache by one call.
///
/// ```
/// use everfresh::{Cache, Lifetime, Memo, Mode};
///
/// const RATE: Memo<(), u64> = Memo::new("rate", Lifetime::Forever);
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = Cache::memory(1 << 20).build();
/// let rate = async |mode: Mode, current: u64| {
///     let compute = async || Ok::<_, ()>(current);
///     // Zero stands for "not known yet" and is not worth storing.
///     RATE.call_with(&cache, &(), mode, |rate| *rate != 0, compute).await
/// };
/// assert_eq!(rate(Mode::Usual, 3).await, Ok(3));
/// assert_eq!(rate(Mode::Usual, 4).await, Ok(3));
/// assert_eq!(rate(Mode::Refresh, 5).await, Ok(5));
/// assert_eq!(rate(Mode::Bypass, 6).await, Ok(6));
/// assert_eq!(rate(Mode::Usual, 7).await, Ok(5));
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Mode {
    /// Returns the stored result, or computes and stores it.
    #[default]
    Usual,
    /// Computes the result, without reading or storing.
    Bypass,
    /// Computes and stores the result, without reading.
    Refresh,
}

impl<A: ?Sized, T> Memo<A, T, Single> {
    /// Declares a memo. Its name must be unique within the cache: memos of one name and different types never
    /// read each other's results, but displace them. A debug build panics at the first use of the second one.
    #[must_use]
    pub const fn new(name: &'static str, lifetime: Lifetime) -> Self {
        Self { name, lifetime, schema: 0, groups: &[], types: PhantomData }
    }
}

impl<A: ?Sized, T, G> Memo<A, T, G> {
    /// Adds a version: only results stored with the same versions are used.
    ///
    /// Change it with the type of the result, while entries or processes of the old type may still
    /// exist. Without that, a result that lacks a required field is a miss, but serde reads a missing
    /// `Option` as `None` and ignores unknown fields. The version is not part of the key, so processes
    /// of different versions still invalidate each other's results.
    ///
    /// ```
    /// use everfresh::{Lifetime, Memo};
    ///
    /// # type Task = String;
    /// // "2": with a due date.
    /// const TASKS: Memo<(), Vec<Task>> =
    ///     Memo::new("tasks", Lifetime::Forever).versioned_by("2");
    /// ```
    #[must_use]
    pub const fn versioned_by(mut self, version: &str) -> Self {
        // FNV-1a over length and text, because it can be computed at compile time.
        let bytes = version.as_bytes();
        let mut hash = self.schema ^ 0xcbf2_9ce4_8422_2325 ^ bytes.len() as u64;
        let mut at = 0;
        while at < bytes.len() {
            hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
            at += 1;
        }
        self.schema = hash;
        self
    }
}

impl<A: ?Sized, T, G> Memo<A, T, G> {
    /// Puts all results into groups, by their names: each result is forgotten also when one of its groups
    /// is, by [`group_key`](crate::group_key). See [`Cache::get_or_compute_in`].
    ///
    /// ```
    /// use everfresh::{Lifetime, Memo};
    ///
    /// // The results for all pages and searches are forgotten with the group.
    /// const PAGE: Memo<(u32, String), Vec<String>> =
    ///     Memo::new("tasks.page", Lifetime::Forever).in_groups(&["tasks"]);
    /// ```
    #[must_use]
    pub const fn in_groups(mut self, groups: &'static [&'static str]) -> Self {
        self.groups = groups;
        self
    }
}

impl<A: ?Sized, T> Memo<A, T, Grouped> {
    /// Declares a memo that can forget all its results at once. See [`Memo::new`].
    #[must_use]
    pub const fn grouped(name: &'static str, lifetime: Lifetime) -> Self {
        Self { name, lifetime, schema: 0, groups: &[], types: PhantomData }
    }

    /// Returns the key that stands for all results, for an [`Invalidation`](crate::Invalidation).
    #[must_use]
    pub fn key_of_all(&self) -> String {
        generation_key(self.name)
    }

    /// Forgets all results. Returns whether that is certain.
    pub async fn forget_all(&self, cache: &Cache) -> bool {
        cache.delete(&self.key_of_all()).await
    }
}

impl<A: Serialize + ?Sized, T: Serialize + DeserializeOwned, G: Grouping> Memo<A, T, G> {
    /// Returns the key of the result for these arguments, for an
    /// [`Invalidation`](crate::Invalidation).
    #[must_use]
    pub fn key(&self, arguments: &A) -> String {
        // Arguments without a key have no stored result.
        arguments_key(self.name, arguments)
            .map_or_else(|| join_key(self.name, [""; 0]) + NO_KEY, |of| of.key)
    }

    /// Returns the stored result for these arguments, or computes and stores it. See
    /// [`Cache::get_or_compute`] for the duties of `compute`.
    pub async fn call<E>(
        &self,
        cache: &Cache,
        arguments: &A,
        compute: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.call_with(cache, arguments, Mode::Usual, |_| true, compute).await
    }

    /// Returns the stored results for several lists of arguments, in the same order, computing all those that are
    /// missing in one call. See [`Cache::get_or_compute_many`]: `compute` returns pairs of arguments and result. The
    /// arguments may be of another type that serde serializes alike: `String` for `&str`, a number for a newtype.
    ///
    /// ```
    /// use everfresh::{Cache, Lifetime, Memo};
    ///
    /// const USER: Memo<i64, String> = Memo::new("user", Lifetime::Forever);
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory(1 << 20).build();
    /// let find = async |missing: &[&i64]| {
    ///     let rows = missing.iter().filter(|id| ***id < 3).map(|id| (**id, format!("user {id}")));
    ///     Ok::<Vec<_>, std::io::Error>(rows.collect())
    /// };
    /// let users = USER.call_many(&cache, &[1, 2, 3], find).await.unwrap();
    /// assert_eq!(users, [Some("user 1".to_owned()), Some("user 2".to_owned()), None]);
    /// assert!(USER.forget(&cache, &1).await);
    /// # }
    /// ```
    pub async fn call_many<B, E, I>(
        &self,
        cache: &Cache,
        arguments: &[A],
        compute: impl AsyncFn(&[&A]) -> Result<I, E>,
    ) -> Result<Vec<Option<T>>, E>
    where
        A: Sized,
        B: Serialize,
        I: IntoIterator<Item = (B, T)>,
    {
        let (groups, schema) = (self.full_groups(cache), self.schema(cache));
        let stored = Stored { schema, groups: &groups, lifetime: self.lifetime };
        // Arguments without a key have no value.
        let no_key = || ArgumentsKey { key: join_key(self.name, [""; 0]) + NO_KEY, kinds: 0 };
        let keys: Vec<_> = arguments
            .iter()
            .map(|arguments| arguments_key(self.name, arguments).unwrap_or_else(no_key))
            .collect();
        let compute = async |indices: &[usize]| {
            let missing: Vec<_> = indices.iter().map(|index| &arguments[*index]).collect();
            let pairs = compute(&missing).await?.into_iter();
            let pairs = pairs.filter_map(|(arguments, value)| {
                Some((arguments_key(self.name, &arguments)?, value))
            });
            Ok(pairs.collect())
        };
        cache.find_or_fill_many(&keys, stored, compute).await
    }

    /// Like [`Memo::call`], for a computation that cannot fail.
    pub async fn get_with(
        &self,
        cache: &Cache,
        arguments: &A,
        compute: impl AsyncFnOnce() -> T,
    ) -> T {
        let compute = async || Ok::<_, Infallible>(compute().await);
        let Ok(value) = self.call(cache, arguments, compute).await;
        value
    }

    /// Like [`Memo::call`], in any [`Mode`], storing only results for which `is_cacheable` returns
    /// `true`.
    pub async fn call_with<E>(
        &self,
        cache: &Cache,
        arguments: &A,
        mode: Mode,
        is_cacheable: impl Fn(&T) -> bool,
        compute: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let key = arguments_key(self.name, arguments).filter(|_| mode != Mode::Bypass);
        let Some(ArgumentsKey { key, kinds }) = key else { return compute().await };
        if mode == Mode::Refresh && !cache.delete(&key).await {
            // The old result may still be there and would be returned below.
            return compute().await;
        }
        let (groups, schema) = (self.full_groups(cache), self.schema(cache) ^ kinds);
        let lifetime = self.lifetime;
        cache.get_or_compute_if(&key, schema, &groups, lifetime, is_cacheable, compute).await
    }

    /// Like [`Memo::call`], for a large result that is used often: this process keeps it, decoded, within
    /// [`CacheBuilder::near`](crate::CacheBuilder::near), and each call only confirms by one small entry that it is
    /// still the current one. All calls of a memo must be of this kind, or of the other.
    ///
    /// ```
    /// use everfresh::{Cache, Lifetime, Memo};
    ///
    /// const WORDS: Memo<(), Vec<String>> = Memo::new("words", Lifetime::Forever);
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), std::io::Error> {
    /// let cache = Cache::memory(1 << 20).build();
    /// let words = async || WORDS.at_hand(&cache, &(), async || Ok(vec!["a".to_owned()])).await;
    /// let first: Result<_, std::io::Error> = words().await;
    /// let (first, second) = (first?, words().await?);
    /// assert!(std::ptr::eq(&first[0], &second[0]), "the same vector");
    ///
    /// // A form of it is made once, too.
    /// let page = second.form(|words| format!("<p>{}", words.join(" ")));
    /// assert_eq!(page, "<p>a");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn at_hand<E>(
        &self,
        cache: &Cache,
        arguments: &A,
        compute: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<AtHand<T>, E>
    where
        T: Send + Sync + 'static,
    {
        let Some(ArgumentsKey { key, kinds }) = arguments_key(self.name, arguments) else {
            return Ok(AtHand::unkept(compute().await?));
        };
        let (groups, schema) = (self.full_groups(cache), self.schema(cache) ^ kinds);
        cache.get_at_hand(&key, schema, &groups, self.lifetime, compute).await
    }

    /// Returns the schema of the entries: the versions and the types, so that memos of one name do not read each
    /// other's results.
    fn schema(&self, cache: &Cache) -> u64 {
        let types = [type_name::<A>(), type_name::<T>()];
        cache.declare_memo(self.name, self.schema, types);
        types.into_iter().fold(self.schema, hash_name)
    }

    /// Returns the keys of the groups of all results.
    fn full_groups(&self, cache: &Cache) -> Vec<String> {
        let mut groups: Vec<_> =
            self.groups.iter().map(|name| cache.full_group_key(name)).collect();
        if G::IS_GROUPED {
            groups.push(cache.full_key(&generation_key(self.name)));
        }
        groups
    }

    /// Forgets the result for these arguments. Returns whether that is certain.
    pub async fn forget(&self, cache: &Cache, arguments: &A) -> bool {
        cache.delete(&self.key(arguments)).await
    }
}

/// Hashes the name of a type, eight bytes at a time: this is done at each call.
fn hash_name(hash: u64, name: &str) -> u64 {
    name.as_bytes().chunks(8).fold(hash.rotate_left(1), |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        (hash.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

/// Ends the key of arguments that make none: nothing is stored there.
const NO_KEY: &str = "/%no-key";

/// The key of a memo's generation. No arguments give this key: within a part of a key, `%` is always
/// followed by two digits.
fn generation_key(name: &str) -> String {
    join_key::<&str>(name, []) + "/%all"
}

/// The kind of a [`Memo`]: [`Single`] or [`Grouped`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a kind of memo",
    note = "a memo is `Single` or `Grouped`"
)]
pub trait Grouping: sealed::Sealed {}

impl<G: sealed::Sealed> Grouping for G {}

mod sealed {
    pub trait Sealed {
        const IS_GROUPED: bool;
    }
}

impl sealed::Sealed for Single {
    const IS_GROUPED: bool = false;
}

impl sealed::Sealed for Grouped {
    const IS_GROUPED: bool = true;
}
