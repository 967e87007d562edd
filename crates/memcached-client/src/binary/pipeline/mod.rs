//! Requests that wait for their responses on one connection. Does no I/O.
//!
//! Callers add requests ([`Pipeline::push`]) and wait for a [`Ticket`]; the connection's task takes
//! the bytes and hands in responses ([`Pipeline::deliver`]). A caller that goes away leaves its
//! entry behind, which swallows the response.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Instant,
};

use bytes::BytesMut;
use slab::Slab;
use thiserror::Error;

use super::protocol::{Request, Response, opcode, status};
use crate::error::Error;

mod entry;
mod ticket;

pub(crate) use entry::Reply;
use entry::{Entry, Shape};
pub(crate) use ticket::Ticket;

/// So many of the latest gets that have not been written can be shared.
const SHARED_GETS: usize = 8;

/// Bytes that may wait to be written before no more operations are taken.
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;

/// The most statistics that one server may send: real ones are some hundred.
const MAX_LIST: usize = 10_000;

/// A response that belongs to no request: the connection cannot be trusted any more.
#[derive(Debug, Error)]
#[error("a response with opaque {opaque} and opcode {opcode:#04x} answers nothing that was asked")]
pub(crate) struct Unexpected {
    opaque: u32,
    opcode: u8,
}

/// More answers than one request has.
struct Repeated;

#[derive(Debug)]
enum Slot {
    Waiting {
        waker: Option<Waker>,
        so_far: Reply,
        followers: Vec<usize>,
    },
    Ready(Result<Reply, Error>),
    /// Nobody waits here any more, but perhaps those who share the answer.
    Abandoned {
        followers: Vec<usize>,
    },
}

impl Slot {
    fn waiting(so_far: Reply) -> Self {
        Self::Waiting { waker: None, so_far, followers: Vec::new() }
    }

