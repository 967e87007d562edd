//! The state of the memcached servers, as they and this process see it.

use std::collections::BTreeMap;

use memcached_client::ServerStatus;

use super::Cache;

/// The state of one memcached server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerReport {
    /// Whether this process uses the server, and its operations so far.
    pub status: ServerStatus,
    /// The server's own statistics by name (memcached's protocol.txt, "General-purpose statistics").
    /// Empty if it does not answer, and with the text protocol.
    pub stats: BTreeMap<String, String>,
}

impl Cache {
    /// Returns whether every server answers; `true` if entries are not in memcached.
    pub async fn ping(&self) -> bool {
        let Some(client) = self.entries().client() else { return true };
        client.noop().await.iter().all(|(_, answer)| answer.is_ok())
    }

    /// Asks every server for its statistics. Empty if entries are not in memcached.
    pub async fn server_reports(&self) -> Vec<ServerReport> {
        let Some(client) = self.entries().client() else { return Vec::new() };
        let mut answers: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for (address, stats) in client.stats().await {
            answers.insert(address.to_string(), stats.unwrap_or_default().into_iter().collect());
        }
        let report = |status: ServerStatus| {
            // A server may be listed twice.
            let stats = answers.get(&status.address.to_string()).cloned().unwrap_or_default();
            ServerReport { status, stats }
        };
        client.status().into_iter().map(report).collect()
    }
}
