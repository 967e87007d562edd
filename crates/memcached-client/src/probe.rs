//! Brings a server back that is out: tries to connect, log in and be answered, in the background.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{sleep, timeout};

use crate::{
    client::{Client, Shared},
    config::{Config, Protocol},
    health::Outage,
    transport::{binary, text},
};

/// Ends when the server is well, or nobody uses the client any more.
pub(crate) fn start(server: usize, shared: Weak<Shared>) {
    let ending = Ending { server, shared };
    tokio::spawn(async move {
        let mut pause = Pause::default();
        while let Some(shared) = ending.shared.upgrade() {
            match try_once(server, &shared).await {
                Ok(()) => return shared.health(server).mark_well(),
                Err(outage) => {
                    let next = pause.after(&outage, &shared.config);
                    shared.health(server).note(outage);
                    drop(shared);
                    sleep(next).await;
                }
            }
        }
    });
}

/// However the task ends, another may be started.
struct Ending {
    server: usize,
    shared: Weak<Shared>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.health(self.server).probe_ended();
        }
    }
}

async fn try_once(server: usize, shared: &Arc<Shared>) -> Result<(), Outage> {
    let config = &shared.config;
    let address = &config.servers[server];
    let probe = async {
        match config.protocol {
            Protocol::Binary => binary::establish(address, config).await.map(drop),
            Protocol::Text => text::establish(address, config).await.map(drop),
        }
    };
    timeout(config.connect_timeout, probe).await.unwrap_or(Err(Outage::Timeout))?;
    match &shared.before_return {
        Some(hook) if !hook(Client::including(shared, server)).await => Err(Outage::Hook),
        _ => Ok(()),
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
        let next = self.0.map_or(config.retry_timeout, |last| (last * 2).min(limit));
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
