//! Deletes entries when their input has changed.
//!
//! A write stores, in its own transaction, a row with its [`Invalidation`]. After the commit it calls
//! [`Cache::invalidate`], and removes the row if all deletions have been confirmed. Rows that are left
//! are replayed (see `replay`).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::cache::{Cache, key::append_escaped};

/// The keys of all entries that a write makes wrong, level by level: entries that others are made of
/// come first.
///
/// ```
/// use everfresh::Invalidation;
///
/// let invalidation = Invalidation::of(["tasks.all"]).then(["view//"]);
/// assert_eq!(Invalidation::from_text(&invalidation.to_text()), Some(invalidation));
/// ```
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Invalidation {
    pub(super) levels: Vec<Vec<String>>,
}

impl Invalidation {
    /// Creates an invalidation of the innermost keys.
    #[must_use]
    pub fn of<K: Into<String>>(keys: impl IntoIterator<Item = K>) -> Self {
        Self::default().then(keys)
    }

    /// Adds a level: the keys of entries that are made of those in the levels before.
    #[must_use]
    pub fn then<K: Into<String>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        let keys: Vec<_> = keys.into_iter().map(Into::into).collect();
        if !keys.is_empty() {
            self.levels.push(keys);
        }
        self
    }

    /// Returns whether it names no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    /// Returns the text for a column of the ledger: one line per level, keys separated by blanks.
    /// Blanks, line breaks and `%` within keys are percent-encoded.
    #[must_use]
    pub fn to_text(&self) -> String {
        let line =
            |keys: &Vec<String>| keys.iter().map(|k| escape(k)).collect::<Vec<_>>().join(" ");
        self.levels.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// Parses the result of [`Invalidation::to_text`]. Returns `None` for any other text.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let line = |line: &str| line.split(' ').map(unescape).collect::<Option<Vec<_>>>();
        let levels = text.split('\n').filter(|line| !line.is_empty()).map(line);
        Some(Self { levels: levels.collect::<Option<_>>()? })
    }

    /// Returns the keys of several invalidations, each on its level.
    pub(super) fn union(invalidations: &[Self]) -> Self {
        let depth = invalidations.iter().map(|i| i.levels.len()).max().unwrap_or(0);
        let level = |level| {
            let keys = invalidations.iter().filter_map(|i| i.levels.get(level)).flatten();
            keys.cloned().collect::<BTreeSet<_>>().into_iter().collect()
        };
        Self { levels: (0..depth).map(level).collect() }
    }
}

/// The escaped form of the empty key.
const EMPTY: &str = "%";

fn escape(key: &str) -> String {
    if key.is_empty() {
        return EMPTY.to_owned();
    }
    let mut escaped = String::with_capacity(key.len());
    append_escaped(&mut escaped, key, None);
    escaped
}

fn unescape(text: &str) -> Option<String> {
    if text == EMPTY {
        return Some(String::new());
    }
    let mut parts = text.split('%');
    let mut key = parts.next()?.to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        key.push(char::from(u8::from_str_radix(digits, 16).ok()?));
        key.push_str(rest);
    }
    (!key.is_empty()).then_some(key)
}

impl Cache {
    /// Deletes the entries of an invalidation, inner levels first, and returns whether all deletions
    /// are confirmed. If not, the row of the ledger must stay.
    ///
    /// It takes one round trip if all keys are on one server, which keeps the order, else one per
    /// level. A level that cannot be confirmed does not delay the next: an unreachable server must
    /// not keep pages on another one stale. The replay deletes all keys again, in order.
    pub async fn invalidate(&self, invalidation: &Invalidation) -> bool {
        let all: Vec<_> =
            invalidation.levels.iter().flatten().map(|key| self.full_key(key)).collect();
        let mut confirmed = true;
        if self.entries().keeps_order(&all) {
            confirmed = self.entries().delete_many(&all).await.into_iter().all(|deleted| deleted);
        } else {
            for keys in &invalidation.levels {
                let keys: Vec<_> = keys.iter().map(String::as_str).collect();
                confirmed &= self.delete_many(&keys).await;
            }
        }
        if self.is_shared() {
            self.deletions().add(all);
        }
        confirmed
    }

    /// Deletes the entries of several invalidations, which mostly have keys in common: the first
    /// levels of all, then the second ones, and so on. Returns for each whether it is confirmed.
    pub(super) async fn invalidate_together(&self, invalidations: &[Invalidation]) -> Vec<bool> {
        let union = Invalidation::union(invalidations);
        let mut unconfirmed = BTreeSet::new();
        for keys in &union.levels {
            let keys: Vec<_> = keys.iter().map(String::as_str).collect();
            for (key, confirmed) in keys.iter().zip(self.delete_each(&keys).await) {
                if !confirmed {
                    unconfirmed.insert(*key);
                }
            }
        }
        let is_confirmed = |invalidation: &Invalidation| {
            let mut keys = invalidation.levels.iter().flatten();
            keys.all(|key| !unconfirmed.contains(key.as_str()))
        };
        invalidations.iter().map(is_confirmed).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_is_parsed_as_it_was_written_whatever_the_keys(
            levels in prop::collection::vec(prop::collection::vec(any::<String>(), 1..4), 0..4),
        ) {
            let invalidation = Invalidation { levels };
            prop_assert_eq!(Invalidation::from_text(&invalidation.to_text()), Some(invalidation));
        }

        #[test]
        fn a_union_keeps_each_key_on_its_level(
            levels in prop::collection::vec(prop::collection::vec(any::<String>(), 0..4), 0..4),
            others in prop::collection::vec(prop::collection::vec(any::<String>(), 0..4), 0..4),
        ) {
            let pair = [Invalidation { levels }, Invalidation { levels: others }];
            let union = Invalidation::union(&pair);
            for invalidation in &pair {
                for (keys, all) in invalidation.levels.iter().zip(&union.levels) {
                    prop_assert!(keys.iter().all(|key| all.contains(key)));
                }
                prop_assert!(invalidation.levels.len() <= union.levels.len());
            }
            let keys = |i: &Invalidation| i.levels.iter().flatten().count();
            prop_assert!(keys(&union) <= keys(&pair[0]) + keys(&pair[1]));
        }

        #[test]
        fn no_text_causes_a_panic(text in "[%a-f0-9 \n\u{e9}]{0,20}") {
            let _ = Invalidation::from_text(&text);
        }
    }
}
