//! Entries in memcached servers.

use std::time::Duration;

use bytes::Bytes;
use memcached_client::{Client, Error, Expiration, Item, Swap, Value};

use super::{Count, Failure, Found, Mark, Swapped};

#[derive(Debug)]
pub(crate) struct Memcached(pub(crate) Client);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::TooLarge { .. } => Self::TooLarge,
            error if error.is_outage() => Self::Away,
            _ => Self::Refused,
        }
    }
}

fn expiration(lifetime: Option<Duration>) -> Expiration {
    lifetime.map_or(Expiration::Never, Expiration::In)
}

fn item(bytes: &Bytes, lifetime: Option<Duration>) -> Item<'_> {
    Item { expiration: expiration(lifetime), ..Item::from(bytes) }
}

fn found(value: Value) -> Found {
    Found { bytes: value.data, mark: value.cas.map(Mark::Memcached) }
}

impl Memcached {
    pub(crate) async fn get(&self, key: &str, with_mark: bool) -> Result<Option<Found>, Failure> {
        let value = if with_mark { self.0.get_with_cas(key).await } else { self.0.get(key).await };
        Ok(value?.map(found))
    }

    pub(crate) async fn get_many(&self, keys: &[&str]) -> Vec<Result<Option<Found>, Failure>> {
        let values = self.0.get_many(keys).await.into_iter();
        values.map(|value| Ok(value?.map(found))).collect()
    }

    pub(crate) async fn set_many(
        &self,
        entries: &[(String, Bytes)],
        lifetime: Option<Duration>,
    ) -> Vec<Result<(), Failure>> {
        let items: Vec<_> =
            entries.iter().map(|(key, bytes)| (key.as_str(), item(bytes, lifetime))).collect();
        let outcomes = self.0.set_many(&items).await.into_iter();
        outcomes.map(|outcome| outcome.map_err(Failure::from)).collect()
    }

    pub(crate) async fn add(
        &self,
        key: &str,
        bytes: &Bytes,
        lifetime: Option<Duration>,
    ) -> Result<Option<Mark>, Failure> {
        let cas = self.0.add_with_cas(key, item(bytes, lifetime)).await?;
        Ok(cas.map(Mark::Memcached))
    }

    pub(crate) async fn swap(
        &self,
        key: &str,
        bytes: &Bytes,
        lifetime: Option<Duration>,
        mark: Mark,
    ) -> Result<Swapped, Failure> {
        let Mark::Memcached(cas) = mark else { return Ok(Swapped::Lost) };
        match self.0.compare_and_swap(key, item(bytes, lifetime), cas).await? {
            Swap::Done(cas) => Ok(Swapped::Done(cas.map(Mark::Memcached))),
            _ => Ok(Swapped::Lost),
        }
    }

    pub(crate) async fn delete_if_unchanged(&self, key: &str, mark: Mark) -> Result<(), Failure> {
        let Mark::Memcached(cas) = mark else { return Ok(()) };
        self.0.delete_if_unchanged(key, cas).await?;
        Ok(())
    }

    pub(crate) fn keeps_order(&self, keys: &[String]) -> bool {
        self.0.are_on_one_server(keys).unwrap_or(false)
    }

    pub(crate) async fn delete_many(&self, keys: &[String]) -> Vec<Result<(), Failure>> {
        let outcomes = self.0.delete_many(keys).await.into_iter();
        outcomes.map(|outcome| outcome.map(drop).map_err(Failure::from)).collect()
    }

    pub(crate) async fn count(&self, key: &str, by: Count) -> Result<Option<u64>, Failure> {
        Ok(match by {
            Count::Up(delta) => self.0.increment(key, delta).await?,
            Count::Down(delta) => self.0.decrement(key, delta).await?,
        })
    }

    pub(crate) async fn clear(&self) -> Result<(), Failure> {
        for (_, outcome) in self.0.flush().await {
            outcome?;
        }
        Ok(())
    }
}
