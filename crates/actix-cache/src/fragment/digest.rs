//! What a template's output depends on, as a number. Pure.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
};

use tera::Value;

use super::lower::Components;

/// One template, as it was written.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
    /// The templates that it includes or extends.
    pub(super) references: &'a BTreeSet<String>,
    pub(super) components: Components,
}

/// All templates. Their numbers are the same in every process of one build; another build's may
/// differ, which costs a miss.
pub(super) struct Digests<'a>(HashMap<&'a str, Source<'a>>);

impl<'a> Digests<'a> {
    pub(super) fn of(sources: impl Iterator<Item = Source<'a>>) -> Self {
        Self(sources.map(|source| (source.name, source)).collect())
    }

    /// The number of a template with all that it includes and extends, and with all components if
    /// it uses any.
    pub(super) fn of_template(&self, name: &str) -> u64 {
        let mut reached = BTreeSet::new();
        let mut ahead = vec![name];
        while let Some(name) = ahead.pop() {
            let Some(source) = self.0.get(name) else {
                // Not among these: it might be any.
                return self.of_all();
            };
            if reached.insert(source.name) {
                ahead.extend(source.references.iter().map(String::as_str));
                if source.components.used {
                    let all = self.0.values().filter(|source| source.components.defined);
                    ahead.extend(all.map(|source| source.name));
                }
            }
        }
        self.of_names(reached)
    }

    pub(super) fn of_all(&self) -> u64 {
        self.of_names(self.0.keys().copied().collect())
    }

    fn of_names(&self, names: BTreeSet<&str>) -> u64 {
        let mut hasher = DefaultHasher::new();
        for name in names {
            (name, self.0.get(name).map(|source| source.text)).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// A number that is another for every other version.
pub(super) fn versioned(digest: u64, version: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (digest, version).hash(&mut hasher);
    hasher.finish()
}

/// The fingerprint of a value: equal for equal values, whatever the order of a map.
pub(super) fn of_value(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    feed(value, &mut hasher);
    hasher.finish()
}

fn feed(value: &Value, hasher: &mut DefaultHasher) {
    value.kind().hash(hasher);
    if let Some(text) = value.as_str() {
        (text, value.is_safe()).hash(hasher);
    } else if let Some(items) = value.as_array() {
        items.len().hash(hasher);
        for item in items {
            feed(item, hasher);
        }
    } else if let Some(map) = value.as_map() {
        let entries = map.iter().map(|(key, value)| {
            let mut hasher = DefaultHasher::new();
            key.hash(&mut hasher);
            feed(value, &mut hasher);
            hasher.finish()
        });
        map.len().hash(hasher);
        entries.fold(0, u64::wrapping_add).hash(hasher);
    } else if let Some(bytes) = value.as_bytes() {
        bytes.hash(hasher);
    } else if let Some(number) = value.as_i64() {
        number.hash(hasher);
    } else {
        value.to_string().hash(hasher);
    }
}
