//! The servers of one client: where a key lives, which servers are usable, and the links of each
//! runtime.
//!
//! Knows no protocol and no command. Sockets are only in the links, and a link stays on its runtime.

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
    config::{Config, Failover, ServerAddress},
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
    /// Counts of runtimes that have ended.
    past: Mutex<Vec<[u64; 5]>>,
    /// Wakes the task of each runtime that starts probes.
    probe_requests: watch::Sender<()>,
    this: Weak<Cluster>,
    before_return: Option<BeforeReturn>,
}

impl Cluster {
    pub(crate) fn new(config: Config, before_return: Option<BeforeReturn>) -> Arc<Self> {
        let names: Vec<_> = config.servers.iter().map(ServerAddress::ring_name).collect();
        let probe_requests = watch::Sender::new(());
        let new_health = |address: &ServerAddress| {
            Arc::new(Health::new(address.clone(), probe_requests.clone()))
        };
        let health = config.servers.iter().map(new_health).collect();
        Arc::new_cyclic(|this| Self {
            ring: Ring::new(&names),
            health,
            config: Arc::new(config),
            runtimes: RwLock::default(),
            past: Mutex::new(vec![[0; 5]; names.len()]),
            probe_requests,
            this: this.clone(),
            before_return,
        })
    }

    /// The server that `key` lives on while all servers are up.
    pub(crate) fn owner_of(&self, key: &[u8]) -> usize {
        self.ring.owner_of(key)
    }

    /// The server to send an operation on `key` to. A handle may use the server `including` although
    /// it is down.
    pub(crate) fn place(&self, key: &[u8], including: Option<usize>) -> Result<Place, Error> {
        let owner = self.ring.owner_of(key);
        if self.is_usable(owner, including) {
            return Ok(Place { server: owner, stand_in: false });
        }
        let down = || Error::ServerDown(self.config.servers[owner].clone());
        match self.config.failover {
            Failover::Miss => Err(down()),
            Failover::Eject => {
                let is_usable = |server| self.is_usable(server, including);
                let server = self.ring.server_of(key, is_usable).ok_or_else(down)?;
                Ok(Place { server, stand_in: true })
            }
        }
    }

    /// Whether operations may be sent to a server. If it is down, makes sure that it is probed.
    pub(crate) fn is_usable(&self, server: usize, including: Option<usize>) -> bool {
        let health = &self.health[server];
        if !health.is_down() || including == Some(server) {
            return true;
        }
        // A runtime without links would not hear the request; it may be the only one that is alive.
        let _ = self.links();
        health.request_probe();
        false
    }

    /// The links of the current runtime; the first call on a runtime makes them.
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
        if let Some(links) = of(&runtimes) {
            return links;
        }
        let new_link =
            |(server, health): (usize, &Arc<Health>)| Link::new(&self.config, server, health);
        let links: Arc<[Link]> = self.health.iter().enumerate().map(new_link).collect();
        runtimes.push((id, Arc::clone(&links)));
        // Without the lock: a runtime that is being shut down drops the task at once.
        drop(runtimes);
        let runtime = RuntimeGuard { id, cluster: self.this.clone() };
        tokio::spawn(runtime.attend(self.probe_requests.subscribe()));
        links
    }

    /// One server's link on the current runtime.
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

    /// Removes the links of a runtime that has ended and keeps their counts.
    fn forget(&self, id: runtime::Id) {
        let mut runtimes = self.runtimes.write().unwrap_or_else(PoisonError::into_inner);
        let Some(index) = runtimes.iter().position(|(runtime, _)| *runtime == id) else { return };
        let (_, links) = runtimes.swap_remove(index);
        drop(runtimes);
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        for (past, link) in past.iter_mut().zip(links.iter()) {
            for (past, counted) in past.iter_mut().zip(link.counters().all()) {
                *past += counted;
            }
        }
    }

    /// The status of each server.
    pub(crate) fn status(&self) -> Vec<ServerStatus> {
        (0..self.health.len()).map(|server| self.status_of(server)).collect()
    }

    fn status_of(&self, server: usize) -> ServerStatus {
        let runtimes = self.runtimes.read().unwrap_or_else(PoisonError::into_inner);
        let links = || runtimes.iter().map(|(_, links)| &links[server]);
        let mut sums = self.past.lock().unwrap_or_else(PoisonError::into_inner)[server];
        for link in links() {
            for (sum, counted) in sums.iter_mut().zip(link.counters().all()) {
                *sum += counted;
            }
        }
        let [hits, misses, sets, errors, timeouts] = sums;
        ServerStatus {
            address: self.config.servers[server].clone(),
            state: self.health[server].state(),
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

/// Ends the tasks that serve connections and start probes.
impl Drop for Cluster {
    fn drop(&mut self) {
        let runtimes = self.runtimes.get_mut().unwrap_or_else(PoisonError::into_inner);
        runtimes.iter().flat_map(|(_, links)| links.iter()).for_each(Link::close);
        self.probe_requests.send_replace(());
    }
}

/// Lives in a task of one runtime and as long as that.
struct RuntimeGuard {
    id: runtime::Id,
    cluster: Weak<Cluster>,
}

impl RuntimeGuard {
    /// Starts probes whenever one is requested, until the client or the runtime ends. The probes end
    /// with this task.
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
