//! The operations, which are the same in both protocols.

use std::{future::Future, sync::Arc};

use super::{
    InFlight, Link,
    frame::{Request, Response, opcode, status},
    meta,
    pipeline::{Admission, Pushed, Reply},
};
use crate::{
    error::Error,
    health::Counters,
    types::{Cas, Deletion, NewCounter, Reservation, StoreMode, Swap, Value, WireItem},
};

impl Link {
    pub(crate) async fn get(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        let request = Request { opcode: opcode::GET, key, ..Request::default() };
        self.found(self.ask(request).await?, key)
    }

    pub(crate) async fn get_and_touch(
        &self,
        key: &[u8],
        expiration: u32,
    ) -> Result<Option<Value>, Error> {
        let extras = expiration.to_be_bytes();
        let request = Request { opcode: opcode::GAT, key, extras: &extras, ..Request::default() };
        self.found(self.ask(request).await?, key)
    }

    /// Converts the response to a request for the value of `key`.
    fn found(
        &self,
        (response, connection): (Response, u64),
        key: &[u8],
    ) -> Result<Option<Value>, Error> {
        match response.status {
            status::OK => {
                self.counters.found(1, 1);
                Ok(Some(self.value_of(response, connection)))
            }
            status::NOT_FOUND => {
                self.counters.found(0, 1);
                Ok(None)
            }
            _ => Err(self.refusal(&response, connection, key, 0)),
        }
    }

    /// Looks up an entry like [`Link::get`], because every response carries a CAS token.
    pub(crate) fn get_with_cas(
        &self,
        key: &[u8],
    ) -> impl Future<Output = Result<Option<Value>, Error>> {
        self.get(key)
    }

    /// Takes one round trip.
    pub(crate) async fn get_or_reserve(&self, item: WireItem<'_>) -> Result<Reservation, Error> {
        let (key, length) = (item.key, item.value.len());
        let reserve = |admission: Admission<'_>, deadline| admission.push_reserve(&item, deadline);
        let (on, Pushed { slot: (get, add), is_alone }) = self.push(reserve)?;
        // Both are in flight at once, so that both slots are released if this future is dropped.
        let add =
            add.map(|slot| InFlight::start(Arc::clone(&on), Pushed { slot, is_alone: false }));
        let get = InFlight::start(on, Pushed { slot: get, is_alone });
        let (found, connection) = self.response(get).await?;
        let added = match add {
            Some(add) => Some(self.response(add).await?.0),
            None => None,
        };
        // An entry that was evicted between get and add is reserved now.
        let created = match &added {
            Some(added) if added.status == status::OK => Some(added.cas),
            None if found.is_new && found.value.is_empty() => Some(found.cas),
            _ => None,
        };
        if let Some(cas) = created {
            self.counters.found(0, 1);
            return Ok(Reservation::Reserved(Cas::new(cas, connection)));
        }
        match (self.found((found, connection), key)?, added) {
            (Some(value), _) => Ok(Reservation::Found(value)),
            (None, Some(added)) if !matches!(added.status, status::EXISTS | status::NOT_STORED) => {
                Err(self.refusal(&added, connection, key, length))
            }
            (None, _) => Ok(Reservation::Lost),
        }
    }

    pub(crate) async fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>, Error> {
        let requests = keys.iter().map(|key| Request { key, ..Request::default() });
        let (answers, connection) = self.batch(opcode::GETQ, requests).await?;
        let mut values = Vec::with_capacity(answers.len());
        for (answer, key) in answers.into_iter().zip(keys) {
            values.push(match answer {
                // A quiet get has no response if there is no entry.
                None => None,
                Some(response) => match response.status {
                    status::OK => Some(self.value_of(response, connection)),
                    status::NOT_FOUND => None,
                    _ => return Err(self.refusal(&response, connection, key, 0)),
                },
            });
        }
        self.counters.found(values.iter().flatten().count(), values.len());
        Ok(values)
    }

