//! Many values that are looked up, and computed, together.

use std::collections::HashMap;

use serde::{Serialize, de::DeserializeOwned};

use super::{
    Cache,
    codec::{deserialize, serialize},
    compute::Stored,
    events::CacheEventKind,
    key::arguments::ArgumentsKey,
    lifetime::Lifetime,
};
use crate::{
    backend::{
        entries::{Lookup, Slot},
        frame::Stamp,
    },
    freshness::{landing::Encoded, many::Filled},
};

impl Cache {
    /// Returns the values of `keys`, in the same order, computing all those that are missing in one call. One round
    /// trip per server looks all of them up.
    ///
    /// `compute` gets the missing keys and returns pairs of a key and its value, in any order, as databases do. A
    /// key that it leaves out has no value, and is not stored. Its duties are those of
    /// [`Cache::get_or_compute`]; it is called a second time if a value that another task was computing could not
    /// be shared.
    ///
    /// ```
    /// use everfresh::{Cache, Lifetime};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = Cache::memory(1 << 20).build();
    /// cache.set("user/1", &"Ada", Lifetime::Forever).await;
    /// let names = cache.get_or_compute_many(
    ///     &["user/1", "user/2", "user/3"],
    ///     Lifetime::Forever,
    ///     async |missing: &[&str]| {
    ///         assert_eq!(missing, ["user/2", "user/3"]);
    ///         // SELECT … WHERE id IN …
    ///         Ok::<_, std::io::Error>(vec![("user/3", "Grace".to_owned())])
    ///     },
    /// );
    /// let names = names.await.unwrap();
    /// assert_eq!(names, [Some("Ada".to_owned()), None, Some("Grace".to_owned())]);
    /// # }
    /// ```
    pub async fn get_or_compute_many<K, T, E, I>(
        &self,
        keys: &[&str],
        lifetime: Lifetime,
        compute: impl AsyncFn(&[&str]) -> Result<I, E>,
    ) -> Result<Vec<Option<T>>, E>
    where
        K: AsRef<str>,
        T: Serialize + DeserializeOwned,
        I: IntoIterator<Item = (K, T)>,
    {
        let stored = Stored { schema: 0, groups: &[], lifetime };
        let of_key = |key: &str| ArgumentsKey { key: key.to_owned(), kinds: 0 };
        let owned: Vec<_> = keys.iter().map(|key| of_key(key)).collect();
        let compute = async |indices: &[usize]| {
            let missing: Vec<_> = indices.iter().map(|index| keys[*index]).collect();
            let pairs = compute(&missing).await?.into_iter();
            Ok(pairs.map(|(key, value)| (of_key(key.as_ref()), value)).collect::<Vec<_>>())
        };
        self.find_or_fill_many(&owned, stored, compute).await
    }

    /// Like [`Cache::get_or_compute_many`], with entries of one schema, in groups. `compute` gets the indices of the
    /// missing keys. A key that is listed several times is looked up and computed once.
    pub(crate) async fn find_or_fill_many<T, E>(
        &self,
        keys: &[ArgumentsKey],
        stored: Stored<'_>,
        compute: impl AsyncFn(&[usize]) -> Result<Vec<(ArgumentsKey, T)>, E>,
    ) -> Result<Vec<Option<T>>, E>
    where
        T: Serialize + DeserializeOwned,
    {
        let mut first_of: HashMap<&ArgumentsKey, usize> = HashMap::new();
        let (mut distinct, mut firsts, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for (position, key) in keys.iter().enumerate() {
            let place = *first_of.entry(key).or_insert_with(|| {
                distinct.push(key.clone());
                firsts.push(position);
                distinct.len() - 1
            });
            places.push(place);
        }
        let of_distinct = async |indices: &[usize]| {
            let indices: Vec<_> = indices.iter().map(|index| firsts[*index]).collect();
            compute(&indices).await
        };
        let mut values = self.fill_distinct(&distinct, stored, of_distinct).await?;
        let mut listed: Vec<Option<T>> = Vec::with_capacity(keys.len());
        for (position, place) in places.into_iter().enumerate() {
            let value = if firsts[place] == position {
                values[place].take()
            } else {
                // A copy, whatever the type.
                listed[firsts[place]].as_ref().and_then(|value| deserialize(&serialize(value)?))
            };
            listed.push(value);
        }
        Ok(listed)
    }

    async fn fill_distinct<T, E>(
        &self,
        keys: &[ArgumentsKey],
        Stored { schema, groups, lifetime }: Stored<'_>,
        compute: impl AsyncFn(&[usize]) -> Result<Vec<(ArgumentsKey, T)>, E>,
    ) -> Result<Vec<Option<T>>, E>
    where
        T: Serialize + DeserializeOwned,
    {
        let compute = async |indices: &[usize]| {
            let mut values: HashMap<ArgumentsKey, T> =
                compute(indices).await?.into_iter().collect();
            Ok::<_, E>(indices.iter().map(|index| values.remove(&keys[*index])).collect())
        };
        let full: Vec<_> =
            keys.iter().map(|key| (self.full_key(&key.key), schema ^ key.kinds)).collect();
        let all: Vec<_> = (0..keys.len()).collect();
        if self.entries().is_null() {
            return compute(&all).await;
        }
        let stopwatch = self.entries().stopwatch();
        let (found, fingerprint) = self.entries().look_up_all_in(&full, groups).await;
        let Some(fingerprint) = fingerprint else {
            for (key, _) in &full {
                self.entries().note(key, CacheEventKind::Miss, None);
            }
            return compute(&all).await;
        };
        let looked_up = stopwatch.elapsed();
        let note = |key: &str, kind| self.entries().note(key, kind, looked_up);
        let mut values: Vec<Option<T>> = keys.iter().map(|_| None).collect();
        let (mut positions, mut missing) = (Vec::new(), Vec::new());
        for (position, ((key, schema), found)) in full.iter().zip(found).enumerate() {
            let slot = Slot { key, stamp: Stamp { schema: *schema, fingerprint } };
            let found = match found {
                Lookup::Hit(body, token) => match deserialize(&body) {
                    Some(value) => {
                        let bytes = body.len();
                        note(key, CacheEventKind::Hit { bytes });
                        values[position] = Some(value);
                        continue;
                    }
                    None => Lookup::Miss(token),
                },
                found => found,
            };
            note(key, CacheEventKind::Miss);
            positions.push(position);
            missing.push((slot, found));
        }
        let term = self.resolve(lifetime);
        let encode = |value: &T| {
            let bytes = serialize(value)?;
            Some(Encoded { size: bytes.len(), bytes, term, named: None })
        };
        let of_all = async |indices: &[usize]| {
            let indices: Vec<_> = indices.iter().map(|index| positions[*index]).collect();
            compute(&indices).await
        };
        let filled = self.filler().fill_many(missing, encode, of_all).await?;
        let mut of_another_type = Vec::new();
        for (position, filled) in positions.into_iter().zip(filled) {
            values[position] = match filled {
                Filled::Computed(value) => value,
                Filled::Cached(body) => {
                    let value = deserialize(&body);
                    if value.is_none() {
                        of_another_type.push(position);
                    }
                    value
                }
            };
        }
        // Another version of the app was faster. They are not stored.
        if !of_another_type.is_empty() {
            let computed = compute(&of_another_type).await?;
            for (position, value) in of_another_type.into_iter().zip(computed) {
                values[position] = value;
            }
        }
        Ok(values)
    }
}
