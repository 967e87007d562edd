//! A function's result, kept by its arguments.

use std::marker::PhantomData;

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    backend::frame::{self as codec, Frame, Stamp},
    cache::Cache,
    cache::key::{KeyParts, join_key},
    cache::lifetime::Lifetime,
};

/// A function whose results are cached: its name, and the types of its arguments and result.
///
/// The name is written once, here; whoever calls the function or forgets results goes by the
/// constant.
///
/// ```
/// use everfresh::{Cache, Lifetime, Memo};
///
/// const SQUARE: Memo<u64, u64> = Memo::new("square", Lifetime::Forever);
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = Cache::memory(1 << 20).build();
/// let square = async |n: u64| SQUARE.call(&cache, &n, async || Ok::<_, ()>(n * n)).await;
/// assert_eq!(square(7).await, Ok(49));
///
/// assert!(SQUARE.forget(&cache, &7).await);
/// assert_eq!(SQUARE.key(&7), "square/7");
/// # }
/// ```
///
/// A [`Grouped`] one can forget all its results at once:
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
    types: PhantomData<fn(&A, G) -> T>,
}

/// A [`Memo`] that forgets one list of arguments at a time. A hit costs one entry.
#[derive(Clone, Copy, Debug)]
pub struct Single;

/// A [`Memo`] that can also forget all at once: each result belongs to a generation, whose number
/// is an entry of its own. A hit costs two round trips.
#[derive(Clone, Copy, Debug)]
pub struct Grouped;

/// What one call does otherwise than usual.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Mode {
    /// Serves what is stored, computes and stores what is not.
    #[default]
    Usual,
    /// Neither reads nor stores.
    Bypass,
    /// Computes in any case, and stores.
    Refresh,
}

impl<A: ?Sized, T> Memo<A, T, Single> {
    /// `name` must be no other function's.
    #[must_use]
    pub const fn new(name: &'static str, lifetime: Lifetime) -> Self {
        Self { name, lifetime, schema: 0, types: PhantomData }
    }
}

impl<A: ?Sized, T, G> Memo<A, T, G> {
    /// Serves only results that were stored with the same version (and those given before).
    ///
    /// For types that change while old processes still run, or with entries that outlive them: a
    /// result without a field that is now required is a miss in any case, but serde reads an
    /// `Option` that is missing as `None`, and passes over fields that it does not know. Processes
    /// of either version still forget each other's results, for the key is the same.
    ///
    /// ```text
    /// // Another version whenever the file changes that the type stands in.
    /// const TASKS: Memo<(), Vec<Task>> =
    ///     Memo::new("tasks", Lifetime::Forever).versioned_by(include_str!("task.rs"));
    /// ```
    #[must_use]
    pub const fn versioned_by(mut self, version: &str) -> Self {
        // FNV-1a, which can be computed while compiling, over the length and the text.
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

impl<A: ?Sized, T> Memo<A, T, Grouped> {
    /// Likewise; all results can be forgotten at once.
    #[must_use]
    pub const fn grouped(name: &'static str, lifetime: Lifetime) -> Self {
        Self { name, lifetime, schema: 0, types: PhantomData }
    }

    /// The key that stands for all results, for an [`Invalidation`](crate::Invalidation).
    #[must_use]
    pub fn key_of_all(&self) -> String {
        generation_key(self.name)
    }

    /// Forgets all results. Whether that is certain.
    pub async fn forget_all(&self, cache: &Cache) -> bool {
        cache.delete(&self.key_of_all()).await
    }
}

impl<A: KeyParts + ?Sized, T: Serialize + DeserializeOwned, G: Grouping> Memo<A, T, G> {
    /// The key of the result for these arguments, for an [`Invalidation`](crate::Invalidation).
    #[must_use]
    pub fn key(&self, arguments: &A) -> String {
        let mut parts = Vec::new();
        arguments.parts(&mut |part| parts.push(part.to_owned()));
        join_key(self.name, parts)
    }

    /// The result for these arguments: what is stored, or what `compute` returns.
    pub async fn call<E>(
        &self,
        cache: &Cache,
        arguments: &A,
        compute: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.call_with(cache, arguments, Mode::Usual, |_| true, compute).await
    }

    /// Likewise, in another mode, and keeping only what `is_kept` holds for.
    pub async fn call_with<E>(
        &self,
        cache: &Cache,
        arguments: &A,
        mode: Mode,
        is_kept: impl Fn(&T) -> bool,
        compute: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        if mode == Mode::Bypass {
            return compute().await;
        }
        let key = self.key(arguments);
        if mode == Mode::Refresh && !cache.delete(&key).await {
            // What is stored may still be found.
            return compute().await;
        }
        let Some(fingerprint) = G::generation(cache, self.name).await else {
            return compute().await;
        };
        let stamp = Stamp { schema: self.schema, fingerprint };
        cache.get_or_compute_if(&key, stamp, self.lifetime, is_kept, compute).await
    }

    /// Forgets the result for these arguments. Whether that is certain.
    pub async fn forget(&self, cache: &Cache, arguments: &A) -> bool {
        cache.delete(&self.key(arguments)).await
    }
}

/// No list of arguments gives this: in a part of a key, `%` is always followed by two digits.
fn generation_key(name: &str) -> String {
    join_key::<&str>(name, []) + "/%all"
}

/// Whether results belong to a generation.
pub trait Grouping: sealed::Sealed {}

impl<G: sealed::Sealed> Grouping for G {}

mod sealed {
    use super::{Cache, Grouped, Single, generation};

    pub trait Sealed {
        /// The number that results must have; `None` if it cannot be told.
        fn generation(cache: &Cache, name: &str) -> impl Future<Output = Option<u64>>;
    }

    impl Sealed for Single {
        async fn generation(_: &Cache, _: &str) -> Option<u64> {
            Some(0)
        }
    }

    impl Sealed for Grouped {
        async fn generation(cache: &Cache, name: &str) -> Option<u64> {
            generation(cache, name).await
        }
    }
}

/// The number of the current generation: a new one, if all results have been forgotten.
async fn generation(cache: &Cache, name: &str) -> Option<u64> {
    let key = generation_key(name);
    for _ in 0..2 {
        let full_key = cache.full_key(&key);
        let found = cache.backend().get(&full_key, false).await;
        let found = found.inspect_err(|failure| cache.failed(*failure)).ok()?;
        let is_free = found.is_none();
        let number =
            found.and_then(|found| match cache.secret().open(&full_key, &found.bytes)? {
                Frame::Entry { body, .. } => codec::deserialize(&body),
                Frame::Lease(_) => None,
            });
        if number.is_some() {
            return number;
        }
        let number = rand::random();
        let is_stored = if is_free {
            cache.add(&key, &number, Lifetime::Forever).await
        } else {
            cache.set(&key, &number, Lifetime::Forever).await
        };
        if is_stored {
            return Some(number);
        }
    }
    None
}
