//! The open connections of a worker, and their limits.
//!
//! At the limit, the connection that has been waiting for its client for the longest time makes
//! room for the new one: so neither idle nor slow connections keep others out.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::IpAddr,
    rc::Rc,
};

use slab::Slab;

use super::exchange::Exchange;
use crate::config::{Limits, TrustedProxies};

/// The open connections of a worker.
#[derive(Debug)]
pub(super) struct Registry {
    max: usize,
    max_per_address: usize,
    /// These may have any number of connections.
    proxies: TrustedProxies,
    connections: RefCell<Connections>,
    is_closing: Cell<bool>,
}

#[derive(Debug, Default)]
struct Connections {
    open: Slab<(Option<IpAddr>, Rc<Exchange>)>,
    by_address: HashMap<IpAddr, usize>,
}

/// An admitted connection, until this is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    registry: Rc<Registry>,
    key: usize,
    pub(super) exchange: Rc<Exchange>,
}

impl Registry {
    /// Creates the registry of one of `shares` workers, which share the limits evenly.
    pub(super) fn new(limits: &Limits, shares: usize, proxies: TrustedProxies) -> Rc<Self> {
        Rc::new(Self {
            max: limits.connections.div_ceil(shares),
            max_per_address: limits.connections_per_address.div_ceil(shares),
            proxies,
            connections: RefCell::default(),
            is_closing: Cell::default(),
        })
    }

    /// Admits a connection from `address`, `None` for the unix socket. Returns `None` if the limit is
    /// reached and every other connection is at work.
    pub(super) fn admit(self: &Rc<Self>, address: Option<IpAddr>) -> Option<Slot> {
        let mut connections = self.connections.borrow_mut();
        let counted = address.map(|address| address.to_canonical());
        let counted = counted.filter(|a| !a.is_loopback() && !self.proxies.trusts(Some(*a)));
        if let Some(address) = counted {
            let open = connections.by_address.get(&address).copied().unwrap_or(0);
            if open >= self.max_per_address {
                connections.evict(|other| other == Some(address))?;
            }
        }
        if connections.open.len() >= self.max {
            connections.evict(|_| true)?;
        }
        let exchange = Rc::new(Exchange::new());
        let key = connections.open.insert((counted, Rc::clone(&exchange)));
        if let Some(address) = counted {
            *connections.by_address.entry(address).or_default() += 1;
        }
        drop(connections);
        Some(Slot { registry: Rc::clone(self), key, exchange })
    }

    /// Closes idle connections, from now on.
    pub(super) fn close_idle(&self) {
        self.is_closing.set(true);
        self.connections.borrow().open.iter().for_each(|(_, (_, exchange))| exchange.wake());
    }
}

impl Connections {
    /// Ends the connection that has been waiting for the longest time, of those with an address that fits.
    fn evict(&mut self, fits: impl Fn(Option<IpAddr>) -> bool) -> Option<()> {
        let waiting = self.open.iter().filter(|(_, (address, _))| fits(*address));
        let waiting = waiting.filter_map(|(key, (_, e))| Some((e.waiting_since()?, key)));
        let (_, key) = waiting.min()?;
        self.remove(key).evict();
        Some(())
    }

    fn remove(&mut self, key: usize) -> Rc<Exchange> {
        let (address, exchange) = self.open.remove(key);
        if let Some(address) = address
            && let Some(open) = self.by_address.get_mut(&address)
        {
            *open -= 1;
            if *open == 0 {
                self.by_address.remove(&address);
            }
        }
        exchange
    }
}

impl Slot {
    /// Returns whether idle connections are to be closed, because the server stops.
    pub(super) fn is_closing(&self) -> bool {
        self.registry.is_closing.get()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.exchange.is_evicted() {
            self.registry.connections.borrow_mut().remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(connections: usize, connections_per_address: usize) -> Rc<Registry> {
        let limits = Limits { connections, connections_per_address, ..Limits::default() };
        Registry::new(&limits, 1, "198.51.100.7".parse().unwrap())
    }

    fn from(peer: &str) -> Option<IpAddr> {
        peer.parse().ok()
    }

    #[test]
    fn at_the_limit_the_connection_that_waited_longest_makes_room() {
        let registry = registry(2, 100);
        let (first, second) = (registry.admit(None).unwrap(), registry.admit(None).unwrap());
        let third = registry.admit(None).unwrap();
        assert!(first.exchange.is_evicted());
        assert!(!second.exchange.is_evicted() && !third.exchange.is_evicted());
    }

    #[test]
    fn a_connection_at_work_is_never_ended_for_another() {
        let registry = registry(1, 100);
        let busy = registry.admit(None).unwrap();
        busy.exchange.set_waiting_since(None);
        assert!(registry.admit(None).is_none());
        assert!(!busy.exchange.is_evicted());
        drop(busy);
        assert!(registry.admit(None).is_some());
    }

    #[test]
    fn an_address_over_its_limit_loses_its_own_connections_only() {
        let registry = registry(100, 1);
        let other = registry.admit(from("203.0.113.9")).unwrap();
        let first = registry.admit(from("203.0.113.1")).unwrap();
        let second = registry.admit(from("::ffff:203.0.113.1")).unwrap();
        assert!(first.exchange.is_evicted());
        assert!(!other.exchange.is_evicted() && !second.exchange.is_evicted());
    }

    #[test]
    fn trusted_proxies_and_loopback_addresses_are_not_counted() {
        let registry = registry(100, 1);
        for peer in ["198.51.100.7", "127.0.0.1", "::1"] {
            let slots: Vec<_> = (0..3).map(|_| registry.admit(from(peer)).unwrap()).collect();
            assert!(slots.iter().all(|slot| !slot.exchange.is_evicted()), "{peer}");
        }
    }

    #[test]
    fn an_address_without_connections_is_forgotten() {
        let registry = registry(100, 1);
        drop(registry.admit(from("203.0.113.1")));
        assert!(registry.connections.borrow().by_address.is_empty());
    }
}
