//! Operations on every server.

use futures_util::future::join_all;

use super::Client;
use crate::{address::ServerAddress, cluster::link::Link, error::Error};

impl Client {
    /// Deletes all entries of every server. Returns one result per server.
    pub async fn flush(&self) -> Vec<(ServerAddress, Result<(), Error>)> {
        self.everywhere(async |link| link.flush().await).await
    }

    /// Returns the version of every server.
    pub async fn version(&self) -> Vec<(ServerAddress, Result<String, Error>)> {
        self.everywhere(async |link| link.version().await).await
    }

    /// Returns the general-purpose statistics of every server as names and values (memcached's
    /// protocol.txt, "General-purpose statistics"). Not supported by the text protocol.
    pub async fn stats(&self) -> Vec<(ServerAddress, Result<Vec<(String, String)>, Error>)> {
        self.everywhere(async |link| link.stats().await).await
    }

    /// Sends a command without effect to every server. Returns one result per server.
    pub async fn noop(&self) -> Vec<(ServerAddress, Result<(), Error>)> {
        self.everywhere(async |link| link.noop().await).await
    }

    async fn everywhere<T>(
        &self,
        operation: impl AsyncFn(&Link) -> Result<T, Error>,
    ) -> Vec<(ServerAddress, Result<T, Error>)> {
        let links = self.cluster.links();
        let answers = links.iter().enumerate().map(|(server, link)| {
            let is_usable = self.cluster.is_usable(server, self.including);
            let (operation, address) = (&operation, self.cluster.config.servers[server].clone());
            async move {
                let down = || Error::ServerDown(address.clone());
                let outcome = if is_usable { operation(link).await } else { Err(down()) };
                (address, outcome)
            }
        });
        join_all(answers).await
    }
}
