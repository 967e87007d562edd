//! The servers of one client: their places on the ring, their health, and the links of each
//! runtime.
//!
//! Knows no protocol and no command. Only links hold sockets, and a link stays on its runtime.

pub(crate) mod batch;
pub(crate) mod link;
mod probe;
mod ring;

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, RwLock, Weak},
};

use tokio::{runtime, sync::watch, task::JoinSet};

use self::{
    batch::Place,
    link::Link,
    probe::{Probe, ReturnCheck},
    ring::Ring,
};
use crate::{
    address::ServerAddress,
    config::{Config, Distribution, Failover},
    error::Error,
    health::{Health, ServerStatus},
};

/// Runs before the server with this index is used again: see
/// [`Client::with_hook`](crate::Client::with_hook).
pub(crate) type BeforeReturn =
    Box<dyn Fn(Arc<Cluster>, usize) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// The servers of one client, shared by all its handles and runtimes.
pub(crate) struct Cluster {
    pub(crate) config: Arc<Config>,
    ring: Ring,
    health: Vec<Arc<Health>>,
    runtimes: RwLock<Vec<(runtime::Id, Arc<[Link]>)>>,
    /// The counters of runtimes that have ended.
    past: Mutex<Vec<[u64; 5]>>,
    /// Wakes the task of each runtime that starts probes. See [`RuntimeGuard::attend`].
    probe_requests: watch::Sender<()>,
    this: Weak<Cluster>,
    before_return: Option<BeforeReturn>,
}

impl Cluster {
    pub(crate) fn new(config: Config, before_return: Option<BeforeReturn>) -> Arc<Self> {
        let names: Vec<_> = config.servers.iter().map(ServerAddress::ring_name).collect();
        let probe_requests = watch::Sender::new(());
        let health = config
            .servers
            .iter()
            .map(|address| {
                let health = Health::new(address.clone(), &config, probe_requests.clone());
                Arc::new(health)
            })
            .collect();
        Arc::new_cyclic(|this| Self {
            ring: match &config.distribution {
                Distribution::Ketama => Ring::new(&names),
                Distribution::KetamaWeighted(weights) => Ring::weighted(&names, weights),
            },
            health,
            config: Arc::new(config),
            runtimes: RwLock::default(),
            past: Mutex::new(vec![[0; 5]; names.len()]),
            probe_requests,
            this: this.clone(),
            before_return,
        })
    }

    /// Returns the server of `key` while all servers are up.
    pub(crate) fn owner_of(&self, key: &[u8]) -> usize {
        self.ring.owner_of(key)
    }

    /// Returns the server for an operation on `key`. The server `including` counts as up.
    pub(crate) fn place(&self, key: &[u8], including: Option<usize>) -> Result<Place, Error> {
        let owner = self.ring.owner_of(key);
        if self.is_usable(owner, including) {
            return Ok(Place { server: owner, stand_in: false });
        }
        let down = || Error::ServerDown(self.config.servers[owner].clone());
        match self.config.failover {
            Failover::Miss => Err(down()),
            Failover::Eject => {
                let server = self.ring.server_of(key, |server| self.is_usable(server, including));
                Ok(Place { server: server.ok_or_else(down)?, stand_in: true })
            }
        }
    }

    /// Returns whether all servers are known to speak another protocol than the text one.
    pub(crate) fn are_multiplexed(&self) -> bool {
        self.health.iter().all(|health| health.protocol().is_some_and(|known| !known.is_text()))
    }

    /// Returns whether operations may be sent to a server. Requests a probe if the server is down.
    pub(crate) fn is_usable(&self, server: usize, including: Option<usize>) -> bool {
        let health = &self.health[server];
        if !health.is_down() || including == Some(server) {
            return true;
        }
        // A runtime gets the task that starts probes together with its links, and it may be the only
        // runtime that is left.
        let _ = self.links();
        health.request_probe();
        false
    }

