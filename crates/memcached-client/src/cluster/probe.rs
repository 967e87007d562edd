//! Probes a server that is down: connects, logs in and waits for a reply, in the background.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

#[cfg(feature = "text")]
use crate::text;
use crate::{
    address::ServerAddress,
    config::Config,
    health::{Health, Outage},
    multiplexed,
};

/// Deadline of a hook.
const HOOK_DEADLINE: Duration = Duration::from_secs(10);

/// The shortest pause between two attempts; a configured zero would be a busy loop.
const MIN_PAUSE: Duration = Duration::from_millis(1);

/// Runs before a server is used again. The server stays down if the future resolves to `false`.
pub(crate) type ReturnCheck =
    Box<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// One probe of one server, claimed with [`Health::claim_probe`].
pub(crate) struct Probe {
    pub(crate) number: u64,
    pub(crate) address: ServerAddress,
    pub(crate) health: Arc<Health>,
    pub(crate) config: Arc<Config>,
    pub(crate) before_return: Option<ReturnCheck>,
}

impl Probe {
    /// Tries to reach the server until it is up again or another probe has taken over.
    pub(crate) async fn run(self) {
        let mut pause = Pause::default();
        while self.health.keep_probe(self.number, self.config.connect_timeout) {
            match self.try_once().await {
                Ok(()) => return self.health.mark_up(),
                Err(outage) => {
                    let next = pause.after(&outage, &self.config);
                    self.health.note(outage);
                    self.health.keep_probe(self.number, next);
                    sleep(next).await;
                }
            }
        }
    }

    /// Connects once and runs the hook.
    async fn try_once(&self) -> Result<(), Outage> {
        let check = check(&self.address, &self.config, &self.health);
        timeout(self.config.connect_timeout, check).await.unwrap_or(Err(Outage::Timeout))?;
        let Some(before_return) = &self.before_return else { return Ok(()) };
        self.health.keep_probe(self.number, HOOK_DEADLINE);
        // The hook runs in a task of its own, so that a panic does not end the probe.
        let mut hook = tokio::spawn(before_return());
        let outcome = timeout(HOOK_DEADLINE, &mut hook).await;
        hook.abort();
        if matches!(outcome, Ok(Ok(true))) { Ok(()) } else { Err(Outage::Hook) }
    }
}

/// Connects, logs in and waits for a reply, on a new connection that is closed again.
async fn check(address: &ServerAddress, config: &Config, health: &Health) -> Result<(), Outage> {
    #[cfg(feature = "text")]
    if config.protocol.is_text() {
        return text::establish(address, config).await.map(drop);
    }
    match multiplexed::establish(address, config, health).await {
        #[cfg(feature = "text")]
        Err(Outage::OnlyText) => text::establish(address, config).await.map(drop),
        outcome => outcome.map(drop),
    }
}

impl Drop for Probe {
    /// Allows another probe to start, even if the runtime has dropped this one.
    fn drop(&mut self) {
        self.health.end_probe(self.number);
    }
}

/// The pause before the next attempt.
#[derive(Default)]
struct Pause(Option<Duration>);

impl Pause {
    /// Doubles the pause up to its limit. The limit is higher while the server refuses the log-in,
    /// because repeated attempts may lock the account; a connection alone is cheap.
    fn after(&mut self, outage: &Outage, config: &Config) -> Duration {
        let limit = match outage {
            Outage::Login(_) => config.login_retry_timeout,
            _ => config.dead_timeout,
        };
        let next = self.0.map_or(config.retry_timeout, |last| last.saturating_mul(2).min(limit));
        let next = next.max(MIN_PAUSE);
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
