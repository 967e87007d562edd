//! The operations of the text protocol.

use std::io;

use super::{Link, checked_stream::ReplyLine, session::Session};
use crate::{
    error::Error,
    health::Counters,
    key::{KeyError, shown},
    types::{
        Cas, Command, Deletion, EXPIRED, NewCounter, Reservation, StoreMode, Swap, Value, WireItem,
        lifetime_in_text,
    },
};

impl Link {
    /// Looks up an entry. Boxed to keep the futures of the client small.
    pub(crate) async fn get(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        Box::pin(self.look_up(key)).await
    }

    async fn look_up(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        let name = utf8(key)?;
        let get = async |session: &mut Session| {
            let data = none_if_not_found(session.protocol.get(key).await)?;
            session.check_key(data, name)
        };
        let (data, _) = self.on_any_session(1, get).await?;
        self.counters.found(usize::from(data.is_some()), 1);
        Ok(data.map(|data| Value { data: data.into(), flags: 0, cas: None }))
    }

    /// Looks up an entry with its CAS token. Boxed to keep the futures of the client small.
    pub(crate) async fn get_with_cas(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        Box::pin(self.look_up_with_cas(key)).await
    }

    async fn look_up_with_cas(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        let name = utf8(key)?;
        let get = async |session: &mut Session| {
            let entry = none_if_not_found(session.protocol.gets_cas(key).await)?;
            session.check_key(entry, name)
        };
        let (entry, connection) = self.on_any_session(1, get).await?;
        self.counters.found(usize::from(entry.is_some()), 1);
        Ok(entry.map(|(data, id)| Value {
            data: data.into(),
            flags: 0,
            cas: Cas::new(id, connection),
        }))
    }

    /// Takes a round trip for an entry, and up to three to reserve its key.
    pub(crate) async fn get_or_reserve(&self, item: WireItem<'_>) -> Result<Reservation, Error> {
        if let Some(value) = self.get_with_cas(item.key).await? {
            return Ok(Reservation::Found(value));
        }
        let added = self.store(StoreMode::Add, item, true).await?;
        Ok(added.map_or(Reservation::Lost, Reservation::Reserved))
    }

    pub(crate) async fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>, Error> {
        let names = keys.iter().map(|key| utf8(key)).collect::<Result<Vec<_>, _>>()?;
        let get = async |session: &mut Session| session.protocol.get_multi(&names).await;
        let (entries, _) = self.on_any_session(1, get).await?;
        let value = |data: &Vec<u8>| Value { data: data.clone().into(), flags: 0, cas: None };
        let values: Vec<_> = names.iter().map(|name| entries.get(*name).map(value)).collect();
        self.counters.found(values.iter().flatten().count(), values.len());
        Ok(values)
    }

    /// Stores an item. The reply to a `set` or `add` has no CAS token, so `with_cas` costs another
    /// round trip.
    pub(crate) async fn store(
        &self,
        mode: StoreMode,
        item: WireItem<'_>,
        with_cas: bool,
    ) -> Result<Option<Option<Cas>>, Error> {
        if !matches!(mode, StoreMode::Set | StoreMode::Add) {
            return Err(Error::Unsupported(mode.command()));
        }
        let key = key_of(&item)?;
        let store = async |session: &mut Session| {
            if mode == StoreMode::Add {
                return session.add(key, &item).await;
            }
            session.protocol.set(key, item.value, lifetime_in_text(item.expiration)).await?;
            session.protocol.version().await.map(|_| true)
        };
        let (is_stored, connection) = self.on_any_session(1, store).await?;
        Counters::count(&self.counters.sets, usize::from(is_stored));
        if is_stored && with_cas {
            return self.cas_of(&item, connection).await;
        }
        Ok(is_stored.then_some(None))
    }

    /// Returns the CAS token of an item that was just added, or `None` if the entry has been changed
    /// or the session has ended since.
    async fn cas_of(
        &self,
        item: &WireItem<'_>,
        connection: u64,
    ) -> Result<Option<Option<Cas>>, Error> {
        let get = async |session: &mut Session| {
            none_if_not_found(session.protocol.gets_cas(item.key).await)
        };
        let Some((entry, _)) = self.on_session(Some(connection), 1, get).await? else {
            return Ok(None);
        };
        self.counters.found(usize::from(entry.is_some()), 1);
        match entry {
            Some((value, id)) if value == item.value => Ok(Some(Cas::new(id, connection))),
            _ => Ok(None),
        }
    }

