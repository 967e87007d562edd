//! What a template's output depends on, as a number. Pure.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{Hash, Hasher},
};

use siphasher::sip::SipHasher13;
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
        let mut hasher = SipHasher13::new();
        for name in names {
            (name, self.0.get(name).map(|source| source.text)).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// A number that is another for every other version.
pub(super) fn versioned(digest: u64, version: &str) -> u64 {
    let mut hasher = SipHasher13::new();
    (digest, version).hash(&mut hasher);
    hasher.finish()
}

/// The fingerprint of a value: equal for values of one kind that are shown alike, whatever the order
/// of a map.
pub(super) fn of_value(value: &Value) -> u64 {
    let mut hasher = SipHasher13::new();
    feed(value, &mut hasher);
    hasher.finish()
}

/// What a part of a value is.
#[derive(Clone, Copy)]
enum Part {
    Text,
    SafeText,
    Integer,
    Array,
    Map,
    Bytes,
    Other,
}

/// Each part begins with a word that says what it is and how much belongs to it, so that no two
/// values are fed alike. In few calls: this is done for each fragment of a page.
fn feed(value: &Value, hasher: &mut SipHasher13) {
    if let Some(text) = value.as_str() {
        let part = if value.is_safe() { Part::SafeText } else { Part::Text };
        feed_text(part, text, hasher);
    } else if let Some(number) = value.as_i64() {
        begin(Part::Integer, 0, hasher);
        hasher.write_i64(number);
    } else if let Some(items) = value.as_array() {
        begin(Part::Array, items.len(), hasher);
        for item in items {
            feed(item, hasher);
        }
    } else if let Some(map) = value.as_map() {
        begin(Part::Map, map.len(), hasher);
        let entries = map.iter().map(|(key, value)| {
            let mut hasher = SipHasher13::new();
            match key.as_str() {
                Some(text) => feed_text(Part::Text, text, &mut hasher),
                None => feed(&key.as_value(), &mut hasher),
            }
            feed(value, &mut hasher);
            hasher.finish()
        });
        hasher.write_u64(entries.fold(0, u64::wrapping_add));
    } else if let Some(bytes) = value.as_bytes() {
        begin(Part::Bytes, bytes.len(), hasher);
        hasher.write(bytes);
    } else {
        begin(Part::Other, 0, hasher);
        (value.kind(), value.to_string()).hash(hasher);
    }
}

fn feed_text(part: Part, text: &str, hasher: &mut SipHasher13) {
    begin(part, text.len(), hasher);
    hasher.write(text.as_bytes());
}

fn begin(part: Part, length: usize, hasher: &mut SipHasher13) {
    hasher.write_u64((length as u64) << 8 | part as u64);
}

#[cfg(test)]
mod tests {
    use tera::{Map, value::Key};

    use super::*;

    fn map<const N: usize>(entries: [(&'static str, Value); N]) -> Value {
        Value::from(entries.map(|(key, value)| (Key::Str(key), value)).into_iter().collect::<Map>())
    }

    #[test]
    fn a_map_has_one_fingerprint_whatever_its_order() {
        let (a, b, c) = (("a", Value::from(1)), ("b", Value::from(2)), ("c", Value::from(3)));
        let one = map([a.clone(), b.clone(), c.clone()]);
        assert_eq!(of_value(&one), of_value(&map([c, b, a])));
    }

    #[test]
    fn a_whole_number_has_one_fingerprint_whatever_its_type() {
        let numbers = [Value::from(7_u64), Value::from(7_i64), Value::from(7_u128)];
        assert!(numbers.iter().all(|number| of_value(number) == of_value(&numbers[0])));
    }

    #[test]
    fn values_that_differ_have_different_fingerprints() {
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
