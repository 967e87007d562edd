use std::time::Duration;

/// The lifetime of an entry.
///
/// There is no "none": other libraries take it for five minutes, ten minutes, or for ever.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Lifetime {
    /// The [default lifetime](crate::CacheBuilder::default_lifetime) of the cache; for ever if it has
    /// none.
    #[default]
    Default,
    /// This duration. An entry with a lifetime of zero is not stored.
    For(Duration),
    /// Until the entry is deleted or evicted.
    Forever,
    /// This duration, and then another one in which the entry may be served stale. See
    /// [`Lifetime::stale_for`].
    ForThenStale {
        /// The time in which the entry is served.
        fresh: Duration,
        /// The time after that.
        stale: Duration,
    },
}

impl Lifetime {
    /// Lets an entry be served for some time after its lifetime: while one caller computes it again, and
    /// after a computation that failed. A write that deletes the entry, or forgets its group, still takes effect at
    /// once.
    ///
    /// For values that are slow to compute and may be a little old: weather, a feed, a rate. Used by
    /// [`Cache::get_or_compute`](crate::Cache::get_or_compute) and the like, by memos and by the view cache; elsewhere, and in batches,
    /// the entry ends with its lifetime.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use everfresh::{Cache, Lifetime, Memo};
    ///
    /// const WEATHER: Memo<str, String> = Memo::new(
    ///     "weather",
    ///     Lifetime::For(Duration::from_secs(60)).stale_for(Duration::from_secs(3600)),
    /// );
    /// ```
    ///
    /// # Panics
    ///
    /// If the lifetime is not [`Lifetime::For`]: an entry that only a write makes wrong is never served stale. In a
    /// constant, this is an error of the compiler.
    #[must_use]
    pub const fn stale_for(self, stale: Duration) -> Self {
        match self {
            Self::For(fresh) => Self::ForThenStale { fresh, stale },
            #[expect(clippy::panic, reason = "documented")]
            _ => panic!("only an entry with a lifetime of its own can be served stale: use `For`"),
        }
    }

    /// Returns the term of an entry, given the default lifetime of its cache.
    pub(crate) fn resolve(self, default: Option<Duration>) -> Term {
        match self {
            Self::Default => default.into(),
            Self::For(duration) => Some(duration).into(),
            Self::Forever => None.into(),
            Self::ForThenStale { fresh, stale } => Term { fresh: Some(fresh), stale },
        }
    }
}

/// How long an entry is served.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Term {
    /// `None`: until it is deleted.
    pub(crate) fresh: Option<Duration>,
    /// The time after that in which it may be served stale.
    pub(crate) stale: Duration,
}

impl Term {
    /// Returns the time for which the backend stores the entry; `None` for ever.
    pub(crate) fn stored(self) -> Option<Duration> {
        self.fresh.map(|fresh| fresh.saturating_add(self.stale))
    }

    /// Returns whether the entry is not to be stored at all.
    pub(crate) fn is_zero(self) -> bool {
        self.fresh == Some(Duration::ZERO)
    }

    /// Returns whether the entry may be served stale.
    pub(crate) fn has_stale_time(self) -> bool {
        self.stale > Duration::ZERO
    }

    /// Returns the term with at most this time in which the entry is fresh.
    #[cfg(feature = "actix")]
    pub(crate) fn at_most(self, fresh: Option<Duration>) -> Self {
        Self { fresh: self.fresh.into_iter().chain(fresh).min(), ..self }
    }
}

impl From<Option<Duration>> for Term {
    fn from(fresh: Option<Duration>) -> Self {
        Self { fresh, stale: Duration::ZERO }
    }
}
