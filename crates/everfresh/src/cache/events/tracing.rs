//! Events of a cache as events of the crate `tracing`.

use super::event::{CacheEvent, CacheEventKind};
use crate::cache::builder::CacheBuilder;

impl CacheBuilder {
    /// Emits each event of the cache as an event of the crate `tracing` with the target `everfresh`: a failed operation at
    /// the level `WARN`, all others at `DEBUG`.
    #[must_use]
    pub fn trace(self) -> Self {
        self.observe(emit)
    }
}

fn emit(event: &CacheEvent<'_>) {
    let CacheEvent { layer, key, kind, duration } = *event;
    let name = kind.name();
    match kind {
        CacheEventKind::Error => {
            tracing::warn!(target: "everfresh", layer, key, "{name}");
        }
        CacheEventKind::Hit { bytes } | CacheEventKind::Fill { bytes } => {
            tracing::debug!(target: "everfresh", layer, key, ?duration, bytes, "{name}");
        }
        _ => tracing::debug!(target: "everfresh", layer, key, ?duration, "{name}"),
    }
}
