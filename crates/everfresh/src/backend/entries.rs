//! Reads and writes entries of the backend. Stored entries are stamped and sealed here; entries that are
//! read are checked. Failed operations are counted here, hits and misses by the callers, which know
//! whether a value can be used.
//!
//! Keys are those of the backend, with the cache's prefix.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;

use super::{
    AnyBackend,
    epoch::Epoch,
    frame::{FingerprintKey, Frame, HEADER, Secret, Stamp},
    types::{BackendError, CasToken, Holder, StoredBytes, SwapOutcome},
};
use crate::cache::{
    events::{CacheEventKind, Events, stats::Counters},
    lifetime::Term,
};

/// The entries of a cache, as seen and counted by one of its layers. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Entries {
    pub(super) shared: Arc<Shared>,
    pub(super) events: Events,
}

pub(super) struct Shared {
    pub(super) backend: AnyBackend,
    pub(super) secret: Secret,
    fingerprint_key: FingerprintKey,
    pub(super) epoch: Epoch,
    lease_lifetime: Duration,
}

/// A key, and the stamp that an entry must have to be used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot<'a> {
    pub(crate) key: &'a str,
    pub(crate) stamp: Stamp,
}

impl<'a> Slot<'a> {
    /// A slot for entries without a stamp.
    pub(crate) fn unstamped(key: &'a str) -> Self {
        Self { key, stamp: Stamp::default() }
    }
}

/// The state of a slot.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// Not read yet.
    Unknown,
    /// The body of the entry.
    Hit(Bytes, Option<CasToken>),
    /// The body of an entry that has outlived its lifetime, but may be served stale.
    Stale(Bytes, Option<CasToken>),
    /// No entry, or bytes that are not a valid entry of the slot, with their token.
    Miss(Option<CasToken>),
    /// Another computation has reserved the key, and the time of its lease is not over. Processes
    /// whose clocks differ by more may both compute; what they store is fresh in any case.
    Leased(Holder, Option<CasToken>),
    /// The backend failed.
    Failed,
}

/// An entry to be stored.
pub(crate) struct NewEntry {
    pub(crate) key: String,
    pub(crate) stamp: Stamp,
    pub(crate) body: Bytes,
}

impl Entries {
    pub(crate) fn new(
        backend: AnyBackend,
        secret: Secret,
        epoch_key: String,
        lease_lifetime: Duration,
        events: Events,
    ) -> Self {
        // Entries that never leave the process need no seal.
        let (secret, fingerprint_key) = if backend.is_shared() {
            (secret, secret.fingerprint_key())
        } else {
            (Secret::unneeded(), FingerprintKey(rand::random(), rand::random()))
        };
        let epoch = Epoch::new(backend.is_shared().then_some(epoch_key));
        let shared = Shared { backend, secret, fingerprint_key, epoch, lease_lifetime };
        Self { shared: Arc::new(shared), events }
    }

    /// The same entries, counted by other counters.
    pub(crate) fn counted_by(&self, counters: Arc<Counters>) -> Self {
        Self { shared: Arc::clone(&self.shared), events: self.events.of_layer(counters) }
    }