    fn followers(&mut self) -> Option<&mut Vec<usize>> {
        match self {
            Self::Waiting { followers, .. } | Self::Abandoned { followers } => Some(followers),
            Self::Ready(_) => None,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    out: BytesMut,
    entries: VecDeque<Entry>,
    slots: Slab<Slot>,
    next_opaque: u32,
    /// Gets among the bytes that nobody has taken yet, and after which nothing was changed: their
    /// keys and slots. What they will find is as new as what another get would.
    unsent_gets: Vec<(Box<[u8]>, usize)>,
    /// The task that writes what is pushed, while it is idle.
    writer: Option<Waker>,
}

/// The requests of one connection. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pipeline(Arc<Mutex<State>>);

impl Pipeline {
    /// A caller that panics while it holds the lock leaves the state whole: no code in between
    /// can panic half way.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many operations wait.
    pub(crate) fn in_flight(&self) -> usize {
        self.state().entries.len()
    }

    /// Whether no more may wait: so many operations, or too many bytes.
    pub(crate) fn is_full(&self, limit: usize) -> bool {
        let state = self.state();
        state.slots.len() >= limit || state.out.len() > MAX_WAITING_BYTES
    }

    /// Adds a request with one response.
    pub(crate) fn push(&self, mut request: Request<'_>, deadline: Instant) -> Ticket {
        let shape = match request.opcode {
            opcode::STAT => Shape::List { opcode: opcode::STAT },
            opcode => Shape::One { opcode },
        };
        let mut state = self.state();
        if request.opcode == opcode::GET {
            if let Some(slot) = state.share(request.key) {
                return Ticket { pipeline: self.clone(), slot: Some(slot) };
            }
            let slot = state.slots.vacant_key();
            if state.unsent_gets.len() == SHARED_GETS {
                state.unsent_gets.remove(0);
            }
            state.unsent_gets.push((request.key.into(), slot));
        } else {
            state.unsent_gets.clear();
        }
        request.opaque = state.next_opaque;
        request.encode(&mut state.out);
        self.enter(state, shape, deadline)
    }

    /// Adds quiet requests of one kind and the NOOP that ends them; their opaques are set here.
    pub(crate) fn push_batch<'a>(
        &self,
        opcode: u8,
        requests: impl Iterator<Item = Request<'a>>,
        deadline: Instant,
    ) -> Ticket {
        let mut state = self.state();
        if opcode != opcode::GETQ {
            state.unsent_gets.clear();
        }
        let mut quiet = 0;
        for mut request in requests {
            (request.opcode, request.opaque) = (opcode, state.next_opaque.wrapping_add(quiet));
            request.encode(&mut state.out);
            quiet += 1;
        }
        let opaque = state.next_opaque.wrapping_add(quiet);
        Request { opcode: opcode::NOOP, opaque, ..Request::default() }.encode(&mut state.out);
        self.enter(state, Shape::Batch { opcode, quiet }, deadline)
    }

    fn enter(&self, mut state: MutexGuard<'_, State>, shape: Shape, deadline: Instant) -> Ticket {
        let so_far = match shape {
            Shape::Batch { quiet, .. } => Reply::Batch(vec![None; quiet as usize]),
            Shape::One { .. } | Shape::List { .. } => Reply::List(Vec::new()),
        };
        let slot = state.slots.insert(Slot::waiting(so_far));
        let first = state.next_opaque;
        state.next_opaque = first.wrapping_add(shape.frames());
        state.entries.push_back(Entry { first, shape, slot, deadline, done: false });
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
        Ticket { pipeline: self.clone(), slot: Some(slot) }
    }

    /// Swaps the bytes that are to be written with the empty `spare`; without any, `writer` is
    /// woken when there are some.
    pub(crate) fn take_bytes(&self, spare: &mut BytesMut, writer: &Waker) {
        let mut state = self.state();
        if state.out.is_empty() {
            state.wake_when_asked(writer);
        } else {
            std::mem::swap(&mut state.out, spare);
            state.unsent_gets.clear();
        }
    }

    pub(crate) fn wake_when_asked(&self, writer: &Waker) {
        self.state().wake_when_asked(writer);
    }

    pub(crate) fn wake_writer(&self) {
        let writer = self.state().writer.take();
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Hands in responses as long as `next` has some; then wakes whoever waits for them.
    pub(crate) fn deliver<E: From<Unexpected>>(
        &self,
        mut next: impl FnMut() -> Result<Option<Response>, E>,
        woken: &mut Vec<Waker>,
    ) -> Result<(), E> {
        let mut state = self.state();
        let outcome = loop {
            match next() {
                Ok(Some(response)) => {
                    if let Err(unexpected) = state.deliver(response, woken) {
                        break Err(unexpected.into());
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        drop(state);
        woken.drain(..).for_each(Waker::wake);
        outcome
    }

    /// When the operation that has waited longest must be answered.
    pub(crate) fn first_deadline(&self) -> Option<Instant> {
        self.state().entries.front().map(|entry| entry.deadline)
    }

    /// Fails everything that waits, and forgets what was to be written.
    pub(crate) fn fail_all(&self, error: &Error) {
        let mut woken = Vec::new();
        let mut state = self.state();
        state.out = BytesMut::new();
        state.unsent_gets.clear();
        while let Some(entry) = state.entries.pop_front() {
            if !entry.done {
                state.finish(entry.slot, Err(error.clone()), &mut woken);
            }
        }
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }
}

impl State {
    /// A slot that gets what a get of the same key will find, if there is one that nobody has taken.
    fn share(&mut self, key: &[u8]) -> Option<usize> {
        let (_, leader) = self.unsent_gets.iter().find(|(unsent, _)| **unsent == *key)?;
        let leader = *leader;
        let slot = self.slots.vacant_key();
        self.slots.get_mut(leader)?.followers()?.push(slot);
        self.slots.insert(Slot::waiting(Reply::List(Vec::new())));
        Some(slot)
    }

    fn wake_when_asked(&mut self, writer: &Waker) {
        if !self.writer.as_ref().is_some_and(|waker| waker.will_wake(writer)) {
            self.writer = Some(writer.clone());
        }
    }

    fn deliver(&mut self, response: Response, woken: &mut Vec<Waker>) -> Result<(), Unexpected> {
        let unexpected = Unexpected { opaque: response.opaque, opcode: response.opcode };
        let Some(index) = self.entry_of(response.opaque) else {
            return Err(unexpected);
        };
        let Entry { first, shape, slot, done, .. } = self.entries[index];
        let frame = response.opaque.wrapping_sub(first);
        // What has not been sent cannot have been answered.
        let is_unsent = self.unsent_gets.iter().any(|(_, unsent)| *unsent == slot);
        if done || is_unsent || response.opcode != shape.opcode_of(frame) {
            return Err(unexpected);
        }
        let complete = match shape {
            Shape::One { .. } => {
                self.finish(slot, Ok(Reply::One(response)), woken);
                true
            }
            Shape::Batch { quiet, .. } if frame == quiet => {
                self.finish_gathered(slot, woken);
                true
            }
            Shape::Batch { .. } => {
                self.gather(slot, frame, response).map_err(|Repeated| unexpected)?;
                false
            }
            Shape::List { .. } => {
                self.list(slot, response, woken).map_err(|Repeated| unexpected)?
            }
        };
        self.entries[index].done = complete;
        while self.entries.front().is_some_and(|entry| entry.done) {
            self.entries.pop_front();
        }
        Ok(())
    }

    /// Nearly always the first: a server answers in order.
    fn entry_of(&self, opaque: u32) -> Option<usize> {
        let base = self.entries.front()?.first;
        let distance = opaque.wrapping_sub(base);
        let after = |entry: &Entry| entry.first.wrapping_sub(base) <= distance;
        let index = match self.entries.get(1) {
            Some(second) if after(second) => self.entries.partition_point(after) - 1,
            _ => 0,
        };
        let entry = &self.entries[index];
        (opaque.wrapping_sub(entry.first) < entry.shape.frames()).then_some(index)
    }

    fn gather(&mut self, slot: usize, frame: u32, response: Response) -> Result<(), Repeated> {
        if let Slot::Waiting { so_far: Reply::Batch(answers), .. } = &mut self.slots[slot] {
            let answer = &mut answers[frame as usize];
            if answer.is_some() {
                return Err(Repeated);
            }
            *answer = Some(response);
        }
        Ok(())
    }

    /// Statistics end with one without a name; an error is the only response.
    fn list(
        &mut self,
        slot: usize,
        response: Response,
        woken: &mut Vec<Waker>,
    ) -> Result<bool, Repeated> {
        if response.status != status::OK {
            self.finish(slot, Ok(Reply::One(response)), woken);
            return Ok(true);
        }
        if response.key.is_empty() {
            self.finish_gathered(slot, woken);
            return Ok(true);
        }
        if let Slot::Waiting { so_far: Reply::List(list), .. } = &mut self.slots[slot] {
            if list.len() >= MAX_LIST {
                return Err(Repeated);
            }
            list.push(response);
        }
        Ok(false)
    }

    fn finish_gathered(&mut self, slot: usize, woken: &mut Vec<Waker>) {
        let gathered = match &mut self.slots[slot] {
            Slot::Waiting { so_far, .. } => std::mem::replace(so_far, Reply::List(Vec::new())),
            Slot::Ready(_) | Slot::Abandoned { .. } => Reply::List(Vec::new()),
        };
        self.finish(slot, Ok(gathered), woken);
    }

    fn finish(&mut self, slot: usize, outcome: Result<Reply, Error>, woken: &mut Vec<Waker>) {
        let followers = self.slots[slot].followers().map(std::mem::take).unwrap_or_default();
        for follower in followers {
            self.finish(follower, outcome.clone(), woken);
        }
        match &mut self.slots[slot] {
            Slot::Abandoned { .. } => {
                self.slots.remove(slot);
            }
            Slot::Waiting { waker, .. } => {
                woken.extend(waker.take());
                self.slots[slot] = Slot::Ready(outcome);
            }
            Slot::Ready(_) => {}
        }
    }
}