    /// Sends quiet requests. Returns one response per request, or `None` for those without one.
    async fn batch<'a>(
        &self,
        opcode: u8,
        requests: impl Iterator<Item = Request<'a>>,
    ) -> Result<(Vec<Option<Response>>, u64), Error> {
        let sent =
            self.send(|admission, deadline| admission.push_batch(opcode, requests, deadline));
        match self.reply(sent?).await? {
            (Reply::Batch(answers), connection) => Ok((answers, connection)),
            (Reply::One(_) | Reply::List(_), _) => Err(self.wrong_shape()),
        }
    }

    /// Returns `None` if there was an entry (`Add`) or there was none (`Replace`, `Append`, `Prepend`), else
    /// the new CAS token.
    pub(crate) async fn store(
        &self,
        mode: StoreMode,
        item: WireItem<'_>,
        _with_cas: bool,
    ) -> Result<Option<Option<Cas>>, Error> {
        let opcode = match mode {
            StoreMode::Set => opcode::SET,
            StoreMode::Add => opcode::ADD,
            StoreMode::Replace => opcode::REPLACE,
            StoreMode::Append => opcode::APPEND,
            StoreMode::Prepend => opcode::PREPEND,
        };
        // An entry that is extended keeps its flags and its lifetime, and its bytes are not compressed.
        let (value, flags) = match mode {
            StoreMode::Append | StoreMode::Prepend => (item.value.into(), 0),
            StoreMode::Set | StoreMode::Add | StoreMode::Replace => self.packed(&item)?,
        };
        let item = WireItem { value: &value, flags, ..item };
        let extras = item.extras();
        let extras: &[u8] = match mode {
            StoreMode::Append | StoreMode::Prepend => &[],
            StoreMode::Set | StoreMode::Add | StoreMode::Replace => &extras,
        };
        let request = store_request(opcode, &item, extras, 0);
        let (response, connection) = self.ask(request).await?;
        match (response.status, mode) {
            (status::OK, _) => {
                Counters::count(&self.counters.sets, 1);
                Ok(Some(Cas::new(response.cas, connection)))
            }
            (status::EXISTS | status::NOT_STORED, StoreMode::Add)
            | (
                status::NOT_FOUND | status::NOT_STORED,
                StoreMode::Replace | StoreMode::Append | StoreMode::Prepend,
            ) => Ok(None),
            _ => Err(self.refusal(&response, connection, item.key, item.value.len())),
        }
    }

    pub(crate) async fn store_many(
        &self,
        items: &[WireItem<'_>],
    ) -> Result<Vec<Result<(), Error>>, Error> {
        let packed: Vec<_> = items.iter().map(|item| self.packed(item)).collect();
        let stored = items.iter().zip(&packed).filter_map(|(item, packed)| {
            let (value, flags) = packed.as_ref().ok()?;
            Some(WireItem { value, flags: *flags, ..*item })
        });
        let stored: Vec<_> = stored.collect();
        let extras: Vec<_> = stored.iter().map(WireItem::extras).collect();
        let requests = stored.iter().zip(&extras);
        let requests = requests.map(|(item, extras)| store_request(0, item, extras, 0));
        let (answers, connection) = self.batch(opcode::SETQ, requests).await?;
        let mut answers = answers.iter().zip(&stored);
        let mut outcome = |packed: &Result<_, Error>| {
            packed.as_ref().map_err(Error::clone)?;
            match answers.next() {
                Some((Some(response), item)) if response.status != status::OK => {
                    Err(self.refusal(response, connection, item.key, item.value.len()))
                }
                _ => Ok(()),
            }
        };
        let outcomes: Vec<_> = packed.iter().map(&mut outcome).collect();
        Counters::count(&self.counters.sets, outcomes.iter().filter(|o| o.is_ok()).count());
        Ok(outcomes)
    }

    pub(crate) async fn compare_and_swap(
        &self,
        item: WireItem<'_>,
        cas: Cas,
    ) -> Result<Swap, Error> {
        let (value, flags) = self.packed(&item)?;
        let item = WireItem { value: &value, flags, ..item };
        let extras = item.extras();
        let request = store_request(opcode::SET, &item, &extras, cas.id());
        let swap = self.swap(request, cas).await?;
        if matches!(swap, Swap::Done(_)) {
            Counters::count(&self.counters.sets, 1);
        }
        Ok(swap)
    }

    pub(crate) async fn delete_if_unchanged(&self, key: &[u8], cas: Cas) -> Result<Swap, Error> {
        let request = Request { opcode: opcode::DELETE, key, cas: cas.id(), ..Request::default() };
        match self.swap(request, cas).await? {
            Swap::Done(_) => Ok(Swap::Done(None)),
            other => Ok(other),
        }
    }

    /// Sends a conditional write on the connection of `cas`.
    async fn swap(&self, request: Request<'_>, cas: Cas) -> Result<Swap, Error> {
        let (key, length) = (request.key, request.value.len());
        let push = |admission: Admission<'_>, deadline| admission.push(request, deadline);
        let Some(sent) = self.send_on(cas.connection(), push)? else {
            return Ok(Swap::ConnectionReplaced);
        };
        let (response, connection) = self.response(sent).await?;
        match response.status {
            status::OK => Ok(Swap::Done(Cas::new(response.cas, connection))),
            status::EXISTS => Ok(Swap::Changed),
            status::NOT_FOUND => Ok(Swap::Missing),
            _ => Err(self.refusal(&response, connection, key, length)),
        }
    }

    pub(crate) async fn delete(&self, key: &[u8]) -> Result<Deletion, Error> {
        let request = Request { opcode: opcode::DELETE, key, ..Request::default() };
        let (response, connection) = self.ask(request).await?;
        self.deletion(Some(&response), connection, key)
    }

    pub(crate) async fn delete_many(
        &self,
        keys: &[&[u8]],
    ) -> Result<Vec<Result<Deletion, Error>>, Error> {
        let requests = keys.iter().map(|key| Request { key, ..Request::default() });
        let (answers, connection) = self.batch(opcode::DELETEQ, requests).await?;
        let both = answers.iter().zip(keys);
        Ok(both.map(|(answer, key)| self.deletion(answer.as_ref(), connection, key)).collect())
    }

    /// Converts the response to a delete. A quiet delete that succeeds has no response.
    fn deletion(
        &self,
        answer: Option<&Response>,
        connection: u64,
        key: &[u8],
    ) -> Result<Deletion, Error> {
        match answer {
            None => Ok(Deletion::Deleted),
            Some(response) => match response.status {
                status::OK => Ok(Deletion::Deleted),
                status::NOT_FOUND => Ok(Deletion::NotFound),
                _ => Err(self.refusal(response, connection, key, 0)),
            },
        }
    }

    pub(crate) async fn touch(&self, key: &[u8], expiration: u32) -> Result<bool, Error> {
        let extras = expiration.to_be_bytes();
        let request = Request { opcode: opcode::TOUCH, key, extras: &extras, ..Request::default() };
        let (response, connection) = self.ask(request).await?;
        match response.status {
            status::OK => Ok(true),
            status::NOT_FOUND => Ok(false),
            _ => Err(self.refusal(&response, connection, key, 0)),
        }
    }

    pub(crate) async fn count(
        &self,
        key: &[u8],
        delta: u64,
        up: bool,
        new: Option<NewCounter>,
    ) -> Result<Option<u64>, Error> {
        let opcode = if up { opcode::INCREMENT } else { opcode::DECREMENT };
        // Delta, initial value, and lifetime. All ones: do not create the entry.
        let mut extras = [0xff; 20];
        extras[..8].copy_from_slice(&delta.to_be_bytes());
        if let Some(new) = new {
            extras[8..16].copy_from_slice(&new.value.to_be_bytes());
            extras[16..].copy_from_slice(&new.expiration.to_be_bytes());
        }
        let request = Request { opcode, key, extras: &extras, ..Request::default() };
        let (response, connection) = self.ask(request).await?;
        match response.status {
            status::OK => number_of(&response).map(Some).ok_or_else(|| self.wrong_shape()),
            status::NOT_FOUND => Ok(None),
            _ => Err(self.refusal(&response, connection, key, 0)),
        }
    }

    pub(crate) async fn flush(&self) -> Result<(), Error> {
        self.plain(opcode::FLUSH).await.map(drop)
    }

    pub(crate) async fn noop(&self) -> Result<(), Error> {
        self.plain(opcode::NOOP).await.map(drop)
    }

    pub(crate) async fn version(&self) -> Result<String, Error> {
        let response = self.plain(opcode::VERSION).await?;
        Ok(self.server.config.server_text(&response.value))
    }

    /// Sends a request without key or value.
    async fn plain(&self, opcode: u8) -> Result<Response, Error> {
        let (response, connection) = self.ask(Request { opcode, ..Request::default() }).await?;
        match response.status {
            status::OK => Ok(response),
            _ => Err(self.refusal(&response, connection, b"", 0)),
        }
    }

    /// Returns the general-purpose statistics as names and values.
    pub(crate) async fn stats(&self) -> Result<Vec<(String, String)>, Error> {
        let request = Request { opcode: opcode::STAT, ..Request::default() };
        let sent = self.send(|admission, deadline| admission.push(request, deadline))?;
        let text = |bytes: &[u8]| self.server.config.server_text(bytes);
        let (reply, connection) = self.reply(sent).await?;
        match reply {
            Reply::List(list) => Ok(list.iter().map(|r| (text(&r.key), text(&r.value))).collect()),
            Reply::One(response) => Err(self.refusal(&response, connection, b"", 0)),
            Reply::Batch(_) => Err(self.wrong_shape()),
        }
    }
}

/// Returns the value of a counter: decimal digits in the meta protocol, eight bytes in the binary one.
fn number_of(response: &Response) -> Option<u64> {
    if meta::has_digits(response) {
        std::str::from_utf8(&response.value).ok()?.trim_end().parse().ok()
    } else {
        Some(u64::from_be_bytes(response.value[..].try_into().ok()?))
    }
}

fn store_request<'a>(opcode: u8, item: &WireItem<'a>, extras: &'a [u8], cas: u64) -> Request<'a> {
    Request { opcode, opaque: 0, cas, extras, key: item.key, value: item.value }
}
