//! The epoch of a cache, which a clear ends.
//!
//! Servers cannot delete the entries of one app alone. So each entry of a shared cache carries an epoch, and one
//! of another epoch is no entry. The current epoch is a number in the cache, which each process reads
//! at its first use and then every few seconds, beside the operations that ask for it.
//!
//! The epoch is part of what an entry must prove, and not of its key: while two processes know different
//! epochs, they take each other's entries for none, but each still deletes what the other has stored.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::sync::OnceCell;

use super::{
    entries::Entries,
    types::{BackendError, Delta, NewNumber},
};
use crate::freshness::beside::beside;

/// The time between two looks at the number.
const INTERVAL: Duration = Duration::from_secs(3);

/// The epoch as this process knows it.
#[derive(Debug)]
pub(super) struct Epoch {
    /// The key of the number; `None` if no other process sees the entries.
    key: Option<String>,
    current: AtomicU64,
    started: Instant,
    first_look: OnceCell<()>,
    /// When to look again, in nanoseconds since the start.
    next_look: AtomicU64,
}

impl Epoch {
    pub(super) fn new(key: Option<String>) -> Self {
        let (current, next_look) = (AtomicU64::new(0), AtomicU64::new(0));
        let (started, first_look) = (Instant::now(), OnceCell::new());
        Self { key, current, started, first_look, next_look }
    }

    /// Returns the epoch; 0 if the entries have none, or it is not known.
    pub(super) fn current(&self) -> u64 {
        self.current.load(Ordering::Relaxed)
    }

    /// Returns whether the caller is to look at the number: one does, and no other until the next interval.
    fn is_due(&self) -> bool {
        let now = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let due = self.next_look.load(Ordering::Relaxed);
        if now < due {
            return false;
        }
        let interval = u64::try_from(INTERVAL.as_nanos()).unwrap_or(u64::MAX);
        let next = now.saturating_add(interval);
        let won = self.next_look.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed);
        won.is_ok()
    }
}

impl Entries {
    /// Looks at the epoch, if it is time to. All callers wait for the first look.
    pub(super) async fn watch_epoch(&self) {
        let epoch = &self.shared.epoch;
        if epoch.key.is_none() {
            return;
        }
        if !epoch.first_look.initialized() {
            let look = async || {
                epoch.is_due();
                // Without an answer, the next look is due as any other.
                let _ = self.add_to_epoch(0).await;
            };
            Box::pin(epoch.first_look.get_or_init(look)).await;
        } else if epoch.is_due() {
            let entries = self.clone();
            beside(async move { entries.add_to_epoch(0).await }).await;
        }
    }

    /// Begins a new epoch of all entries. Other processes follow within a few seconds. Returns whether that
    /// is certain.
    pub(crate) async fn end_epoch(&self) -> bool {
        self.checked(self.add_to_epoch(1).await).is_ok()
    }

    /// Adds to the number and notes the sum. Adding zero reads it, and is not counted as a lookup by the servers.
    async fn add_to_epoch(&self, by: u64) -> Result<(), BackendError> {
        let Some(key) = &self.shared.epoch.key else { return Ok(()) };
        // When the server of the number has lost it, the entries on other servers stay as they are. A cache that is
        // new to all processes does not begin with a number that was used before.
        let known = Some(self.shared.epoch.current()).filter(|known| *known != 0);
        let value = known.map_or_else(rand::random, |known| known.wrapping_add(by));
        let new = NewNumber { value, lifetime: None };
        let counted = self.shared.backend.count(key, Delta::Up(by), new).await?;
        if let Some(number) = counted {
            self.shared.epoch.current.store(number, Ordering::Relaxed);
        }
        Ok(())
    }
}
