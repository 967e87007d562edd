//! What the servers say of themselves, beside what this process knows.

use std::collections::BTreeMap;

use memcached_client::ServerStatus;

use crate::{backend::Backend, cache::Cache};

/// A memcached server, as this process and as it itself sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerReport {
    /// Whether it is used, and what this process has asked of it.
    pub status: ServerStatus,
    /// Its own statistics by name (memcached's protocol.txt, "General-purpose statistics"). Empty
    /// if it does not answer, and with the text protocol.
    pub stats: BTreeMap<String, String>,
}

impl Cache {
    /// Whether every server answers; true if entries are not in memcached.
    pub async fn ping(&self) -> bool {
        let Backend::Memcached(memcached) = self.backend() else { return true };
        memcached.0.noop().await.iter().all(|(_, answer)| answer.is_ok())
    }

    /// All servers, asked now; none if entries are not in memcached.
    pub async fn server_reports(&self) -> Vec<ServerReport> {
        let Backend::Memcached(memcached) = self.backend() else { return Vec::new() };
        let answers: Vec<_> = memcached.0.stats().await;
        let stats_of = |status: &ServerStatus| {
            let mut answers = answers.iter();
            let answer = answers.find(|(address, _)| *address == status.address);
            answer.and_then(|(_, stats)| stats.as_ref().ok()).cloned().unwrap_or_default()
        };
        let statuses = memcached.0.status().into_iter();
        statuses
            .map(|status| ServerReport { stats: stats_of(&status).into_iter().collect(), status })
            .collect()
    }
}
