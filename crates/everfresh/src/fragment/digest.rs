//! Digests of templates and fingerprints of values. Pure.
//!
//! An entry is served only if its digest and fingerprint match: they cover everything that a
//! fragment's text was made from.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{Hash, Hasher},
};

use siphasher::{
    sip::SipHasher13,
    sip128::{self, Hasher128},
};
use tera::{Map, Value};

use super::lower::Components;
use crate::backend::frame::{FingerprintKey, Stamp};

/// One template, before it is lowered.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
    /// The templates that it includes or extends, by name.
    pub(super) references: &'a BTreeSet<String>,
    pub(super) components: Components,
}

/// Computes digests over a set of templates, by name.
///
/// The digests are equal in all processes of one build. Another build may compute different ones,
/// which costs a miss.
pub(super) struct Digests<'a>(HashMap<&'a str, Source<'a>>);

impl<'a> Digests<'a> {
    pub(super) fn of(sources: impl Iterator<Item = Source<'a>>) -> Self {
        Self(sources.map(|source| (source.name, source)).collect())
    }

    /// Returns the digest of a template and of all that it includes and extends, directly or not.
    /// If one of these uses a component, the templates that define components count as well.
    pub(super) fn of_template(&self, name: &str) -> u64 {
        let mut reached = BTreeSet::new();
        let mut ahead = vec![name];
        while let Some(name) = ahead.pop() {
            let Some(source) = self.0.get(name) else {
                // The name is computed while rendering, so it could be any template's.
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

    /// Returns the digest of all templates.
    pub(super) fn of_all(&self) -> u64 {
        self.of_names(self.0.keys().copied().collect())
    }

    fn of_names(&self, names: BTreeSet<&str>) -> u64 {
        let mut hasher = SipHasher13::new();
        for name in names {
            (name, self.0.get(name).map(|source| source.text)).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// Returns a digest that depends on the version, too.
pub(super) fn versioned(digest: u64, version: &str) -> u64 {
    let mut hasher = SipHasher13::new();
    (digest, version).hash(&mut hasher);
    hasher.finish()
}

/// Returns the fingerprint of a value. Equal values have equal fingerprints, whatever the order of
/// a map's entries and the width of an integer. A safe text differs from the same unsafe text,
/// because a page shows them differently.
pub(super) fn of_value(value: &Value, key: FingerprintKey) -> u128 {
    let mut hasher = keyed(key);
    feed(value, key, &mut hasher);
    hasher.finish128().as_u128()
}

/// Returns the key of a fragment among those that are kept in this process: it covers everything that the
/// fragment was made of.
pub(super) fn of_fragment(entry_key: &str, stamp: Stamp, key: FingerprintKey) -> u128 {
    let mut hasher = keyed(key);
    hasher.write_u128(stamp.fingerprint);
    hasher.write_u64(stamp.schema);
    hasher.write(entry_key.as_bytes());
    hasher.finish128().as_u128()
}

fn keyed(FingerprintKey(first, second): FingerprintKey) -> sip128::SipHasher13 {
    sip128::SipHasher13::new_with_keys(first, second)
}

/// The kind of a value, as it is hashed.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    SafeText,
    Integer,
    Array,
    Map,
    Bytes,
    Other,
}

/// Hashes a value. Each value begins with its kind and length, so that different values never give
/// the hasher the same bytes. The calls to the hasher are few, because this runs for each fragment
/// of a page.
fn feed(value: &Value, key: FingerprintKey, hasher: &mut sip128::SipHasher13) {
    if let Some(text) = value.as_str() {
        let kind = if value.is_safe() { Kind::SafeText } else { Kind::Text };
        feed_text(kind, text, hasher);
    } else if let Some(number) = value.as_i64() {
        begin(Kind::Integer, 0, hasher);
        hasher.write_i64(number);
    } else if let Some(items) = value.as_array() {
        begin(Kind::Array, items.len(), hasher);
        for item in items {
            feed(item, key, hasher);
        }
    } else if let Some(map) = value.as_map() {
        begin(Kind::Map, map.len(), hasher);
        if let Some(fields) = sorted_fields(map) {
            for (name, value) in fields.into_iter().flatten() {
                feed_text(Kind::Text, name, hasher);
                feed(value, key, hasher);
            }
            return;
        }
        // The sum of the entries' hashes does not depend on their order.
        let entries = map.iter().map(|(name, value)| {
            let mut entry = keyed(key);
            match name.as_str() {
                Some(text) => feed_text(Kind::Text, text, &mut entry),
                None => feed(&name.as_value(), key, &mut entry),
            }
            feed(value, key, &mut entry);
            entry.finish128().as_u128()
        });
        hasher.write_u128(entries.fold(0, u128::wrapping_add));
    } else if let Some(bytes) = value.as_bytes() {
        begin(Kind::Bytes, bytes.len(), hasher);
        hasher.write(bytes);
    } else {
        begin(Kind::Other, 0, hasher);
        (value.kind(), value.to_string()).hash(hasher);
    }
}

/// The number of fields up to which those of a struct are sorted: that takes less than to hash each of them
/// separately.
const FEW_FIELDS: usize = 8;

/// Returns the fields of a map with few fields, all named by texts, in the order of their names.
fn sorted_fields(map: &Map) -> Option<[Option<(&str, &Value)>; FEW_FIELDS]> {
    if map.len() > FEW_FIELDS {
        return None;
    }
    let mut fields = [None; FEW_FIELDS];
    for (field, (name, value)) in fields.iter_mut().zip(map) {
        *field = Some((name.as_str()?, value));
    }
    fields[..map.len()].sort_unstable_by_key(|field| field.map(|(name, _)| name));
    Some(fields)
}

fn feed_text(kind: Kind, text: &str, hasher: &mut sip128::SipHasher13) {
    begin(kind, text.len(), hasher);
    hasher.write(text.as_bytes());
}

fn begin(kind: Kind, length: usize, hasher: &mut sip128::SipHasher13) {
    hasher.write_u64((length as u64) << 8 | kind as u64);
}

#[cfg(test)]
mod tests {
    use tera::value::Key;

    use super::*;

    fn of_value(value: &Value) -> u128 {
        super::of_value(value, FingerprintKey(1, 2))
    }

    #[test]
    fn another_key_gives_other_fingerprints() {
        let value = Value::from(vec![Value::from("text"), map([("a", Value::from(1))])]);
        assert_ne!(of_value(&value), super::of_value(&value, FingerprintKey(1, 3)));
    }

    fn map<const N: usize>(entries: [(&'static str, Value); N]) -> Value {
        Value::from(entries.map(|(key, value)| (Key::Str(key), value)).into_iter().collect::<Map>())
    }

    #[test]
    fn the_order_of_a_map_does_not_change_its_fingerprint() {
        let (a, b, c) = (("a", Value::from(1)), ("b", Value::from(2)), ("c", Value::from(3)));
        let one = map([a.clone(), b.clone(), c.clone()]);
        assert_eq!(of_value(&one), of_value(&map([c, b, a])));
        // A map with many entries is hashed in another way.
        let many = |order: &mut dyn Iterator<Item = i64>| {
            order.map(|n| (Key::from(n.to_string()), Value::from(n))).collect::<Map>()
        };
        let (up, down) = (many(&mut (0..20)), many(&mut (0..20).rev()));
        assert_eq!(of_value(&Value::from(up)), of_value(&Value::from(down)));
    }

    #[test]
    fn the_width_of_an_integer_does_not_change_its_fingerprint() {
        let numbers = [Value::from(7_u64), Value::from(7_i64), Value::from(7_u128)];
        assert!(numbers.iter().all(|number| of_value(number) == of_value(&numbers[0])));
    }

    #[test]
    fn different_values_have_different_fingerprints() {
        let text = |text: &str| Value::from(text);
        let list = |items: &[Value]| Value::from(items.to_vec());
        let values = [
            Value::undefined(),
            Value::none(),
            Value::from(true),
            Value::from(false),
            Value::from(0),
            Value::from(1),
            Value::from(1.0),
            Value::from(u128::MAX),
            text(""),
            text("1"),
            Value::safe_string("1"),
            Value::bytes("1"),
            text(&"1".repeat(256)),
            text(&"1".repeat(257)),
            list(&[]),
            list(&[text("")]),
            list(&[text(""), text("")]),
            list(&[text("a"), text("b")]),
            list(&[text("ab"), text("")]),
            list(&[list(&[text("a")]), text("b")]),
            list(&[list(&[text("a"), text("b")])]),
            map([]),
            map([("a", text("b"))]),
            Value::from(Map::from_iter([(Key::Bool(false), text("b"))])),
            Value::from(Map::from_iter([(Key::U64(0), text("b"))])),
            Value::from(Map::from_iter([(Key::Str("0"), text("b"))])),
            map([("b", text("a"))]),
            map([("ab", text(""))]),
            map([("a", text("1")), ("b", text("2"))]),
            map([("a", text("2")), ("b", text("1"))]),
        ];
        let fingerprints: BTreeSet<_> = values.iter().map(of_value).collect();
        assert_eq!(fingerprints.len(), values.len());
    }
}
