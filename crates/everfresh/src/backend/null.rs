//! A backend without entries.
#![expect(clippy::unused_async, clippy::unused_self, reason = "every backend has these operations")]

use std::time::Duration;

use bytes::Bytes;

use super::types::{
    BackendError, CasToken, Delta, FoundOrAdded, NewNumber, StoredBytes, SwapOutcome,
};

#[derive(Debug)]
pub(crate) struct Null;

impl Null {
    pub(super) fn is_shared(&self) -> bool {
        false
    }

    pub(super) fn keeps_order(&self, _: &[String]) -> bool {
        true
    }

    pub(super) async fn get(&self, _: &str, _: bool) -> Result<Option<StoredBytes>, BackendError> {
        Ok(None)
    }

    pub(super) async fn get_many(
        &self,
        keys: &[&str],
    ) -> Vec<Result<Option<StoredBytes>, BackendError>> {
        keys.iter().map(|_| Ok(None)).collect()
    }

    pub(super) async fn set_many(
        &self,
        entries: &[(String, Bytes)],
        _: Option<Duration>,
    ) -> Vec<Result<(), BackendError>> {
        vec![Ok(()); entries.len()]
    }

    pub(super) async fn add(
        &self,
        _: &str,
        _: &Bytes,
        _: Option<Duration>,
    ) -> Result<Option<CasToken>, BackendError> {
        Ok(None)
    }

    pub(super) async fn get_or_add(
        &self,
        _: &str,
        _: &Bytes,
        _: Duration,
    ) -> Result<FoundOrAdded, BackendError> {
        Ok(FoundOrAdded::Lost)
    }

    pub(super) async fn swap(
        &self,
        _: &str,
        _: &Bytes,
        _: Option<Duration>,
        _: CasToken,
    ) -> Result<SwapOutcome, BackendError> {
        Ok(SwapOutcome::Changed)
    }

    pub(super) async fn delete_if_unchanged(
        &self,
        _: &str,
        _: CasToken,
    ) -> Result<(), BackendError> {
        Ok(())
    }

    pub(super) async fn delete_many(&self, keys: &[String]) -> Vec<Result<(), BackendError>> {
        vec![Ok(()); keys.len()]
    }

    pub(super) async fn count(
        &self,
        _: &str,
        _: Delta,
        _: NewNumber,
    ) -> Result<Option<u64>, BackendError> {
        Ok(None)
    }

    pub(super) async fn clear(&self) -> Result<(), BackendError> {
        Ok(())
    }
}
