//! The operations of the cache as commands of Redis.

use std::time::Duration;

use bytes::Bytes;
use everfresh::backend::{
    Backend, BackendError, CasToken, Delta, FoundOrAdded, NewNumber, StoredBytes, SwapOutcome,
};
use redis::{Cmd, aio::ConnectionManager, cmd};

use crate::{
    connection::Redis,
    layout::{MARKER, header_of, new_entry, number, read, signed, stored_form},
    scripts::{ADD, COUNT, DELETE, SWAP},
};

impl Backend for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn keeps_order(&self, _: &[String]) -> bool {
        true
    }

    async fn get_many(&self, keys: &[&str]) -> Vec<Result<Option<StoredBytes>, BackendError>> {
        let found = self.run(async |mut connection: ConnectionManager| {
            let found: Vec<Option<Bytes>> =
                cmd("MGET").arg(keys).query_async(&mut connection).await?;
            Ok(found)
        });
        match found.await {
            Ok(found) => found.into_iter().map(|stored| Ok(stored.map(read))).collect(),
            Err(error) => vec![Err(error); keys.len()],
        }
    }

    async fn set_many(
        &self,
        entries: &[(String, Bytes)],
        lifetime: Option<Duration>,
    ) -> Vec<Result<(), BackendError>> {
        let mut pipeline = redis::pipe();
        for (key, bytes) in entries {
            let mut set = cmd("SET");
            set.arg(key).arg(stored_form(bytes).as_ref());
            pipeline.add_command(with_lifetime(set, lifetime)).ignore();
        }
        let stored = self.run(async |mut connection: ConnectionManager| {
            pipeline.query_async::<()>(&mut connection).await
        });
        vec![stored.await; entries.len()]
    }

    async fn add(
        &self,
        key: &str,
        bytes: &Bytes,
        lifetime: Option<Duration>,
    ) -> Result<Option<CasToken>, BackendError> {
        let (token, entry) = new_entry(bytes);
        let mut script = ADD.prepare_invoke();
        script.key(key).arg(&[MARKER][..]).arg(entry.as_ref()).arg(milliseconds(lifetime));
        let added = self.run(async |mut connection: ConnectionManager| {
            script.invoke_async::<bool>(&mut connection).await
        });
        Ok(added.await?.then_some(token))
    }

    async fn get_or_add(
        &self,
        key: &str,
        bytes: &Bytes,
        lifetime: Duration,
    ) -> Result<FoundOrAdded, BackendError> {
        let (token, entry) = new_entry(bytes);
        // Both commands in one round trip. If neither finds an entry nor adds one, another caller
        // was faster.
        let mut set = cmd("SET");
        set.arg(key).arg(entry.as_ref()).arg("NX");
        let mut pipeline = redis::pipe();
        pipeline.cmd("GET").arg(key).add_command(with_lifetime(set, Some(lifetime)));
        let answers = self.run(async |mut connection: ConnectionManager| {
            pipeline.query_async::<(Option<Bytes>, Option<String>)>(&mut connection).await
        });
        Ok(match answers.await? {
            // Also if there was an entry that has just been deleted.
            (_, Some(_)) => FoundOrAdded::Added(Some(token)),
            (Some(stored), None) => FoundOrAdded::Found(read(stored)),
            (None, None) => FoundOrAdded::Lost,
        })
    }

    async fn swap(
        &self,
        key: &str,
        bytes: &Bytes,
        lifetime: Option<Duration>,
        token: CasToken,
    ) -> Result<SwapOutcome, BackendError> {
        let Some(header) = header_of(token) else { return Ok(SwapOutcome::Changed) };
        let (new_token, entry) = new_entry(bytes);
        let mut script = SWAP.prepare_invoke();
        script.key(key).arg(&header[..]).arg(entry.as_ref()).arg(milliseconds(lifetime));
        let swapped = self.run(async |mut connection: ConnectionManager| {
            script.invoke_async::<bool>(&mut connection).await
        });
        Ok(if swapped.await? { SwapOutcome::Stored(Some(new_token)) } else { SwapOutcome::Changed })
    }

    async fn delete_if_unchanged(&self, key: &str, token: CasToken) -> Result<(), BackendError> {
        let Some(header) = header_of(token) else { return Ok(()) };
        let mut script = DELETE.prepare_invoke();
        script.key(key).arg(&header[..]);
        let deleted = self.run(async |mut connection: ConnectionManager| {
            script.invoke_async::<bool>(&mut connection).await
        });
        deleted.await.map(drop)
    }

    async fn delete_many(&self, keys: &[String]) -> Vec<Result<(), BackendError>> {
        if keys.is_empty() {
            return Vec::new();
        }
        let deleted = self.run(async |mut connection: ConnectionManager| {
            cmd("DEL").arg(keys).query_async::<()>(&mut connection).await
        });
        vec![deleted.await; keys.len()]
    }

    async fn count(
        &self,
        key: &str,
        delta: Delta,
        new: NewNumber,
    ) -> Result<Option<u64>, BackendError> {
        let (by, stops_at_zero) = match delta {
            Delta::Up(by) => (signed(by), 0),
            // Redis cannot subtract more; numbers from 2⁶³ on are not expected.
            Delta::Down(by) => (-i64::try_from(by).unwrap_or(i64::MAX), 1),
        };
        let mut script = COUNT.prepare_invoke();
        script.key(key).arg(by).arg(signed(new.value)).arg(milliseconds(new.lifetime));
        script.arg(stops_at_zero);
        let counted = self.run(async |mut connection: ConnectionManager| {
            script.invoke_async::<String>(&mut connection).await
        });
        Ok(number(counted.await?.as_bytes()))
    }

    async fn clear(&self) -> Result<(), BackendError> {
        let cleared = self.run(async |mut connection: ConnectionManager| {
            cmd("FLUSHDB").query_async::<()>(&mut connection).await
        });
        cleared.await
    }
}

fn with_lifetime(mut command: Cmd, lifetime: Option<Duration>) -> Cmd {
    if lifetime.is_some() {
        command.arg("PX").arg(milliseconds(lifetime));
    }
    command
}

/// Returns a lifetime as an argument: at least one millisecond, because Redis refuses zero. Empty for an unlimited one.
fn milliseconds(lifetime: Option<Duration>) -> String {
    lifetime.map(|lifetime| lifetime.as_millis().max(1).to_string()).unwrap_or_default()
}
