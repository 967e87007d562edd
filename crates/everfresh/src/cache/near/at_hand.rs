//! Values that this process keeps in decoded form.
//!
//! The entry of such a value holds only a digest of it. Each read confirms the entry, as usual, and takes the
//! value with that digest from this process; a process that does not have it reads its bytes, once, from an
//! entry of their own, which never changes. The rules for the entry are those of any other.

use std::{
    any::Any,
    fmt,
    hash::Hasher,
    ops::Deref,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use siphasher::sip128::Hasher128;

use super::NearValue;
use crate::backend::inspect::value_key;
use crate::cache::{
    Cache,
    codec::{deserialize, serialize},
    compute::Stored,
    lifetime::Lifetime,
};
use crate::freshness::computation::is_outdated;

/// The assumed ratio of the memory of a decoded value to its serialized size.
const EXPANSION: usize = 10;

/// Makes the schema of an entry that names its value another one than that of an entry that holds it.
const SCHEMA: u64 = 0x6174_2068_616e_6421;

/// A value that is kept in this process, shared by all that use it. Cloning is cheap.
pub struct AtHand<T>(Arc<Inner<T>>);

struct Inner<T> {
    value: T,
    digest: Option<u128>,
    form: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl<T> AtHand<T> {
    /// A value that is not kept.
    pub(crate) fn unkept(value: T) -> Self {
        Self::new(value, None)
    }

    fn new(value: T, digest: Option<u128>) -> Self {
        Self(Arc::new(Inner { value, digest, form: OnceLock::new() }))
    }

    /// Returns a text that differs for different values, for `of` of a fragment; `None` if the value is not kept:
    /// the cache stores no entries, or keeps no values in the process. Only the processes that share the cache's
    /// secret can compute it.
    #[must_use]
    pub fn digest(&self) -> Option<String> {
        self.0.digest.map(|digest| format!("{digest:032x}"))
    }

    /// Returns a form of the value, for example that for templates, which is made once and then kept with it.
    ///
    /// # Panics
    ///
    /// If the same value was asked for a form of another type before.
    #[must_use]
    pub fn form<U: Send + Sync + 'static>(&self, make: impl FnOnce(&T) -> U) -> &U {
        let form = self.0.form.get_or_init(|| Box::new(make(&self.0.value)));
        #[expect(clippy::expect_used, reason = "documented")]
        form.downcast_ref()
            .expect("a value at hand has one form: it was asked for another type before")
    }
}

impl<T> Clone for AtHand<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for AtHand<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: fmt::Debug> fmt::Debug for AtHand<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.value.fmt(f)
    }
}

impl<T: Default> Default for AtHand<T> {
    fn default() -> Self {
        Self::new(T::default(), None)
    }
}

impl Cache {
    /// Like [`Cache::get_or_compute_if`], for a value that this process keeps.
    pub(crate) async fn get_at_hand<T, E>(
        &self,
        key: &str,
        schema: u64,
        groups: &[String],
        lifetime: Lifetime,
        compute: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<AtHand<T>, E>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        if self.entries().is_null() || self.near().is_off() {
            let value = self.get_or_compute_if(key, schema, groups, lifetime, |_| true, compute);
            return Ok(AtHand::unkept(value.await?));
        }
        let stored = Stored { schema: schema ^ SCHEMA, groups, lifetime };
        let find = async |body: &Bytes| {
            let digest = u128::from_be_bytes(body.as_ref().try_into().ok()?);
            self.find_at_hand(schema, digest).await
        };
        let compute = async || {
            let value = compute().await?;
            Ok(self.keep_at_hand(value, schema, lifetime).await)
        };
        let name = |value: &AtHand<T>| Some(value.0.digest?.to_be_bytes().to_vec());
        self.find_or_fill(key, stored, find, name, compute).await
    }

    /// Returns the value with this digest: from this process, else from the servers.
    async fn find_at_hand<T>(&self, schema: u64, digest: u128) -> Option<AtHand<T>>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        if let Some(NearValue::Value(kept, _)) = self.near().get(digest) {
            return kept.downcast::<Inner<T>>().ok().map(AtHand);
        }
        let bytes = self.entries().get_named(&self.bytes_key(digest)).await.ok()??;
        // Bytes with another digest were damaged, or stored by another program. They have no seal.
        if self.digest_of::<T>(schema, &bytes) != digest {
            return None;
        }
        let value = AtHand::new(deserialize(&bytes)?, Some(digest));
        self.insert_at_hand(&value, digest, bytes.len());
        Some(value)
    }

    /// Keeps a value in this process and, if other processes share the cache, stores its bytes for them.
    async fn keep_at_hand<T>(&self, value: T, schema: u64, lifetime: Lifetime) -> AtHand<T>
    where
        T: Serialize + Send + Sync + 'static,
    {
        let Some(bytes) = serialize(&value) else { return AtHand::unkept(value) };
        let digest = self.digest_of::<T>(schema, &bytes);
        let value = AtHand::new(value, Some(digest));
        self.insert_at_hand(&value, digest, bytes.len());
        if self.is_shared() && !is_outdated() {
            let (key, term) = (self.bytes_key(digest), self.resolve(lifetime));
            self.entries().put_named_beside(key, bytes.into(), term.stored()).await;
        }
        value
    }

    /// Returns the digest of a serialized value, which only those who share the cache's secret can compute.
    fn digest_of<T>(&self, schema: u64, bytes: &[u8]) -> u128 {
        let mut hasher = self.entries().fingerprint_key().hasher();
        hasher.write_u64(schema);
        hasher.write(std::any::type_name::<T>().as_bytes());
        hasher.write(bytes);
        hasher.finish128().as_u128()
    }

    fn insert_at_hand<T: Send + Sync + 'static>(
        &self,
        value: &AtHand<T>,
        digest: u128,
        bytes: usize,
    ) {
        let kept: Arc<Inner<T>> = Arc::clone(&value.0);
        self.near().insert(digest, NearValue::Value(kept, bytes * EXPANSION));
    }

    fn bytes_key(&self, digest: u128) -> String {
        self.full_key(&value_key(digest))
    }
}
