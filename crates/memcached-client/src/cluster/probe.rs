//! Brings a server back that is out: tries to connect, log in and be answered, in the background.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{sleep, timeout};

use crate::{
    binary,
    client::Client,
    cluster::Shared,
    config::{Config, Protocol},
    health::Outage,
    text,
};

/// The most that a hook may take.
const HOOK_DEADLINE: Duration = Duration::from_secs(10);

/// The shortest pause, whatever is set.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// Ends when the server is well, or nobody uses the client any more, or another probe has taken
/// over.
pub(crate) fn start(server: usize, number: u64, shared: Weak<Shared>) {
    let probe = Probe { server, number, shared };
    tokio::spawn(async move {
        let mut pause = Pause::default();
        while let Some(shared) = probe.shared.upgrade() {
            let health = shared.health(server);
            if !health.probe_lives(number, shared.config.connect_timeout) {
                return;
            }
            match probe.try_once(&shared).await {
                Ok(()) => return health.mark_well(),
                Err(outage) => {
                    let next = pause.after(&outage, &shared.config);
                    health.note(outage);
                    health.probe_lives(number, next);
                    drop(shared);
                    sleep(next).await;
                }
            }
        }
    });
}

struct Probe {
    server: usize,
    number: u64,
    shared: Weak<Shared>,
}

impl Probe {
    async fn try_once(&self, shared: &Arc<Shared>) -> Result<(), Outage> {
        let config = &shared.config;
        let address = &config.servers[self.server];
        let establish = async {
            match config.protocol {
                Protocol::Binary => binary::establish(address, config).await.map(drop),
                Protocol::Text => text::establish(address, config).await.map(drop),
            }
        };
        timeout(config.connect_timeout, establish).await.unwrap_or(Err(Outage::Timeout))?;
        if shared.before_return.is_none() {
            return Ok(());
        }
        shared.health(self.server).probe_lives(self.number, HOOK_DEADLINE);
        // In a task of its own: a hook that panics takes the pauses of the probe with it else.
        let (hooked, server) = (Arc::clone(shared), self.server);
        let mut hook = tokio::spawn(async move {
            match &hooked.before_return {
                Some(hook) => hook(Client::including(&hooked, server)).await,
                None => true,
            }
        });
        let succeeded = timeout(HOOK_DEADLINE, &mut hook).await;
        hook.abort();
        if matches!(succeeded, Ok(Ok(true))) { Ok(()) } else { Err(Outage::Hook) }
    }
}

/// However the task ends, another may be started.
impl Drop for Probe {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.health(self.server).probe_ended(self.number);
        }
    }
}

/// How long to wait before the next try.
#[derive(Default)]
struct Pause(Option<Duration>);

impl Pause {
    /// Doubles up to the limit. A server that refuses the log-in is asked ever more seldom, the
    /// others soon: a connect costs next to nothing.
    fn after(&mut self, outage: &Outage, config: &Config) -> Duration {
        let limit = match outage {
            Outage::Login(_) => config.login_retry_timeout,
            _ => config.dead_timeout,
        };
        let next = self.0.map_or(config.retry_timeout, |last| last.saturating_mul(2).min(limit));
        let next = next.max(SHORTEST_PAUSE);
        self.0 = Some(next);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit() {
        let config = Config::new(Vec::new());
        let pauses = |outage: Outage| {
            let mut pause = Pause::default();
            (0..8).map(|_| pause.after(&outage, &config).as_millis()).collect::<Vec<_>>()
        };
        assert_eq!(pauses(Outage::Timeout)[..4], [500, 1000, 1500, 1500]);
        let refused = pauses(Outage::Login(String::new()));
        assert_eq!(refused, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
    }
}
