//! Groups: many entries that one deletion makes invalid.
//!
//! A list has pages, filters and searches: the keys that a write makes wrong cannot all be named. A group is
//! one key with a random number, its generation. An entry of the group carries the generation under which
//! it was made, and is valid only while that is the current one. To forget the group, its key is deleted.
//!
//! - Generation and entry are read in one batch, before the input of the value. A value that was made of
//!   older input is stored with a generation that can never be current again: generations are random, so
//!   none is used twice, not even after a restart or an eviction.
//! - Computations are shared only among readers of the same generation ([`Slot`] is part of the name of a
//!   flight). Each has read it after it came, so what it shares was computed after the last write that had
//!   been answered by then.

use std::hash::Hasher;

use siphasher::sip128::Hasher128;

use crate::{
    backend::{
        entries::{Entries, Lookup, Slot},
        frame::Stamp,
    },
    cache::{Cache, key::append_escaped},
};

/// Returns the key that stands for a group, for an [`Invalidation`](crate::Invalidation).
///
/// ```
/// use everfresh::{Invalidation, group_key, view_key};
///
/// // Lists and searches are made of tasks; the start page is made of lists.
/// let invalidation = Invalidation::of([group_key("tasks")]).then([view_key("/")]);
/// # let _ = invalidation;
/// ```
#[must_use]
pub fn group_key(name: &str) -> String {
    // No other key begins like this: elsewhere `%` is always followed by two digits.
    let mut key = "%group/".to_owned();
    append_escaped(&mut key, name, None);
    key
}

impl Cache {
    /// Returns the key of a group as the backend knows it.
    pub(crate) fn full_group_key(&self, name: &str) -> String {
        self.full_key(&group_key(name))
    }
}

impl Entries {
    /// Reads the state of the slot that a key has in the current generations of its groups, in one round
    /// trip per server. Returns no stamp if a generation is unknown: then nothing may be stored or shared.
    pub(crate) async fn look_up_in(
        &self,
        key: &str,
        schema: u64,
        groups: &[String],
    ) -> (Lookup, Option<Stamp>) {
        let (mut found, fingerprint) = self.look_up_all_in(&[(key, schema)], groups).await;
        let stamp = fingerprint.map(|fingerprint| Stamp { schema, fingerprint });
        (found.pop().unwrap_or(Lookup::Failed), stamp)
    }

    /// Like [`look_up_in`](Self::look_up_in), for several keys, each with a schema, of the same groups. Returns the
    /// fingerprint of all their stamps; without it, no states.
    pub(crate) async fn look_up_all_in<K: AsRef<str>>(
        &self,
        keys: &[(K, u64)],
        groups: &[String],
    ) -> (Vec<Lookup>, Option<u128>) {
        let keys_of_groups = groups.iter().map(String::as_str);
        let all: Vec<_> = keys.iter().map(|(key, _)| key.as_ref()).chain(keys_of_groups).collect();
        let mut found = self.get_each(&all).await;
        let found_groups = found.split_off(all.len() - groups.len());
        let mut fingerprint = self.fingerprint_key().hasher();
        for (group, found) in groups.iter().zip(found_groups) {
            let Ok(found) = found else { return (Vec::new(), None) };
            let generation = match found.and_then(|found| self.generation(group, &found)) {
                Some(generation) => Some(generation),
                None => self.begin_generation(group).await,
            };
            let Some(generation) = generation else { return (Vec::new(), None) };
            fingerprint.write_u128(generation);
        }
        let fingerprint = if groups.is_empty() { 0 } else { fingerprint.finish128().as_u128() };
        let states = keys.iter().zip(found).map(|((key, schema), found)| {
            let stamp = Stamp { schema: *schema, fingerprint };
            self.state(Slot { key: key.as_ref(), stamp }, found)
        });
        (states.collect(), Some(fingerprint))
    }

    /// Begins a generation of a group without one. If another reader is faster, returns its generation;
    /// `None` if the backend failed.
    async fn begin_generation(&self, group: &str) -> Option<u128> {
        let slot = Slot::unstamped(group);
        for _ in 0..2 {
            let generation: u128 = rand::random();
            match self.add(slot, &generation.to_be_bytes(), None.into()).await {
                Ok(true) => return Some(generation),
                Ok(false) => {}
                Err(_) => return None,
            }
            let found = self.get_each(&[group]).await.pop()?.ok()?;
            // Without bytes, it was forgotten at once.
            if let Some(found) = found {
                if let Some(generation) = self.generation(group, &found) {
                    return Some(generation);
                }
                // Foreign bytes.
                self.delete_many(&[group.to_owned()]).await;
            }
        }
        None
    }
}
