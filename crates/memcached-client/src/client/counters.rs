//! Numbers that the servers count.

use super::Client;
use crate::{
    error::Error,
    key,
    types::{Expiration, NewCounter},
};

impl Client {
    /// Adds `delta` to a number that is stored as decimal digits and returns the sum, which wraps
    /// around at 2⁶⁴. Returns `None` if there is no entry.
    pub async fn increment(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<Option<u64>, Error> {
        let key = self.on_wire(key.as_ref())?;
        self.link(self.place(&key).await?).count(&key, delta, true, None).await
    }

    /// Like [`Client::increment`], but stores `initial` with a lifetime if there is no entry, and returns it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use memcached_client::{Client, Error, Expiration};
    /// # async fn f(client: Client) -> Result<(), Error> {
    /// // Requests of one address in this minute. The lifetime begins with the first of them.
    /// let minute = Expiration::In(Duration::from_secs(60));
    /// let requests = client.increment_or_insert("requests/192.0.2.1", 1, 1, minute).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Fails with [`Error::Refused`] if the entry is no number. With the text protocol, a missing entry takes
    /// up to three round trips, and the operation fails if it is deleted in between.
    pub async fn increment_or_insert(
        &self,
        key: impl AsRef<[u8]>,
        delta: u64,
        initial: u64,
        expiration: Expiration,
    ) -> Result<u64, Error> {
        self.count_or_insert(key.as_ref(), delta, true, initial, expiration).await
    }

    /// Subtracts `delta` from a number that is stored as decimal digits and returns the difference,
    /// which is never below 0. Returns `None` if there is no entry.
    pub async fn decrement(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<Option<u64>, Error> {
        let key = self.on_wire(key.as_ref())?;
        self.link(self.place(&key).await?).count(&key, delta, false, None).await
    }
    /// Like [`Client::decrement`], but stores `initial` with a lifetime if there is no entry, and returns it. See
    /// [`Client::increment_or_insert`].
    pub async fn decrement_or_insert(
        &self,
        key: impl AsRef<[u8]>,
        delta: u64,
        initial: u64,
        expiration: Expiration,
    ) -> Result<u64, Error> {
        self.count_or_insert(key.as_ref(), delta, false, initial, expiration).await
    }

    async fn count_or_insert(
        &self,
        key: &[u8],
        delta: u64,
        is_up: bool,
        initial: u64,
        expiration: Expiration,
    ) -> Result<u64, Error> {
        let key = self.on_wire(key)?;
        let place = self.place(&key).await?;
        let expiration = expiration.on_server(place.stand_in).min(u32::MAX - 1);
        let new = NewCounter { value: initial, expiration };
        let counted = self.link(place).count(&key, delta, is_up, Some(new)).await?;
        counted.ok_or_else(|| {
            let server = self.cluster.config.servers[place.server].clone();
            let reason = "the entry was deleted meanwhile".to_owned();
            Error::Refused { server, key: Some(key::shown(&key)), status: None, reason }
        })
    }
}
