//! Clears a cache by ending its epoch, and follows the clears of other processes.

use super::{
    entries::{Entries, now},
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
                let _ = self.agree_on_epoch().await;
            };
            Box::pin(epoch.first_look.get_or_init(look)).await;
        } else if epoch.is_due() {
            let entries = self.clone();
            beside(async move { entries.agree_on_epoch().await }).await;
        }
    }

    /// Begins a new epoch of all entries. Other processes follow within a few seconds. Returns whether that
    /// is certain.
    pub(crate) async fn end_epoch(&self) -> bool {
        self.checked("", self.begin_epoch().await).is_ok()
    }

    async fn begin_epoch(&self) -> Result<(), BackendError> {
        let epoch = &self.shared.epoch;
        let Some(key) = &epoch.key else { return Ok(()) };
        // By the clock, so that it is a new one also if the server has lost the last one. The number always grows,
        // so that it is a new one whatever the clocks say.
        let begun = epoch.current().saturating_add(1).max(now());
        let new = NewNumber { value: begun, lifetime: None };
        let counted = self.shared.backend.count(key, Delta::Up(1), new).await?;
        epoch.advance(counted.unwrap_or_default().max(begun));
        self.agree_on_epoch().await
    }

    /// Looks at the epoch, and writes it if this process knows a later one, or if the server has lost it. Adding to
    /// a number reads it, too, and is not counted as a lookup by the servers.
    async fn agree_on_epoch(&self) -> Result<(), BackendError> {
        let epoch = &self.shared.epoch;
        let Some(key) = &epoch.key else { return Ok(()) };
        loop {
            let known = epoch.current();
            let new = NewNumber { value: known, lifetime: None };
            let Some(found) = self.shared.backend.count(key, Delta::Up(0), new).await? else {
                return Ok(());
            };
            epoch.advance(found);
            if found >= known {
                return Ok(());
            }
            self.shared.backend.count(key, Delta::Up(known - found), new).await?;
        }
    }
}
