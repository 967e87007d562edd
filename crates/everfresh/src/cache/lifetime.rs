//! The lifetime of an entry.

use std::time::Duration;

/// The lifetime of an entry.
///
/// There is no "none": other libraries take it for five minutes, ten minutes, or for ever.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Lifetime {
    /// The [default lifetime](crate::CacheBuilder::default_lifetime) of the cache; for ever if it has
    /// none.
    #[default]
    Default,
    /// This duration. An entry with a lifetime of zero is not stored.
    For(Duration),
    /// Until the entry is deleted or evicted.
    Forever,
}

impl Lifetime {
    /// Returns the duration; `None` for an unlimited one.
    pub(crate) fn resolve(self, default: Option<Duration>) -> Option<Duration> {
        match self {
            Self::Default => default,
            Self::For(duration) => Some(duration),
            Self::Forever => None,
        }
    }
}
