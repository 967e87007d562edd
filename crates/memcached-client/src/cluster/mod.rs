//! What all handles and runtimes have in common.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, RwLock, Weak},
};

use tokio::{runtime, sync::watch};

use crate::{
    client::Client,
    config::{Config, ServerAddress},
    health::{Health, ServerStatus},
};

pub(crate) mod batch;
pub(crate) mod link;
pub(crate) mod probe;
pub(crate) mod ring;

use link::Link;
use ring::Ring;

/// What is run before a server that was out is used again; see [`Client::with_hook`].
pub(crate) type Hook =
    Box<dyn Fn(Client) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// What all handles and runtimes have in common. No socket is in it but through its links.
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) ring: Ring,
    health: Vec<Arc<Health>>,
    runtimes: RwLock<Vec<(runtime::Id, Arc<[Link]>)>>,
    /// What runtimes that have ended had counted.
    past: Mutex<Vec<[u64; 5]>>,
    /// Closed when this is dropped.
    alive: watch::Sender<()>,
    this: Weak<Shared>,
    pub(crate) before_return: Option<Hook>,
}

impl Shared {
    pub(crate) fn new(config: Config, before_return: Option<Hook>) -> Arc<Self> {
        let names: Vec<_> = config.servers.iter().map(ServerAddress::ring_name).collect();
        Arc::new_cyclic(|shared: &Weak<Self>| Self {
            ring: Ring::new(&names),
            health: config
                .servers
                .iter()
                .enumerate()
                .map(|(i, address)| Arc::new(Health::new(i, address.clone(), shared.clone())))
                .collect(),
            config: Arc::new(config),
            runtimes: RwLock::default(),
            past: Mutex::new(vec![[0; 5]; names.len()]),
            alive: watch::Sender::new(()),
            this: shared.clone(),
            before_return,
        })
    }

    /// How each server is.
    pub(crate) fn status(&self) -> Vec<ServerStatus> {
        (0..self.health.len()).map(|server| self.status_of(server)).collect()
    }

    pub(crate) fn health(&self, server: usize) -> &Health {
        &self.health[server]
    }

    /// The links of the current runtime.
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
        let new = |(server, health): (usize, &Arc<Health>)| {
            Link::new(&self.config, server, Arc::clone(health))
        };
        let links: Arc<[Link]> = self.health.iter().enumerate().map(new).collect();
        runtimes.push((id, Arc::clone(&links)));
        drop(runtimes);
        let (guard, mut alive) =
            (OnRuntime { id, shared: self.this.clone() }, self.alive.subscribe());
        tokio::spawn(async move {
            // Until the client or the runtime ends.
            while alive.changed().await.is_ok() {}
            drop(guard);
        });
        links
    }

    /// Forgets the links of a runtime that has ended, but not what they have counted.
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

/// Lives as long as a runtime, in a task of it.
struct OnRuntime {
    id: runtime::Id,
    shared: Weak<Shared>,
}

impl Drop for OnRuntime {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.forget(self.id);
        }
    }
}

impl Drop for Shared {
    /// Ends the tasks that serve connections.
    fn drop(&mut self) {
        let runtimes = self.runtimes.get_mut().unwrap_or_else(PoisonError::into_inner);
        runtimes.iter().flat_map(|(_, links)| links.iter()).for_each(Link::close);
    }
}