    pub(crate) fn backend_name(&self) -> &'static str {
        self.shared.backend.name()
    }

    /// Returns whether other processes see the same entries.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.backend.is_shared()
    }

    /// Returns whether this is the null backend, so that a lookup would be a waste.
    pub(crate) fn is_null(&self) -> bool {
        self.shared.backend.is_null()
    }

    /// The client of the servers, if entries are there.
    #[cfg(feature = "memcached")]
    pub(crate) fn client(&self) -> Option<&memcached_client::Client> {
        self.shared.backend.client()
    }

    pub(crate) fn fingerprint_key(&self) -> FingerprintKey {
        self.shared.fingerprint_key
    }

    /// Returns the epoch of the cache, as this process knows it.
    pub(crate) fn epoch(&self) -> u64 {
        self.shared.epoch.current()
    }

    /// Returns the time for which a lease reserves its key, and so the longest computation that is stored.
    pub(crate) fn lease_lifetime(&self) -> Duration {
        self.shared.lease_lifetime
    }

    /// Reads a frame. An entry of another epoch has another stamp than it was stored with.
    fn open(&self, key: &str, stored: &StoredBytes) -> Option<Frame> {
        let mut frame = self.shared.secret.open(key, &stored.bytes)?;
        if let Frame::Entry { stamp, .. } = &mut frame {
            *stamp = self.in_epoch(*stamp);
        }
        Some(frame)
    }

    /// Makes the stamp of a slot that of its entries in the current epoch, and the reverse.
    fn in_epoch(&self, stamp: Stamp) -> Stamp {
        Stamp { schema: stamp.schema ^ self.epoch().wrapping_mul(0x9e37_79b9_7f4a_7c15), ..stamp }
    }

    /// Reads the state of a slot with its token. Counts neither a hit nor a miss.
    pub(crate) async fn look_up(&self, slot: Slot<'_>) -> Lookup {
        self.watch_epoch().await;
        self.state(slot, self.checked(slot.key, self.shared.backend.get(slot.key, true).await))
    }

    /// Reads stored bytes, with their tokens where the backend tells them, in one round trip per server.
    pub(crate) async fn get_each(
        &self,
        keys: &[&str],
    ) -> Vec<Result<Option<StoredBytes>, BackendError>> {
        self.watch_epoch().await;
        let found = self.shared.backend.get_many(keys).await.into_iter();
        found.zip(keys).map(|(found, key)| self.checked(key, found)).collect()
    }

    /// Returns the generation of a group, if the stored bytes are one.
    pub(crate) fn generation(&self, group: &str, stored: &StoredBytes) -> Option<u128> {
        let body = self.body(Slot::unstamped(group), stored)?;
        Some(u128::from_be_bytes(body.as_ref().try_into().ok()?))
    }

    /// Returns the state of a slot, given what was found there.
    pub(crate) fn state(
        &self,
        slot: Slot<'_>,
        found: Result<Option<StoredBytes>, BackendError>,
    ) -> Lookup {
        let stored = match found {
            Ok(Some(stored)) => stored,
            Ok(None) => return Lookup::Miss(None),
            Err(_) => return Lookup::Failed,
        };
        match self.open(slot.key, &stored) {
            Some(Frame::Entry { stamp, body, fresh_until }) if stamp == slot.stamp => {
                if is_over(fresh_until) {
                    Lookup::Stale(body, stored.token)
                } else {
                    Lookup::Hit(body, stored.token)
                }
            }
            Some(Frame::Lease { id, ends_at }) if now() < ends_at => {
                Lookup::Leased(Holder::Named(id), stored.token)
            }
            _ => match stored.token {
                // The server lets it expire.
                Some(token) if stored.bytes.is_empty() => {
                    Lookup::Leased(Holder::Unnamed(token.number()), Some(token))
                }
                token => Lookup::Miss(token),
            },
        }
    }

    /// Reads the body of an entry. Counts neither a hit nor a miss.
    pub(crate) async fn get(&self, slot: Slot<'_>) -> Result<Option<Bytes>, BackendError> {
        self.watch_epoch().await;
        let stored = self.checked(slot.key, self.shared.backend.get(slot.key, false).await)?;
        Ok(stored.and_then(|stored| self.body(slot, &stored)))
    }

    fn body(&self, slot: Slot<'_>, stored: &StoredBytes) -> Option<Bytes> {
        match self.open(slot.key, stored)? {
            Frame::Entry { stamp, body, fresh_until } => {
                (stamp == slot.stamp && !is_over(fresh_until)).then_some(body)
            }
            Frame::Lease { .. } => None,
        }
    }

    /// Reads the stamps and bodies of entries, whatever their stamps, in one round trip per server.
    /// Counts neither hits nor misses.
    pub(crate) async fn get_many(
        &self,
        keys: &[&str],
    ) -> Vec<Result<Option<(Stamp, Bytes)>, BackendError>> {
        self.watch_epoch().await;
        let found = self.shared.backend.get_many(keys).await.into_iter();
        found
            .zip(keys)
            .map(|(found, key)| match self.checked(key, found)? {
                Some(stored) => match self.open(key, &stored) {
                    Some(Frame::Entry { stamp, body, fresh_until }) if !is_over(fresh_until) => {
                        Ok(Some((stamp, body)))
                    }
                    _ => Ok(None),
                },
                None => Ok(None),
            })
            .collect()
    }

    /// Stores an entry that another entry names. Does not count as a fill.
    #[cfg(feature = "actix")]
    pub(crate) async fn put(
        &self,
        slot: Slot<'_>,
        body: &[u8],
        term: Term,
    ) -> Result<(), BackendError> {
        self.watch_epoch().await;
        self.put_named(slot.key, self.frame(slot, body, term), term.stored()).await
    }

    /// Returns an entry as it is stored.
    fn frame(&self, slot: Slot<'_>, body: &[u8], term: Term) -> Bytes {
        let (secret, stamp) = (self.shared.secret, self.in_epoch(slot.stamp));
        match term.fresh.filter(|_| term.has_stale_time()) {
            None => secret.entry(slot.key, stamp, body),
            Some(fresh) => {
                let fresh_until = now().saturating_add(milliseconds(fresh));
                secret.aging_entry(slot.key, stamp, body, fresh_until)
            }
        }
    }

    /// Stores entries in one round trip per server. Counts each stored entry as a fill.
    pub(crate) async fn put_many(
        &self,
        entries: Vec<NewEntry>,
        term: Term,
    ) -> Vec<Result<(), BackendError>> {
        self.watch_epoch().await;
        let frames = entries.into_iter().map(|NewEntry { key, stamp, body }| {
            let frame = self.frame(Slot { key: &key, stamp }, &body, term);
            (key, frame)
        });
        let frames: Vec<_> = frames.collect();
        let outcomes = self.shared.backend.set_many(&frames, term.stored()).await.into_iter();
        outcomes
            .zip(&frames)
            .map(|(outcome, (key, frame))| {
                self.stored(key, outcome)?;
                let bytes = frame.len() - HEADER;
                self.note(key, CacheEventKind::Fill { bytes }, None);
                Ok(())
            })
            .collect()
    }

    /// Stores an entry if the key is free. Returns whether it was stored. Does not count as a fill.
    pub(crate) async fn add(
        &self,
        slot: Slot<'_>,
        body: &[u8],
        term: Term,
    ) -> Result<bool, BackendError> {
        self.watch_epoch().await;
        let frame = self.frame(slot, body, term);
        let added = self.shared.backend.add(slot.key, &frame, term.stored()).await;
        if self.stored(slot.key, added)?.is_some() {
            return Ok(true);
        }
        // Bytes that are no entry of the slot, such as those of a cleared one, do not count.
        match self.look_up(slot).await {
            Lookup::Miss(Some(token)) | Lookup::Stale(_, Some(token)) => {
                Ok(matches!(self.swap(slot, body, term, token).await?, SwapOutcome::Stored(_)))
            }
            _ => Ok(false),
        }
    }

    /// Stores an entry if the slot still is in the state of the token. Does not count as a fill.
    pub(crate) async fn swap(
        &self,
        slot: Slot<'_>,
        body: &[u8],
        term: Term,
        token: CasToken,
    ) -> Result<SwapOutcome, BackendError> {
        let frame = self.frame(slot, body, term);
        let swapped = self.shared.backend.swap(slot.key, &frame, term.stored(), token).await;
        self.stored(slot.key, swapped)
    }

    /// Gives an entry another lifetime, and another body if there is one.
    /// Returns whether it was stored: not if there is no entry, or if it was changed meanwhile.
    ///
    /// The bytes travel both ways: no server can tell whether a key holds an entry or a lease.
    pub(crate) async fn rewrite(
        &self,
        slot: Slot<'_>,
        body: Option<&[u8]>,
        term: Term,
    ) -> Result<bool, BackendError> {
        match self.look_up(slot).await {
            Lookup::Hit(present, Some(token)) => {
                let body = body.unwrap_or(&present);
                Ok(matches!(self.swap(slot, body, term, token).await?, SwapOutcome::Stored(_)))
            }
            Lookup::Failed => Err(BackendError::Unavailable),
            _ => Ok(false),
        }
    }

    /// Deletes entries in one round trip per server. Returns for each whether it is certain to be
    /// gone.
    pub(crate) async fn delete_many(&self, keys: &[String]) -> Vec<bool> {
        let outcomes = self.shared.backend.delete_many(keys).await.into_iter();
        outcomes.zip(keys).map(|(outcome, key)| self.checked(key, outcome).is_ok()).collect()
    }

    /// Returns whether these keys are on one server, which processes a batch in order: the deletions of
    /// [`delete_many`](Self::delete_many), or several reservations.
    pub(crate) fn keeps_order(&self, keys: &[String]) -> bool {
        self.shared.backend.keeps_order(keys)
    }

    /// Deletes everything that the backend stores, of other programs too. Returns whether that is certain.
    pub(crate) async fn clear(&self) -> bool {
        self.checked("", self.shared.backend.clear().await).is_ok()
    }
}

/// Returns whether the lifetime of an entry is over.
fn is_over(fresh_until: Option<u64>) -> bool {
    fresh_until.is_some_and(|end| now() >= end)
}

/// The time of this process's clock, in milliseconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, milliseconds)
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
