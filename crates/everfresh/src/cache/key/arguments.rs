//! The arguments of a memoized function as parts of a key, through serde. Pure.
//!
//! No value's parts are the beginning of another value's parts: whatever can have a different number of parts
//! begins with that number. So different arguments of one type give different keys.

use std::fmt::{self, Display};

use serde::ser::{self, Serialize, Serializer};

use super::join_key;

/// The key of a function's result for some arguments.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct ArgumentsKey {
    pub(crate) key: String,
    /// A hash of the kinds of the arguments, in order: with an untagged enum, the number 7 and the text "7" have one
    /// key. It is to be part of what the entry must prove.
    pub(crate) kinds: u64,
}

/// Returns the key of a function's result for these arguments; `None` if they cannot be serialized.
pub(crate) fn arguments_key<A: Serialize + ?Sized>(
    name: &str,
    arguments: &A,
) -> Option<ArgumentsKey> {
    arguments
        .serialize(Parts::default())
        .map(|Parts { parts, kinds }| ArgumentsKey { key: join_key(name, parts), kinds })
        .inspect_err(|error| log::error!("the arguments of {name} make no key: {error}"))
        .ok()
}

/// The parts so far, and a hash of their kinds.
#[derive(Default)]
struct Parts {
    parts: Vec<String>,
    kinds: u64,
}

impl Parts {
    fn push(mut self, kind: Kind, part: impl Display) -> Self {
        self.parts.push(part.to_string());
        self.add(kind as u64);
        self
    }

    fn append<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoKey> {
        self.append_all(value.serialize(Self::default())?);
        Ok(())
    }

    fn append_all(&mut self, mut other: Self) {
        self.parts.append(&mut other.parts);
        self.add(other.kinds);
    }

