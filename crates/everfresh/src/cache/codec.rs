//! Typed values as bytes. Pure.

use serde::{Serialize, de::DeserializeOwned};

/// Serializes a value as MessagePack with the names of fields, so that bytes that lack a required
/// field are not taken for another type. A new `Option` field is not noticed: see
/// [`Memo::versioned_by`](crate::Memo::versioned_by).
pub(crate) fn serialize<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    rmp_serde::to_vec_named(value)
        .inspect_err(|error| log::error!("a value cannot be cached: {error}"))
        .ok()
}

/// Deserializes a value; `None` if the bytes are not one of that type.
pub(crate) fn deserialize<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    rmp_serde::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn damaged_values_are_misses(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = deserialize::<Vec<(i64, String)>>(&bytes);
        }
    }

    #[test]
    fn a_value_without_a_required_field_is_a_miss() {
        #[derive(serde::Serialize)]
        struct Old {
            id: i64,
            name: String,
        }
        #[derive(Debug, serde::Deserialize)]
        #[expect(dead_code, reason = "only read")]
        struct New {
            id: i64,
            title: String,
        }
        let bytes = serialize(&Old { id: 1, name: "Milk".to_owned() }).unwrap();
        assert!(deserialize::<New>(&bytes).is_none());
    }

    #[test]
    fn nothing_is_a_value() {
        let bytes = serialize(&None::<String>).unwrap();
        assert_eq!(deserialize::<Option<String>>(&bytes), Some(None));
        assert_eq!(deserialize::<Vec<u8>>(&serialize(&Vec::<u8>::new()).unwrap()), Some(vec![]));
    }
}
