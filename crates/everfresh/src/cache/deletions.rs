//! Keys that this process has deleted after writes. The next lookup of each is likely to miss, and a value whose
//! computation began before is not worth sending to a server.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The number of keys beyond which all are forgotten, which only costs a round trip or a vain store each.
const MAX_KEYS: usize = 1000;

/// Keys as the backend knows them. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deletions(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The number of calls of [`Deletions::add`] so far.
    now: u64,
    keys: HashMap<String, Deletion>,
}

#[derive(Debug)]
struct Deletion {
    at: u64,
    /// Whether the key has not been looked up since.
    is_unread: bool,
}

impl Deletions {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, deleted: Vec<String>) {
        let mut state = self.state();
        state.now += 1;
        if state.keys.len() >= MAX_KEYS {
            state.keys.clear();
        }
        let at = state.now;
        state.keys.extend(deleted.into_iter().map(|key| (key, Deletion { at, is_unread: true })));
    }

    /// Returns whether a miss is expected, once for each deletion.
    #[cfg_attr(not(feature = "actix"), expect(dead_code, reason = "asked for pages"))]
    pub(crate) fn expects_miss(&self, key: &str) -> bool {
        self.state().keys.get_mut(key).is_some_and(|key| std::mem::take(&mut key.is_unread))
    }

    /// Returns the present, for [`has_deleted`](Self::has_deleted).
    pub(crate) fn now(&self) -> u64 {
        self.state().now
    }

    /// Returns whether the key has been deleted after `since`.
    pub(crate) fn has_deleted(&self, key: &str, since: u64) -> bool {
        self.state().keys.get(key).is_some_and(|deletion| deletion.at > since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|key| (*key).to_owned()).collect()
    }

    #[test]
    fn a_miss_is_expected_once_after_a_deletion() {
        let deletions = Deletions::default();
        deletions.add(keys(&["a", "b"]));
        let expected = ["a", "a", "b", "c"].map(|key| deletions.expects_miss(key));
        assert_eq!(expected, [true, false, true, false]);
    }

    #[test]
    fn a_deletion_is_known_for_what_began_before() {
        let deletions = Deletions::default();
        deletions.add(keys(&["a"]));
        let begun = deletions.now();
        assert!(!deletions.has_deleted("a", begun));
        deletions.add(keys(&["a"]));
        assert!(deletions.expects_miss("a"));
        assert!(deletions.has_deleted("a", begun), "a lookup does not change that");
        assert!(!deletions.has_deleted("b", begun));
    }

    #[test]
    fn the_number_of_keys_is_bounded() {
        let deletions = Deletions::default();
        for key in 0..3 * MAX_KEYS {
            deletions.add(vec![key.to_string()]);
        }
        assert!(deletions.state().keys.len() <= MAX_KEYS);
    }
}
