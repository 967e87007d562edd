//! Clears a cache by ending its epoch, and follows the clears of other processes.

use std::sync::atomic::Ordering;

use super::{
    entries::Entries,
    types::{BackendError, Delta, NewNumber},
};
use crate::freshness::beside::beside;

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
        self.checked("", self.add_to_epoch(1).await).is_ok()
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
