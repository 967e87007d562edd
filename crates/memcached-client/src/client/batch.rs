//! Operations on many keys, in one round trip per server.

use std::{borrow::Cow, collections::HashMap, hash::Hash};

use futures_util::future::join_all;

use super::Client;
use crate::{
    cluster::batch::{BatchItem, in_order, split_by_server},
    error::Error,
    types::{Deletion, Item, Value},
};

impl Client {
    /// Looks up `keys` in one round trip per server. Returns one result per key, in the same order.
    pub async fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Result<Option<Value>, Error>> {
        let keys = self.all_on_wire(keys);
        let (links, batches) = (self.cluster.links(), split_by_server(&keys, |key| &**key));
        let requests = batches.iter().map(|batch| links[batch.server].get_many(&batch.parts));
        let replies = join_all(requests).await.into_iter();
        in_order(
            &self.cluster.config.servers,
            &keys,
            &batches,
            replies.map(|values| Ok(values?.into_iter().map(Ok).collect())),
        )
    }

    /// Looks up `keys` in one round trip per server, and returns those that were found. A key on a server
    /// that is down is not found; [`Client::get_many`] tells it from a miss.
    pub async fn get_map<'k, K: AsRef<[u8]> + Eq + Hash>(
        &self,
        keys: &'k [K],
    ) -> HashMap<&'k K, Value> {
        let values = self.get_many(keys).await.into_iter();
        keys.iter().zip(values).filter_map(|(key, value)| Some((key, value.ok()??))).collect()
    }

    /// Stores values, whether or not there are entries, in one round trip per server. Returns one
    /// result per item, in the same order.
    pub async fn set_many<K: AsRef<[u8]>>(
        &self,
        items: &[(K, Item<'_>)],
    ) -> Vec<Result<(), Error>> {
        let keys = self.all_on_wire(items.iter().map(|(key, _)| key));
        let items: Vec<_> = keys
            .iter()
            .zip(items)
            .map(|(key, (_, item))| {
                let (key, place) = key.as_ref().map_err(Error::clone)?;
                Ok((self.wire_item(key, *item, place.stand_in)?, *place))
            })
            .collect();
        let (links, batches) = (self.cluster.links(), split_by_server(&items, |item| *item));
        let requests = batches.iter().map(|batch| links[batch.server].store_many(&batch.parts));
        in_order(
            &self.cluster.config.servers,
            &items,
            &batches,
            join_all(requests).await.into_iter(),
        )
    }

    /// Deletes entries in one round trip per server, in order on each server. Returns one result
    /// per key when all servers have answered or failed.
    pub async fn delete_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Result<Deletion, Error>> {
        let keys = self.all_on_wire(keys);
        let (links, batches) = (self.cluster.links(), split_by_server(&keys, |key| &**key));
        let requests = batches.iter().map(|batch| links[batch.server].delete_many(&batch.parts));
        in_order(
            &self.cluster.config.servers,
            &keys,
            &batches,
            join_all(requests).await.into_iter(),
        )
    }

    fn all_on_wire<'k, K: AsRef<[u8]> + 'k>(
        &self,
        keys: impl IntoIterator<Item = &'k K>,
    ) -> Vec<BatchItem<Cow<'k, [u8]>>> {
        keys.into_iter()
            .map(|key| {
                let key = self.on_wire(key.as_ref())?;
                let place = self.cluster.place(&key, self.including)?;
                Ok((key, place))
            })
            .collect()
    }
}
