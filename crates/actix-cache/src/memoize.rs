//! A function's result, kept by its arguments.

use std::marker::PhantomData;

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    cache::Cache,
    key::{KeyParts, join_key},
    lifetime::Lifetime,
};

/// A function whose results are cached: its name, and the types of its arguments and result.
///
/// The name is written once, here; whoever calls the function or forgets results goes by the
/// constant.
///
/// ```
/// use actix_cache::{Cache, Lifetime, Memo};
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
#[derive(Debug)]
pub struct Memo<A: ?Sized, T> {
    name: &'static str,
    lifetime: Lifetime,
    types: PhantomData<fn(&A) -> T>,
}

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

impl<A: KeyParts + ?Sized, T: Serialize + DeserializeOwned> Memo<A, T> {
    /// `name` must be no other function's.
    #[must_use]
    pub const fn new(name: &'static str, lifetime: Lifetime) -> Self {
        Self { name, lifetime, types: PhantomData }
    }

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
        cache.get_or_compute_if(&key, self.lifetime, is_kept, compute).await
    }

    /// Forgets the result for these arguments. Whether that is certain.
    pub async fn forget(&self, cache: &Cache, arguments: &A) -> bool {
        cache.delete(&self.key(arguments)).await
    }
}
