//! A backend without entries.

use std::time::Duration;

use bytes::Bytes;

use crate::backend::{
    contract::Backend,
    types::{BackendError, CasToken, Delta, FoundOrAdded, NewNumber, StoredBytes, SwapOutcome},
};

#[derive(Debug)]
pub(crate) struct Null;

impl Backend for Null {
    fn name(&self) -> &'static str {
        "none"
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn keeps_order(&self, _: &[String]) -> bool {
        true
    }

    async fn get(&self, _: &str, _: bool) -> Result<Option<StoredBytes>, BackendError> {
        Ok(None)
    }

    async fn get_many(&self, keys: &[&str]) -> Vec<Result<Option<StoredBytes>, BackendError>> {
        keys.iter().map(|_| Ok(None)).collect()
    }

    async fn set_many(
        &self,
        entries: &[(String, Bytes)],
        _: Option<Duration>,
    ) -> Vec<Result<(), BackendError>> {
        vec![Ok(()); entries.len()]
    }

    async fn add(
        &self,
        _: &str,
        _: &Bytes,
        _: Option<Duration>,
    ) -> Result<Option<CasToken>, BackendError> {
        Ok(None)
    }

    async fn get_or_add(
        &self,
        _: &str,
        _: &Bytes,
        _: Duration,
    ) -> Result<FoundOrAdded, BackendError> {
        Ok(FoundOrAdded::Lost)
    }

    async fn swap(
        &self,
        _: &str,
        _: &Bytes,
        _: Option<Duration>,
        _: CasToken,
    ) -> Result<SwapOutcome, BackendError> {
        Ok(SwapOutcome::Changed)
    }

    async fn delete_if_unchanged(&self, _: &str, _: CasToken) -> Result<(), BackendError> {
        Ok(())
    }

    async fn delete_many(&self, keys: &[String]) -> Vec<Result<(), BackendError>> {
        vec![Ok(()); keys.len()]
    }

    async fn count(&self, _: &str, _: Delta, _: NewNumber) -> Result<Option<u64>, BackendError> {
        Ok(None)
    }

    async fn clear(&self) -> Result<(), BackendError> {
        Ok(())
    }
}
