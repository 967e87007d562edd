//! Values that this process keeps under digests, so that it need not ask the servers for them.
//!
//! - A value that is asked for as one at hand is named by an entry of the cache: see [`at_hand`].
//! - A fragment with `of` and without a lifetime is proven by its name: template, key and the value of `of`
//!   are hashed to 128 bits with a secret key.
//!
//! So they never become wrong, and no write invalidates them; the least recently used is evicted.

pub(crate) mod at_hand;

use std::{
    any::Any,
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use moka::{policy::EvictionPolicy, sync::Cache as Memory};

/// The default bound of the values that are kept, in bytes.
pub(crate) const NEAR_BYTES: usize = 32 * 1024 * 1024;

/// The memory of a value without its bytes: its name, and what moka keeps for each entry.
const OVERHEAD: usize = 200;

/// A value that a process keeps.
#[derive(Clone, Debug)]
pub(crate) enum NearValue {
    /// A fragment in the form of templates, a safe text.
    #[cfg(feature = "tera")]
    Fragment(tera::Value),
    /// A decoded value, and its size in bytes.
    Value(Arc<dyn Any + Send + Sync>, usize),
}

impl NearValue {
    fn bytes(&self) -> usize {
        match self {
            #[cfg(feature = "tera")]
            Self::Fragment(text) => text.as_str().map_or(0, str::len),
            Self::Value(_, bytes) => *bytes,
        }
    }
}

/// The values that a process keeps. Cloning shares them.
#[derive(Clone, Debug)]
pub(crate) struct Near {
    /// `None` if no value is kept.
    values: Option<Memory<u128, NearValue, DigestHasherBuilder>>,
    /// The epoch of the cache in which they were kept.
    epoch: Arc<AtomicU64>,
}

impl Near {
    /// Keeps at most `bound` bytes; nothing if that is 0.
    pub(crate) fn new(bound: usize) -> Self {
        let weigh = |_: &u128, value: &NearValue| {
            u32::try_from(value.bytes() + OVERHEAD).unwrap_or(u32::MAX)
        };
        let memory = || {
            Memory::builder()
                .max_capacity(bound as u64)
                .weigher(weigh)
                .eviction_policy(EvictionPolicy::lru())
                .build_with_hasher(DigestHasherBuilder::default())
        };
        Self { values: (bound > 0).then(memory), epoch: Arc::default() }
    }

    /// Forgets the values of another epoch of the cache.
    pub(crate) fn follow(&self, epoch: u64) {
        if self.epoch.load(Ordering::Relaxed) != epoch
            && self.epoch.swap(epoch, Ordering::Relaxed) != epoch
        {
            self.clear();
        }
    }

    /// Returns whether no value is kept.
    pub(crate) fn is_off(&self) -> bool {
        self.values.is_none()
    }

    pub(crate) fn get(&self, name: u128) -> Option<NearValue> {
        self.values.as_ref()?.get(&name)
    }

    pub(crate) fn insert(&self, name: u128, value: NearValue) {
        if let Some(values) = &self.values {
            values.insert(name, value);
        }
    }

    pub(crate) fn clear(&self) {
        if let Some(values) = &self.values {
            values.invalidate_all();
        }
    }
}

pub(crate) type DigestHasherBuilder = BuildHasherDefault<DigestHasher>;

/// A hasher for digests, which are random already.
#[derive(Debug, Default)]
pub(crate) struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn write_u128(&mut self, digest: u128) {
        let [_, _, _, _, _, _, _, _, half @ ..] = digest.to_be_bytes();
        self.0 = u64::from_be_bytes(half);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
