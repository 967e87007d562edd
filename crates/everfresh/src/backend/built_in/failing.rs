//! A backend that can never be reached, for tests of outages.

use std::time::Duration;

use bytes::Bytes;

use crate::backend::{
    contract::Backend,
    types::{BackendError, CasToken, Delta, FoundOrAdded, NewNumber, StoredBytes, SwapOutcome},
};

#[derive(Debug)]
pub(crate) struct Failing;

impl Backend for Failing {
    fn name(&self) -> &'static str {
        "failing"
    }

    fn keeps_order(&self, _: &[String]) -> bool {
        true
    }

    async fn get(&self, _: &str, _: bool) -> Result<Option<StoredBytes>, BackendError> {
        Err(BackendError::Unavailable)
    }

    async fn get_many(&self, keys: &[&str]) -> Vec<Result<Option<StoredBytes>, BackendError>> {
        keys.iter().map(|_| Err(BackendError::Unavailable)).collect()
    }

    async fn set_many(
        &self,
        entries: &[(String, Bytes)],
        _: Option<Duration>,
    ) -> Vec<Result<(), BackendError>> {
        vec![Err(BackendError::Unavailable); entries.len()]
    }

    async fn add(
        &self,
        _: &str,
        _: &Bytes,
        _: Option<Duration>,
    ) -> Result<Option<CasToken>, BackendError> {
        Err(BackendError::Unavailable)
    }

    async fn get_or_add(
        &self,
        _: &str,
        _: &Bytes,
        _: Duration,
    ) -> Result<FoundOrAdded, BackendError> {
        Err(BackendError::Unavailable)
    }

    async fn swap(
        &self,
        _: &str,
        _: &Bytes,
        _: Option<Duration>,
        _: CasToken,
    ) -> Result<SwapOutcome, BackendError> {
        Err(BackendError::Unavailable)
    }

    async fn delete_if_unchanged(&self, _: &str, _: CasToken) -> Result<(), BackendError> {
        Err(BackendError::Unavailable)
    }

    async fn delete_many(&self, keys: &[String]) -> Vec<Result<(), BackendError>> {
        vec![Err(BackendError::Unavailable); keys.len()]
    }

    async fn count(&self, _: &str, _: Delta, _: NewNumber) -> Result<Option<u64>, BackendError> {
        Err(BackendError::Unavailable)
    }

    async fn clear(&self) -> Result<(), BackendError> {
        Err(BackendError::Unavailable)
    }
}