    /// Returns the links of the current runtime. The first call on a runtime creates them.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub(crate) fn links(&self) -> Arc<[Link]> {
        let id = runtime::Handle::current().id();
        let of = |runtimes: &[(runtime::Id, Arc<[Link]>)]| {
            runtimes.iter().find(|(runtime, _)| *runtime == id).map(|(_, links)| Arc::clone(links))
        };
        if let Some(links) = of(&self.runtimes.read().unwrap_or_else(PoisonError::into_inner)) {
            return links;
        }
        let mut runtimes = self.runtimes.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread of the runtime may have created them while this one waited for the lock.
        if let Some(links) = of(&runtimes) {
            return links;
        }
        let links: Arc<[Link]> = self
            .health
            .iter()
            .enumerate()
            .map(|(server, health)| Link::new(&self.config, server, health))
            .collect();
        runtimes.push((id, Arc::clone(&links)));
        // A runtime that is shutting down drops the task at once, and the guard takes the lock.
        drop(runtimes);
        let runtime = RuntimeGuard { id, cluster: self.this.clone() };
        tokio::spawn(runtime.attend(self.probe_requests.subscribe()));
        links
    }

    /// Returns one server's link on the current runtime.
    pub(crate) fn link(&self, server: usize) -> ServerLink {
        ServerLink { links: self.links(), server }
    }

    /// Starts a probe of each server that needs one.
    fn start_probes(&self, probes: &mut JoinSet<()>) {
        for (server, health) in self.health.iter().enumerate() {
            let Some(number) = health.claim_probe() else { continue };
            let probe = Probe {
                number,
                address: self.config.servers[server].clone(),
                health: Arc::clone(health),
                config: Arc::clone(&self.config),
                before_return: self.return_check(server),
            };
            probes.spawn(probe.run());
        }
    }

    /// Returns the hook of the client, bound to a server.
    fn return_check(&self, server: usize) -> Option<ReturnCheck> {
        self.before_return.as_ref()?;
        let this = self.this.clone();
        Some(Box::new(move || {
            let cluster = this.upgrade();
            Box::pin(async move {
                let Some(cluster) = cluster else { return false };
                match &cluster.before_return {
                    Some(hook) => hook(Arc::clone(&cluster), server).await,
                    None => true,
                }
            })
        }))
    }

    /// Removes the links of a runtime that has ended, and adds their counters to `past`.
    fn forget(&self, id: runtime::Id) {
        let mut runtimes = self.runtimes.write().unwrap_or_else(PoisonError::into_inner);
        let Some(index) = runtimes.iter().position(|(runtime, _)| *runtime == id) else { return };
        let (_, links) = runtimes.swap_remove(index);
        drop(runtimes);
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        for (past, link) in past.iter_mut().zip(links.iter()) {
            for (past, counted) in past.iter_mut().zip(link.counted()) {
                *past += counted;
            }
        }
    }

    /// Returns the status of each server.
    pub(crate) fn status(&self) -> Vec<ServerStatus> {
        (0..self.health.len()).map(|server| self.status_of(server)).collect()
    }

    fn status_of(&self, server: usize) -> ServerStatus {
        let runtimes = self.runtimes.read().unwrap_or_else(PoisonError::into_inner);
        let links = || runtimes.iter().map(|(_, links)| &links[server]);
        let mut sums = self.past.lock().unwrap_or_else(PoisonError::into_inner)[server];
        for link in links() {
            for (sum, counted) in sums.iter_mut().zip(link.counted()) {
                *sum += counted;
            }
        }
        let [hits, misses, sets, errors, timeouts] = sums;
        ServerStatus {
            address: self.config.servers[server].clone(),
            state: self.health[server].state(),
            protocol: self.health[server].protocol(),
            outages: self.health[server].outages(),
            hits,
            misses,
            sets,
            errors,
            timeouts,
            in_flight: links().map(Link::in_flight).sum(),
        }
    }
}

impl Drop for Cluster {
    /// Ends the tasks that serve connections and start probes.
    fn drop(&mut self) {
        let runtimes = self.runtimes.get_mut().unwrap_or_else(PoisonError::into_inner);
        runtimes.iter().flat_map(|(_, links)| links.iter()).for_each(Link::close);
        self.probe_requests.send_replace(());
    }
}

/// Lives in a task of one runtime. When the runtime ends, it drops the task, and the guard removes
/// the links of the runtime.
struct RuntimeGuard {
    id: runtime::Id,
    cluster: Weak<Cluster>,
}

impl RuntimeGuard {
    /// Starts probes on request until the client or the runtime ends. The probes end with this task.
    async fn attend(self, mut probe_requests: watch::Receiver<()>) {
        let mut probes = JoinSet::new();
        while let Some(cluster) = self.cluster.upgrade() {
            cluster.start_probes(&mut probes);
            drop(cluster);
            if probe_requests.changed().await.is_err() {
                break;
            }
            while probes.try_join_next().is_some() {}
        }
    }
}

impl Drop for RuntimeGuard {
    fn drop(&mut self) {
        if let Some(cluster) = self.cluster.upgrade() {
            cluster.forget(self.id);
        }
    }
}

/// One server's link on the current runtime.
pub(crate) struct ServerLink {
    links: Arc<[Link]>,
    server: usize,
}

impl std::ops::Deref for ServerLink {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.links[self.server]
    }
}
