//! Many values that are looked up, and computed, together.

use std::collections::HashMap;

use serde::{Serialize, de::DeserializeOwned};

use super::{
    Cache,
    codec::{deserialize, serialize},
    compute::Stored,
    events::CacheEventKind,
    lifetime::Lifetime,
};
use crate::{
    backend::entries::{Lookup, Slot},
    freshness::{lease::Encoded, many::Filled},
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
        let owned: Vec<_> = keys.iter().map(|key| (*key).to_owned()).collect();
        let compute = async |indices: &[usize]| {
            let missing: Vec<_> = indices.iter().map(|index| keys[*index]).collect();
            let pairs = compute(&missing).await?.into_iter();
            Ok(pairs.map(|(key, value)| (key.as_ref().to_owned(), value)).collect::<Vec<_>>())
        };
        self.find_or_fill_many(&owned, stored, compute).await
    }

    /// Like [`Cache::get_or_compute_many`], with entries of one schema, in groups. `compute` gets the indices of the
    /// missing keys.
    pub(crate) async fn find_or_fill_many<T, E>(
        &self,
        keys: &[String],
        Stored { schema, groups, lifetime }: Stored<'_>,
        compute: impl AsyncFn(&[usize]) -> Result<Vec<(String, T)>, E>,
    ) -> Result<Vec<Option<T>>, E>
    where
        T: Serialize + DeserializeOwned,
    {
        let compute = async |indices: &[usize]| {
            let mut values: HashMap<String, T> = compute(indices).await?.into_iter().collect();
            Ok::<_, E>(indices.iter().map(|index| values.remove(&keys[*index])).collect())
        };
        let full: Vec<_> = keys.iter().map(|key| self.full_key(key)).collect();
        let all: Vec<_> = (0..keys.len()).collect();
        if self.entries().is_null() {
            return compute(&all).await;
        }
        let stopwatch = self.entries().stopwatch();
        let (found, stamp) = self.entries().look_up_all_in(&full, schema, groups).await;
        let Some(stamp) = stamp else {
            self.entries().counters().count_misses(keys.len());
            return compute(&all).await;
        };
        let looked_up = stopwatch.elapsed();
        let note = |key: &str, kind| self.entries().note(key, kind, looked_up);
        let mut values: Vec<Option<T>> = keys.iter().map(|_| None).collect();
        let (mut positions, mut missing) = (Vec::new(), Vec::new());
        for (position, (key, found)) in full.iter().zip(found).enumerate() {
            let slot = Slot { key, stamp };
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
        for (position, filled) in positions.into_iter().zip(filled) {
            values[position] = match filled {
                Filled::Cached(body) => deserialize(&body),
                Filled::Computed(value) => value,
            };
        }
        Ok(values)
    }
}
