//! How long an entry lives.

use std::time::Duration;

/// How long an entry lives.
///
/// There is no "none": in other libraries that has meant five minutes, ten minutes, or for ever.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Lifetime {
    /// What the cache was built with; for ever if that says nothing.
    #[default]
    Default,
    /// This long. Zero is not stored at all.
    For(Duration),
    /// Until it is deleted or evicted.
    Forever,
}

impl Lifetime {
    /// The duration, `None` for ever, given what [`Lifetime::Default`] stands for.
    pub(crate) fn resolve(self, default: Option<Duration>) -> Option<Duration> {
        match self {
            Self::Default => default,
            Self::For(duration) => Some(duration),
            Self::Forever => None,
        }
    }
}
