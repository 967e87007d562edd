//! The keys of fragments. Pure.

use tera::Value;

use crate::cache::key::append_escaped;

/// Returns the key of the fragment with this name and these VARY values, for
/// [`Cache::delete`](crate::Cache::delete) or an [`Invalidation`](crate::Invalidation).
///
/// A value is part of the key by the text that a template shows for it; only `none` differs from
/// the empty text.
///
/// ```
/// use everfresh::fragment_key;
///
/// // {% cache none, "task-fragment", task.id, lang %}
/// assert_eq!(fragment_key("task-fragment", ["7", "de"]), "task-fragment/7/de");
/// ```
#[must_use]
pub fn fragment_key<V: Into<Value>>(name: &str, vary: impl IntoIterator<Item = V>) -> String {
    let mut values = vec![Value::from(name)];
    values.extend(vary.into_iter().map(Into::into));
    let mut key = String::new();
    append_key(&mut key, values.iter());
    key
}

/// Appends values, separated and escaped as in [`join_key`](crate::join_key).
pub(super) fn append_key<'v>(key: &mut String, values: impl Iterator<Item = &'v Value>) {
    for (at, value) in values.enumerate() {
        if at > 0 {
            key.push('/');
        }
        if let Some(text) = value.as_str() {
            append_escaped(key, text, Some(b'/'));
        } else if let Some(number) = value.as_i64() {
            key.push_str(itoa::Buffer::new().format(number));
        } else if value.is_none() {
            // A lone `%` cannot come from a text: escaped texts have digits after it.
            key.push('%');
        } else {
            append_escaped(key, &value.to_string(), Some(b'/'));
        }
    }
}
