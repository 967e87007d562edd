//! Keys that this process has deleted: the next lookup of each is likely to miss.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The number of keys beyond which all are forgotten, which only costs a round trip each.
const MAX_KEYS: usize = 1000;

/// Keys as the backend knows them. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExpectedMisses(Arc<Mutex<HashSet<String>>>);

impl ExpectedMisses {
    fn keys(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, deleted: Vec<String>) {
        let mut keys = self.keys();
        if keys.len() >= MAX_KEYS {
            keys.clear();
        }
        keys.extend(deleted);
    }

    /// Returns whether a miss is expected, once.
    #[cfg_attr(not(feature = "actix"), expect(dead_code, reason = "asked for pages"))]
    pub(crate) fn take(&self, key: &str) -> bool {
        self.keys().remove(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_miss_is_expected_once_after_a_deletion() {
        let expected = ExpectedMisses::default();
        expected.add(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(["a", "a", "b", "c"].map(|key| expected.take(key)), [true, false, true, false]);
    }

    #[test]
    fn the_number_of_keys_is_bounded() {
        let expected = ExpectedMisses::default();
        for key in 0..3 * MAX_KEYS {
            expected.add(vec![key.to_string()]);
        }
        assert!(expected.keys().len() <= MAX_KEYS);
    }
}
