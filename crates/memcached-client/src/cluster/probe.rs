//! Brings a server back that is down: connects, logs in and waits for an answer, in the background.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::link::Link;
use crate::{
    config::{Config, ServerAddress},
    health::{Health, Outage},
};

/// The longest time that a hook may take.
const HOOK_DEADLINE: Duration = Duration::from_secs(10);

/// The shortest pause between two attempts, whatever is configured.
const MIN_PAUSE: Duration = Duration::from_millis(1);

/// Runs before a server is used again; the server stays down when it resolves to `false`.
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
    /// Ends when the server is up again, or when another probe has taken over.
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

    async fn try_once(&self) -> Result<(), Outage> {
        let check = Link::check(&self.address, &self.config);
        timeout(self.config.connect_timeout, check).await.unwrap_or(Err(Outage::Timeout))?;
        let Some(before_return) = &self.before_return else { return Ok(()) };
        self.health.keep_probe(self.number, HOOK_DEADLINE);
        // In a task of its own, so that a hook that panics does not end the probe.
        let mut hook = tokio::spawn(before_return());
        let outcome = timeout(HOOK_DEADLINE, &mut hook).await;
        hook.abort();
        if matches!(outcome, Ok(Ok(true))) { Ok(()) } else { Err(Outage::Hook) }
    }
}

/// However the task ends, another probe may be claimed.
impl Drop for Probe {
    fn drop(&mut self) {
        self.health.end_probe(self.number);
    }
}

/// The wait before the next attempt.
#[derive(Default)]
struct Pause(Option<Duration>);

impl Pause {
    /// Doubles the pause up to its limit. The limit is higher for a server that refuses the log-in,
    /// which may lock accounts; a connect alone costs next to nothing.
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
