//! The operations of a backend.

use std::{future::Future, time::Duration};

use bytes::Bytes;

use super::types::{
    BackendError, CasToken, Delta, FoundOrAdded, NewNumber, StoredBytes, SwapOutcome,
};

/// Stores bytes under keys. See the [module](super) for the rules.
///
/// Keys are not empty and contain neither blanks nor control characters. A lifetime of `None` is unlimited; one
/// with a fraction of a second may be rounded up. No operation may take long: bound the time in which a server must
/// answer, and fail at once while it is known to be away.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a backend of a cache",
    note = "`Cache::memory` and `Cache::memcached` need none; for others see `everfresh::backend`"
)]
pub trait Backend: Send + Sync + 'static {
    /// The name of the backend, for people.
    fn name(&self) -> &'static str;

    /// Returns whether other processes see the same entries. Default: yes.
    fn is_shared(&self) -> bool {
        true
    }

    /// Returns whether [`delete_many`](Self::delete_many) deletes these keys in order, because they are on one server.
    /// A value and the one that it is made of are then reserved together. Default: no.
    fn keeps_order(&self, keys: &[String]) -> bool {
        keys.len() < 2
    }

    /// Reads an entry; with its token if `with_token`. Default: by [`get_many`](Self::get_many).
    fn get(
        &self,
        key: &str,
        with_token: bool,
    ) -> impl Future<Output = Result<Option<StoredBytes>, BackendError>> + Send {
        let _ = with_token;
        async move { self.get_many(&[key]).await.pop().unwrap_or(Err(BackendError::Refused)) }
    }

    /// Reads entries, with their tokens where that is free. One result for each key, in the same order.
    fn get_many(
        &self,
        keys: &[&str],
    ) -> impl Future<Output = Vec<Result<Option<StoredBytes>, BackendError>>> + Send;

    /// Stores entries, whether or not there are some. One result for each, in the same order.
    fn set_many(
        &self,
        entries: &[(String, Bytes)],
        lifetime: Option<Duration>,
    ) -> impl Future<Output = Vec<Result<(), BackendError>>> + Send;

    /// Stores bytes if there is no entry, and returns their token if they were stored.
    fn add(
        &self,
        key: &str,
        bytes: &Bytes,
        lifetime: Option<Duration>,
    ) -> impl Future<Output = Result<Option<CasToken>, BackendError>> + Send;

    /// Reads an entry with its token, or stores bytes if there is no entry: in one round trip, if the backend can.
    /// It may store an empty value instead of the bytes. Default: by [`get`](Self::get) and [`add`](Self::add).
    fn get_or_add(
        &self,
        key: &str,
        bytes: &Bytes,
        lifetime: Duration,
    ) -> impl Future<Output = Result<FoundOrAdded, BackendError>> + Send {
        async move {
            if let Some(found) = self.get(key, true).await? {
                return Ok(FoundOrAdded::Found(found));
            }
            let added = self.add(key, bytes, Some(lifetime)).await?;
            Ok(added.map_or(FoundOrAdded::Lost, |token| FoundOrAdded::Added(Some(token))))
        }
    }

    /// Stores bytes if the entry still is in the state of the token.
    fn swap(
        &self,
        key: &str,
        bytes: &Bytes,
        lifetime: Option<Duration>,
        token: CasToken,
    ) -> impl Future<Output = Result<SwapOutcome, BackendError>> + Send;

    /// Deletes the entry if it still is in the state of the token.
    fn delete_if_unchanged(
        &self,
        key: &str,
        token: CasToken,
    ) -> impl Future<Output = Result<(), BackendError>> + Send;

    /// Deletes entries. One result for each key, in the same order: its deletion is confirmed, or has failed.
    fn delete_many(
        &self,
        keys: &[String],
    ) -> impl Future<Output = Vec<Result<(), BackendError>>> + Send;

    /// Changes a number, or stores a new one if there is none. Returns the number; `None` if nothing can be
    /// stored. [`get_many`](Self::get_many) reads it as decimal digits, as which
    /// [`set_many`](Self::set_many) may have stored it. Fails if the entry is no number.
    fn count(
        &self,
        key: &str,
        delta: Delta,
        new: NewNumber,
    ) -> impl Future<Output = Result<Option<u64>, BackendError>> + Send;

    /// Deletes everything that is stored, of other programs too.
    fn clear(&self) -> impl Future<Output = Result<(), BackendError>> + Send;
}
