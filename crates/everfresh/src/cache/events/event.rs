//! The events.

use std::time::Duration;

/// An event of a cache, for an observer ([`CacheBuilder::observe`](crate::CacheBuilder::observe)).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CacheEvent<'a> {
    /// The layer that it is counted for.
    pub layer: &'static str,
    /// The key as the backend knows it, with the prefix of the cache; empty if the event is about no single key.
    pub key: &'a str,
    /// What happened.
    pub kind: CacheEventKind,
    /// The time of the lookup, for a hit and a miss; of the wait; or of the computation. `None` where it is not
    /// known.
    pub duration: Option<Duration>,
}

/// What happened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CacheEventKind {
    /// An entry was found. Fragments that the process keeps are counted as hits, but are no events.
    Hit {
        /// The size of its body.
        bytes: usize,
    },
    /// An entry was served after its lifetime. A hit precedes it.
    Stale,
    /// No entry was found.
    Miss,
    /// A value was computed.
    Computed,
    /// A value was stored.
    Fill {
        /// The size of its body.
        bytes: usize,
    },
    /// A computed value was not stored: its entry was changed meanwhile, or the backend failed.
    NotKept,
    /// A caller waited for a value that another one was computing.
    Wait,
    /// An operation of the backend failed.
    Error,
}

impl CacheEventKind {
    /// Returns the name of the kind, in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit { .. } => "hit",
            Self::Stale => "stale",
            Self::Miss => "miss",
            Self::Computed => "computed",
            Self::Fill { .. } => "fill",
            Self::NotKept => "not kept",
            Self::Wait => "wait",
            Self::Error => "error",
        }
    }
}
