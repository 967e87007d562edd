//! The faults: killed processes, and memcached servers that restart, hang or answer badly.

use std::{
    sync::{atomic::Ordering, mpsc},
    thread,
    time::{Duration, Instant},
};

use everfresh::REPLAY_AGE;
use rand::{RngExt, rngs::StdRng};

use crate::{
    cluster::{Cluster, PROCESSES},
    proxy::{Disturbance, Proxy},
};

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Fault {
    /// `kill -9` of a process when its n-th delete (from 1) is on the way to a server. The delete
    /// is dropped. With 0, the process is killed at a random time.
    Kill(usize),
    Restart,
    Hang,
    Cut,
    Delay,
    Garble,
}

pub const FAULTS: [Fault; 10] = [
    Fault::Kill(0),
    Fault::Kill(1),
    Fault::Kill(2),
    Fault::Kill(3),
    Fault::Kill(4),
    Fault::Restart,
    Fault::Hang,
    Fault::Cut,
    Fault::Delay,
    Fault::Garble,
];

impl Cluster {
    /// Causes a fault. Returns whether a write was in flight when it began.
    pub fn cause(&self, fault: Fault, rng: &mut StdRng) -> bool {
        if let Fault::Kill(step) = fault {
            return self.kill(step, rng);
        }
        let server = rng.random_range(0..self.proxies.len());
        self.wait_for_a_write();
        self.checker.fault_begins();
        let in_flight = self.writing.load(Ordering::SeqCst) > 0;
        let duration = Duration::from_millis(rng.random_range(20..1500));
        self.journal.record(|| format!("server {server}: {fault:?}"));
        match fault {
            Fault::Restart => self.memcached[server].lock().unwrap().restart(),
            Fault::Hang => {
                self.memcached[server].lock().unwrap().signal("STOP");
                thread::sleep(duration);
                self.memcached[server].lock().unwrap().signal("CONT");
            }
            Fault::Cut => self.proxies[server].end_connections(),
            Fault::Delay => {
                self.proxies[server].disturb(Disturbance::Delay(Duration::from_millis(400)));
                thread::sleep(duration);
                self.proxies[server].disturb(Disturbance::None);
            }
            Fault::Garble => {
                self.proxies[server].disturb(Disturbance::Garble);
                thread::sleep(duration);
                self.proxies[server].disturb(Disturbance::None);
            }
            Fault::Kill(_) => {}
        }
        self.journal.record(|| format!("server {server}: {fault:?} is over"));
        self.checker.fault_ends();
        in_flight
    }

    /// Waits for a write in flight, for at most a second.
    fn wait_for_a_write(&self) {
        let begun = Instant::now();
        while self.writing.load(Ordering::SeqCst) == 0 && begun.elapsed() < Duration::from_secs(1) {
            std::hint::spin_loop();
        }
    }

    /// Kills a process and starts it again. Returns whether it was in the middle of a write.
    fn kill(&self, step: usize, rng: &mut StdRng) -> bool {
        // The gate stops all other writers, so that the deletes announced below belong to the write
        // started here.
        let _gate = self.gate.write().unwrap();
        let process = rng.random_range(0..PROCESSES);
        let (announce, announced) = mpsc::channel();
        if step > 0 {
            // A fault for the other process too: the proxies hold its deletes as well.
            self.checker.fault_begins();
            self.proxies.iter().for_each(|proxy| proxy.hold_deletes(announce.clone()));
        }
        let in_flight = thread::scope(|scope| {
            let writing = scope.spawn(|| self.write(process));
            if step == 0 {
                self.wait_for_a_write();
                thread::sleep(Duration::from_micros(rng.random_range(0..3000)));
            }
            // Forwards the deletes before the n-th and keeps that one.
            let mut held = None;
            for number in 1..=step {
                // A write that changes no row sends no deletes.
                let Ok(delete) = announced.recv_timeout(Duration::from_secs(2)) else { break };
                if number < step {
                    delete.send(true).unwrap();
                } else {
                    held = Some(delete);
                }
            }
            let in_flight = self.writing.load(Ordering::SeqCst) > 0;
            drop(self.programs[process].lock().unwrap().take());
            self.journal.record(|| format!("process {process}: killed at {step}"));
            // Drops the held delete only now that its sender is dead and cannot send it again.
            self.proxies.iter().for_each(Proxy::release_deletes);
            if let Some(delete) = held {
                let _ = delete.send(false);
            }
            // Lets deletes that were announced meanwhile pass.
            drop(announced);
            writing.join().unwrap();
            in_flight
        });
        if step > 0 {
            self.checker.fault_ends();
        }
        self.start_process(process);
        // A process that starts replays the rows that are left, however young. The pause keeps the
        // rows of the next writes out of that replay.
        thread::sleep(REPLAY_AGE);
        self.journal.record(|| format!("process {process}: started"));
        in_flight
    }
}