    pub(crate) async fn store_many(
        &self,
        items: &[WireItem<'_>],
    ) -> Result<Vec<Result<(), Error>>, Error> {
        let keys: Vec<_> = items.iter().map(key_of).collect();
        let store = async |session: &mut Session| {
            for (item, key) in items.iter().zip(&keys) {
                if let Ok(key) = key {
                    session
                        .protocol
                        .set(key, item.value, lifetime_in_text(item.expiration))
                        .await?;
                }
            }
            session.protocol.version().await
        };
        self.on_any_session(1, store).await?;
        Counters::count(&self.counters.sets, keys.iter().filter(|key| key.is_ok()).count());
        Ok(keys.into_iter().map(|key| key.map(drop)).collect())
    }

    pub(crate) async fn compare_and_swap(
        &self,
        item: WireItem<'_>,
        cas: Cas,
    ) -> Result<Swap, Error> {
        let swap = self.swap(item, cas).await?;
        Counters::count(&self.counters.sets, usize::from(matches!(swap, Swap::Done(_))));
        Ok(swap)
    }

    /// Replaces the entry with one that has expired, because the text protocol has no conditional
    /// delete.
    pub(crate) async fn delete_if_unchanged(&self, key: &[u8], cas: Cas) -> Result<Swap, Error> {
        self.swap(WireItem { key, value: &[], flags: 0, expiration: EXPIRED }, cas).await
    }

    async fn swap(&self, item: WireItem<'_>, cas: Cas) -> Result<Swap, Error> {
        let key = key_of(&item)?;
        let swap = async |session: &mut Session| {
            match session
                .protocol
                .cas(key, item.value, cas.id(), lifetime_in_text(item.expiration))
                .await
            {
                Ok(true) => Ok(Swap::Done(None)),
                Ok(false) => Ok(Swap::Changed),
                // memcache-async does not recognise `NOT_FOUND` here.
                Err(error)
                    if error.kind() == io::ErrorKind::Other
                        && session.log.last() == Some(ReplyLine::NotFound) =>
                {
                    Ok(Swap::Missing)
                }
                Err(error) => Err(error),
            }
        };
        let swapped = self.on_session(Some(cas.connection()), 1, swap).await?;
        Ok(swapped.map_or(Swap::ConnectionReplaced, |(swap, _)| swap))
    }

    pub(crate) async fn delete(&self, key: &[u8]) -> Result<Deletion, Error> {
        self.delete_many(&[key]).await?.pop().unwrap_or(Ok(Deletion::Gone))
    }

    pub(crate) async fn delete_many(
        &self,
        keys: &[&[u8]],
    ) -> Result<Vec<Result<Deletion, Error>>, Error> {
        let names: Vec<_> = keys.iter().map(|key| utf8(key)).collect();
        let delete = async |session: &mut Session| {
            for name in names.iter().flatten() {
                session.protocol.delete(name).await?;
            }
            session.protocol.version().await
        };
        self.on_any_session(1, delete).await?;
        Ok(names.into_iter().map(|name| name.map(|_| Deletion::Gone)).collect())
    }

    /// The protocol cannot create a counter, so a missing one takes up to three round trips.
    pub(crate) async fn count(
        &self,
        key: &[u8],
        delta: u64,
        up: bool,
        new: Option<NewCounter>,
    ) -> Result<Option<u64>, Error> {
        let counted = self.count_existing(key, delta, up).await?;
        let (None, Some(new)) = (counted, new) else { return Ok(counted) };
        let digits = new.value.to_string();
        let (value, flags, expiration) = (digits.as_bytes(), 0, new.expiration);
        let item = WireItem { key, value, flags, expiration };
        match self.store(StoreMode::Add, item, false).await? {
            Some(_) => Ok(Some(new.value)),
            // Another client has created it meanwhile.
            None => self.count_existing(key, delta, up).await,
        }
    }

    async fn count_existing(&self, key: &[u8], delta: u64, up: bool) -> Result<Option<u64>, Error> {
        let count = async |session: &mut Session| {
            none_if_not_found(if up {
                session.protocol.increment(key, delta).await
            } else {
                session.protocol.decrement(key, delta).await
            })
        };
        Ok(self.on_any_session(1, count).await?.0)
    }

    #[expect(clippy::unused_async, reason = "all transports have the same methods")]
    pub(crate) async fn touch(&self, _: &[u8], _: u32) -> Result<bool, Error> {
        Err(Error::Unsupported(Command::Touch))
    }

    #[expect(clippy::unused_async, reason = "all transports have the same methods")]
    pub(crate) async fn get_and_touch(&self, _: &[u8], _: u32) -> Result<Option<Value>, Error> {
        Err(Error::Unsupported(Command::GetAndTouch))
    }

    #[expect(clippy::unused_async, reason = "all transports have the same methods")]
    pub(crate) async fn stats(&self) -> Result<Vec<(String, String)>, Error> {
        Err(Error::Unsupported(Command::Stats))
    }

    pub(crate) async fn noop(&self) -> Result<(), Error> {
        self.version().await.map(drop)
    }

    pub(crate) async fn flush(&self) -> Result<(), Error> {
        let flush = async |session: &mut Session| session.protocol.flush().await;
        self.on_any_session(1, flush).await.map(drop)
    }

    pub(crate) async fn version(&self) -> Result<String, Error> {
        let version = async |session: &mut Session| session.protocol.version().await;
        let (version, _) = self.on_any_session(1, version).await?;
        Ok(self.config.server_text(version.as_bytes()))
    }
}

fn none_if_not_found<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn utf8(key: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(key).map_err(|_| Error::Key { key: shown(key), reason: KeyError::NotUtf8 })
}

/// Returns the key of an item that the text protocol can store.
fn key_of<'a>(item: &WireItem<'a>) -> Result<&'a str, Error> {
    if item.flags == 0 { utf8(item.key) } else { Err(Error::Unsupported(Command::Flags)) }
}