    fn add(&mut self, kinds: u64) {
        self.kinds = (self.kinds.rotate_left(5) ^ kinds).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// The kind of a part.
#[derive(Clone, Copy)]
enum Kind {
    Bool = 1,
    Number,
    Char,
    Text,
    Bytes,
    Option,
    Variant,
    List,
    Map,
    Fields,
    Unit,
}

/// The reason that arguments cannot be serialized, as their type gives it.
#[derive(Debug)]
struct NoKey(String);

impl Display for NoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoKey {}

impl ser::Error for NoKey {
    fn custom<T: Display>(reason: T) -> Self {
        Self(reason.to_string())
    }
}

macro_rules! by_display {
    ($($method:ident: $type:ty => $kind:ident),+ $(,)?) => {
        $(fn $method(self, value: $type) -> Result<Parts, NoKey> {
            Ok(self.push(Kind::$kind, value))
        })+
    };
}

impl Serializer for Parts {
    type Error = NoKey;
    type Ok = Self;
    type SerializeMap = Pairs;
    type SerializeSeq = Elements;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;

    by_display! {
        serialize_bool: bool => Bool,
        serialize_i8: i8 => Number,
        serialize_i16: i16 => Number,
        serialize_i32: i32 => Number,
        serialize_i64: i64 => Number,
        serialize_i128: i128 => Number,
        serialize_u8: u8 => Number,
        serialize_u16: u16 => Number,
        serialize_u32: u32 => Number,
        serialize_u64: u64 => Number,
        serialize_u128: u128 => Number,
        serialize_f32: f32 => Number,
        serialize_f64: f64 => Number,
        serialize_char: char => Char,
        serialize_str: &str => Text,
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<Self, NoKey> {
        use fmt::Write;
        let mut digits = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            // Writing to a String cannot fail.
            let _ = write!(digits, "{byte:02x}");
        }
        Ok(self.push(Kind::Bytes, digits))
    }

    fn serialize_none(self) -> Result<Self, NoKey> {
        Ok(self.push(Kind::Option, 0))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Self, NoKey> {
        let mut parts = self.push(Kind::Option, 1);
        parts.append(value)?;
        Ok(parts)
    }

    fn serialize_unit(mut self) -> Result<Self, NoKey> {
        self.add(Kind::Unit as u64);
        Ok(self)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Self, NoKey> {
        Ok(self)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Self, NoKey> {
        Ok(self.push(Kind::Variant, variant))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Self, NoKey> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Self, NoKey> {
        let mut parts = self.push(Kind::Variant, variant);
        parts.append(value)?;
        Ok(parts)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Elements, NoKey> {
        Ok(Elements { before: self, number: 0, parts: Self::default() })
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, NoKey> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, NoKey> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self, NoKey> {
        Ok(self.push(Kind::Variant, variant))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Pairs, NoKey> {
        Ok(Pairs { before: self, pairs: Vec::new() })
    }

    /// The fields that the type leaves out are in no key: each of the others follows its name.
    fn serialize_struct(self, _: &'static str, number: usize) -> Result<Self, NoKey> {
        Ok(self.push(Kind::Fields, number))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        number: usize,
    ) -> Result<Self, NoKey> {
        Ok(self.push(Kind::Variant, variant).push(Kind::Fields, number))
    }
}

macro_rules! of_elements {
    ($($trait:ident $method:ident),+) => {
        $(impl ser::$trait for Parts {
            type Error = NoKey;
            type Ok = Self;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoKey> {
                self.append(value)
            }

            fn end(self) -> Result<Self, NoKey> {
                Ok(self)
            }
        })+
    };
}
of_elements! {
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
}

macro_rules! of_fields {
    ($($trait:ident),+) => {
        $(impl ser::$trait for Parts {
            type Error = NoKey;
            type Ok = Self;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), NoKey> {
                self.append(name)?;
                self.append(value)
            }

            fn end(self) -> Result<Self, NoKey> {
                Ok(self)
            }
        })+
    };
}
of_fields!(SerializeStruct, SerializeStructVariant);

/// The elements of a list, after their number.
struct Elements {
    before: Parts,
    number: usize,
    parts: Parts,
}

impl ser::SerializeSeq for Elements {
    type Error = NoKey;
    type Ok = Parts;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoKey> {
        self.number += 1;
        self.parts.append(value)
    }

    fn end(self) -> Result<Parts, NoKey> {
        let mut parts = self.before.push(Kind::List, self.number);
        parts.append_all(self.parts);
        Ok(parts)
    }
}

/// The pairs of a map. They are sorted, because equal maps may list them in different orders.
struct Pairs {
    before: Parts,
    pairs: Vec<(Vec<String>, u64)>,
}

impl ser::SerializeMap for Pairs {
    type Error = NoKey;
    type Ok = Parts;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), NoKey> {
        let Parts { parts, kinds } = key.serialize(Parts::default())?;
        self.pairs.push((parts, kinds));
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoKey> {
        let value = value.serialize(Parts::default())?;
        if let Some((parts, kinds)) = self.pairs.last_mut() {
            let mut pair = Parts { parts: std::mem::take(parts), kinds: *kinds };
            pair.append_all(value);
            (*parts, *kinds) = (pair.parts, pair.kinds);
        }
        Ok(())
    }

    fn end(mut self) -> Result<Parts, NoKey> {
        self.pairs.sort();
        let mut parts = self.before.push(Kind::Map, self.pairs.len());
        for (pair, kinds) in self.pairs {
            parts.append_all(Parts { parts: pair, kinds });
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use proptest::prelude::*;
    use serde::Serialize;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize)]
    enum Filter {
        All,
        Named(String),
        Between(u8, u8),
        By { owner: Option<String>, tags: Vec<String> },
    }

    fn key<A: Serialize + ?Sized>(arguments: &A) -> String {
        arguments_key("f", arguments).unwrap().key
    }

    fn filters() -> impl Strategy<Value = Filter> {
        let text = || "[a/1]{0,2}";
        prop_oneof![
            Just(Filter::All),
            text().prop_map(Filter::Named),
            (0..3_u8, 0..3_u8).prop_map(|(from, to)| Filter::Between(from, to)),
            (prop::option::of(text()), prop::collection::vec(text(), 0..3))
                .prop_map(|(owner, tags)| Filter::By { owner, tags }),
        ]
    }

    proptest! {
        #[test]
        fn different_arguments_give_different_keys(
            one in (prop::collection::vec(filters(), 0..3), prop::option::of("[a0]{0,2}")),
            other in (prop::collection::vec(filters(), 0..3), prop::option::of("[a0]{0,2}")),
        ) {
            prop_assert_eq!(key(&one) == key(&other), one == other);
        }
    }

    #[test]
    fn numbers_texts_and_tuples_are_parts_as_they_are() {
        assert_eq!(key(&()), "f");
        assert_eq!(key("a/b"), "f/a%2fb");
        assert_eq!(key(&(1, "a/b", true)), "f/1/a%2fb/true");
        assert_ne!(key(&("a", "")), key(&("", "a")));
        assert_eq!(key(&(1, 2, 3, 4, 5, 6, 7, 8)), "f/1/2/3/4/5/6/7/8");
    }

    #[test]
    fn options_and_lists_begin_with_the_number_of_their_parts() {
        assert_eq!(key(&None::<u8>), "f/0");
        assert_eq!(key(&Some(7)), "f/1/7");
        assert_eq!(key(&[3, 4][..]), "f/2/3/4");
        assert_eq!(key(&(vec!["a"], vec!["b", "c"])), "f/1/a/2/b/c");
    }

    #[test]
    fn values_of_an_untagged_enum_with_one_key_have_different_kinds() {
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Id {
            Number(u64),
            Text(String),
        }
        let [number, text] = [Id::Number(7), Id::Text("7".to_owned())]
            .map(|id| arguments_key("f", &(id, 1)).unwrap());
        assert_eq!(number.key, text.key);
        assert_ne!(number.kinds, text.kinds);
    }

    #[test]
    fn a_newtype_gives_the_key_of_its_content() {
        #[derive(Serialize)]
        struct TaskId(u128);
        assert_eq!(arguments_key("f", &TaskId(7)), arguments_key("f", &7_u128));
    }

    #[test]
    fn equal_maps_give_equal_keys_whatever_their_order() {
        let pairs = (0..50).map(|n| (format!("k{n}"), n));
        let (sorted, hashed): (BTreeMap<_, _>, HashMap<_, _>) =
            (pairs.clone().collect(), pairs.collect());
        assert_eq!(key(&sorted), key(&hashed));
    }

    #[test]
    fn arguments_that_cannot_be_serialized_give_no_key() {
        struct Broken;
        impl Serialize for Broken {
            fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(ser::Error::custom("a lock is poisoned"))
            }
        }
        assert_eq!(arguments_key("f", &(1, Broken)), None);
    }
}
