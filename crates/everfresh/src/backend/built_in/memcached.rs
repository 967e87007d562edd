//! Entries in memcached servers.

use std::time::Duration;

use bytes::Bytes;
use memcached_client::{Client, Error, Expiration, Item, Reservation, Swap, Value};

use crate::backend::{
    contract::Backend,
    types::{BackendError, CasToken, Delta, FoundOrAdded, NewNumber, StoredBytes, SwapOutcome},
};

#[derive(Debug)]
pub(crate) struct Memcached(Client);

impl From<Client> for Memcached {
    fn from(client: Client) -> Self {
        Self(client)
    }
}

impl From<Error> for BackendError {
    fn from(error: Error) -> Self {
        match error {
            Error::TooLarge { bytes, .. } => Self::TooLarge { bytes, limit: None },
            error if error.is_outage() => Self::Unavailable,
            _ => Self::Refused,
        }
    }
}

fn item(bytes: &Bytes, lifetime: Option<Duration>) -> Item<'_> {
    Item { expiration: expiration(lifetime), ..Item::from(bytes) }
}

fn expiration(lifetime: Option<Duration>) -> Expiration {
    lifetime.map_or(Expiration::Never, Expiration::In)
}

fn stored(value: Value) -> StoredBytes {
    StoredBytes { bytes: value.data, token: value.cas.map(CasToken::Memcached) }
}

impl Memcached {
    pub(crate) fn client(&self) -> &Client {
        &self.0
    }
}

impl Backend for Memcached {
    fn name(&self) -> &'static str {
        "memcached"
    }

    fn keeps_order(&self, keys: &[String]) -> bool {
        self.0.are_on_one_server(keys).unwrap_or(false)
    }

    async fn get(&self, key: &str, with_token: bool) -> Result<Option<StoredBytes>, BackendError> {
        let value = if with_token { self.0.get_with_cas(key).await } else { self.0.get(key).await };
        Ok(value?.map(stored))
    }

    async fn get_many(&self, keys: &[&str]) -> Vec<Result<Option<StoredBytes>, BackendError>> {
        let values = self.0.get_many(keys).await.into_iter();
        values.map(|value| Ok(value?.map(stored))).collect()
    }

    async fn set_many(
        &self,
        entries: &[(String, Bytes)],
        lifetime: Option<Duration>,
    ) -> Vec<Result<(), BackendError>> {
        let items: Vec<_> =
            entries.iter().map(|(key, bytes)| (key.as_str(), item(bytes, lifetime))).collect();
        let outcomes = self.0.set_many(&items).await.into_iter();
        outcomes.map(|outcome| outcome.map_err(BackendError::from)).collect()
    }

    async fn add(
        &self,
        key: &str,
        bytes: &Bytes,
        lifetime: Option<Duration>,
    ) -> Result<Option<CasToken>, BackendError> {
        let cas = self.0.add_with_cas(key, item(bytes, lifetime)).await?;
        Ok(cas.map(CasToken::Memcached))
    }

    async fn get_or_add(
        &self,
        key: &str,
        bytes: &Bytes,
        lifetime: Duration,
    ) -> Result<FoundOrAdded, BackendError> {
        Ok(match self.0.get_or_reserve(key, item(bytes, Some(lifetime))).await? {
            Reservation::Found(value) => FoundOrAdded::Found(stored(value)),
            Reservation::Reserved(cas) => FoundOrAdded::Added(cas.map(CasToken::Memcached)),
            _ => FoundOrAdded::Lost,
        })
    }

    async fn swap(
        &self,
        key: &str,
        bytes: &Bytes,
        lifetime: Option<Duration>,
        token: CasToken,
    ) -> Result<SwapOutcome, BackendError> {
        let CasToken::Memcached(cas) = token else { return Ok(SwapOutcome::Changed) };
        match self.0.compare_and_swap(key, item(bytes, lifetime), cas).await? {
            Swap::Done(cas) => Ok(SwapOutcome::Stored(cas.map(CasToken::Memcached))),
            _ => Ok(SwapOutcome::Changed),
        }
    }

    async fn delete_if_unchanged(&self, key: &str, token: CasToken) -> Result<(), BackendError> {
        let CasToken::Memcached(cas) = token else { return Ok(()) };
        self.0.delete_if_unchanged(key, cas).await?;
        Ok(())
    }

    async fn delete_many(&self, keys: &[String]) -> Vec<Result<(), BackendError>> {
        let outcomes = self.0.delete_many(keys).await.into_iter();
        outcomes.map(|outcome| outcome.map(drop).map_err(BackendError::from)).collect()
    }

    async fn count(
        &self,
        key: &str,
        delta: Delta,
        new: NewNumber,
    ) -> Result<Option<u64>, BackendError> {
        let (initial, expiration) = (new.value, expiration(new.lifetime));
        let counted = match delta {
            Delta::Up(delta) => self.0.increment_or_insert(key, delta, initial, expiration).await,
            Delta::Down(delta) => self.0.decrement_or_insert(key, delta, initial, expiration).await,
        };
        Ok(Some(counted?))
    }

    async fn clear(&self) -> Result<(), BackendError> {
        for (_, outcome) in self.0.flush().await {
            outcome?;
        }
        Ok(())
    }
}
