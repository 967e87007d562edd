//! Matches responses to requests. Takes no lock and wakes no task: the caller does both.

use std::{
    collections::VecDeque,
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::BytesMut;
use slab::Slab;
use thiserror::Error;

use super::{
    super::{
        binary,
        codec::Codec,
        frame::{Request, Response, opcode, status},
    },
    entry::{Entry, Reply, Shape},
    writes::Writes,
};
use crate::error::Error;

/// The number of unwritten gets that later gets can share.
const SHARED_GETS: usize = 8;

/// The most statistics that a server may send. memcached sends about a hundred.
const MAX_LIST: usize = 1000;
/// The longest name and value of a statistic, in bytes together. Those of memcached have less than 100.
const MAX_STATISTIC: usize = 4096;

/// A response that matches no request. The connection is out of step and must be closed.
#[derive(Debug, Error)]
#[error("a response with opaque {opaque:?} and status {status:#04x} matches no request")]
pub(crate) struct UnexpectedResponse {
    opaque: Option<u32>,
    status: u16,
}

/// More responses than the request can have.
struct ExcessResponse;

/// The outcome of one operation, or the caller that waits for it.
#[derive(Debug)]
pub(super) enum Slot {
    Waiting {
        waker: Option<Waker>,
        so_far: Reply,
        /// Slots that share the outcome.
        followers: Vec<usize>,
    },
    Ready(Result<Reply, Error>),
    /// The caller has gone, but slots that share the outcome may still be waiting.
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

/// The requests in flight, the bytes to write, and the callers.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) out: BytesMut,
    /// The protocol of the requests in `out`. The binary one until the connection is open.
    codec: Codec,
    /// Where `out` is to be divided between two writes: see [`Writes`].
    pub(super) writes: Writes,
    pub(super) slots: Slab<Slot>,
    pub(super) next_opaque: u32,
    /// Wakes the connection's task.
    pub(super) task: Option<Waker>,
    /// The same, while the task waits for requests to write.
    pub(super) writer: Option<Waker>,
    /// The slot of the caller that reads instead of the task, because it is alone. Set for each operation but a get that
    /// shares another, so the slot is not that of a later operation.
    pub(super) reader: Option<usize>,
    /// The number of operations in a row that found no other in flight.
    pub(super) idle_pushes: u32,
    entries: VecDeque<Entry>,
    /// Keys and slots of unwritten gets that no write follows. A get that shares one of them returns a
    /// value as recent as its own request would.
    unsent_gets: Vec<(Box<[u8]>, usize)>,
}

impl State {
    pub(super) fn new(writes: Writes) -> Self {
        Self { writes, ..Self::default() }
    }

    pub(super) fn encode(&mut self, request: &Request<'_>) {
        let start = self.out.len();
        self.codec.encode(request, &mut self.out);
        self.writes.add(start, self.out.len());
    }

    /// Ends the operation that has been encoded last.
    pub(super) fn end_operation(&mut self) {
        self.writes.end_operation(self.out.len());
    }

    /// Changes the protocol of the requests that are not yet written.
    pub(super) fn speak(&mut self, codec: Codec) {
        if self.codec == Codec::Binary && codec != Codec::Binary {
            let encoded = std::mem::take(&mut self.out);
            self.writes.clear();
            self.codec = codec;
            for request in binary::encoded_requests(&encoded) {
                self.encode(&request);
            }
        }
        self.codec = codec;
    }

    pub(super) fn codec(&self) -> Codec {
        self.codec
    }

    /// Adds a request that has one response, or a list of statistics, and returns its slot.
    pub(super) fn push(&mut self, mut request: Request<'_>, deadline: Instant) -> usize {
        let shape = match request.opcode {
            opcode::STAT => Shape::List { opcode: opcode::STAT },
            opcode => Shape::One { opcode },
        };
        request.opaque = self.next_opaque;
        self.encode(&request);
        self.enter(shape, deadline)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.entries.len()
    }

    /// Returns the deadline of the oldest operation in flight.
    pub(super) fn first_deadline(&self) -> Option<Instant> {
        self.entries.front().map(|entry| entry.deadline)
    }

    /// Returns a slot that shares the outcome of an unsent get of `key`, if there is one.
    pub(super) fn share_get(&mut self, key: &[u8]) -> Option<usize> {
        let (_, leader) = self.unsent_gets.iter().find(|(unsent, _)| **unsent == *key)?;
        let leader = *leader;
        let slot = self.slots.vacant_key();
        self.slots.get_mut(leader)?.followers()?.push(slot);
        self.slots.insert(Slot::waiting(Reply::List(Vec::new())));
        Some(slot)
    }

    /// Allows later gets to share the get of `key`, which must be entered next.
    pub(super) fn remember_get(&mut self, key: &[u8]) {
        let slot = self.slots.vacant_key();
        if self.unsent_gets.len() == SHARED_GETS {
            self.unsent_gets.remove(0);
        }
        self.unsent_gets.push((key.into(), slot));
    }

    /// Prevents later gets from sharing an unwritten one.
    pub(super) fn forget_gets(&mut self) {
        self.unsent_gets.clear();
    }

    /// Enters an operation after its frames have been encoded, and returns its slot.
    pub(super) fn enter(&mut self, shape: Shape, deadline: Instant) -> usize {
        let so_far = match shape {
            Shape::Batch { quiet, .. } => Reply::Batch(vec![None; quiet as usize]),
            Shape::One { .. } | Shape::List { .. } => Reply::List(Vec::new()),
        };
        let slot = self.slots.insert(Slot::waiting(so_far));
        let first = self.next_opaque;
        self.next_opaque = first.wrapping_add(shape.frames());
        self.entries.push_back(Entry { first, shape, slot, deadline, done: false });
        slot
    }

    pub(super) fn wake_on_push(&mut self, writer: &Waker) {
        if !self.writer.as_ref().is_some_and(|waker| waker.will_wake(writer)) {
            self.writer = Some(writer.clone());
        }
    }

    /// Takes the waker of the caller that reads, or that of the task. The caller gets a waker by polling: if it has not
    /// done so since it was woken, the task reads.
    pub(super) fn take_reader(&mut self) -> Option<Waker> {
        let caller = self.reader.and_then(|slot| match self.slots.get_mut(slot) {
            Some(Slot::Waiting { waker, .. }) => waker.take(),
            _ => None,
        });
        caller.or_else(|| self.task.clone())
    }

    /// Returns whether an operation in flight would wake another task than `waker`.
    pub(super) fn has_other_waker(&self, slot: usize, waker: &Waker) -> bool {
        let Slot::Waiting { waker: Some(set), .. } = &self.slots[slot] else { return false };
        !set.will_wake(waker)
    }

    /// Returns the outcome of an operation, and releases its slot. While there is none, it will wake the caller.
    pub(super) fn poll(&mut self, slot: usize, cx: &mut Context<'_>) -> Poll<Result<Reply, Error>> {
        if let Slot::Waiting { waker, .. } = &mut self.slots[slot] {
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        match self.slots.remove(slot) {
            Slot::Ready(outcome) => Poll::Ready(outcome),
            Slot::Waiting { .. } | Slot::Abandoned { .. } => Poll::Pending,
        }
    }

    /// Releases the slot of an operation whose caller has gone.
    pub(super) fn abandon(&mut self, slot: usize) {
        match self.slots[slot].followers().map(std::mem::take) {
            None => drop(self.slots.remove(slot)),
            Some(followers) => self.slots[slot] = Slot::Abandoned { followers },
        }
    }

    pub(super) fn fail_all(&mut self, error: &Error, woken: &mut Vec<Waker>) {
        self.out = BytesMut::new();
        self.writes.clear();
        self.forget_gets();
        while let Some(entry) = self.entries.pop_front() {
            if !entry.done {
                self.finish(entry.slot, Err(error.clone()), woken);
            }
        }
    }

    /// Matches one response to its request. Adds the wakers of operations that are complete to
    /// `woken`.
    pub(super) fn deliver(
        &mut self,
        response: Response,
        woken: &mut Vec<Waker>,
    ) -> Result<(), UnexpectedResponse> {
        let unexpected = UnexpectedResponse { opaque: response.opaque, status: response.status };
        let opaque = response.opaque.or_else(|| self.oldest(&response));
        let Some((opaque, index)) = opaque.and_then(|o| Some((o, self.entry_of(o)?))) else {
            return Err(unexpected);
        };
        let Entry { first, shape, slot, done, .. } = self.entries[index];
        let frame = opaque.wrapping_sub(first);
        // A server cannot answer a request that was not written, or twice, or another command.
        let is_unsent = self.unsent_gets.iter().any(|(_, unsent)| *unsent == slot);
        if done || is_unsent || !response.answers.contains(shape.opcode_of(frame)) {
            return Err(unexpected);
        }
        let complete = match shape {
            Shape::One { .. } => {
                self.finish(slot, Ok(Reply::One(response)), woken);
                true
            }
            // The response to the final NOOP: all responses to the quiet requests came before it.
            Shape::Batch { quiet, .. } if frame == quiet => {
                self.finish_gathered(slot, woken);
                true
            }
            Shape::Batch { .. } => {
                self.gather(slot, frame, response).map_err(|ExcessResponse| unexpected)?;
                false
            }
            Shape::List { .. } => {
                self.list(slot, response, woken).map_err(|ExcessResponse| unexpected)?
            }
        };
        self.entries[index].done = complete;
        while self.entries.front().is_some_and(|entry| entry.done) {
            self.entries.pop_front();
        }
        Ok(())
    }

    /// Returns the opaque of the oldest request without a response, which is the one that a server
    /// answers without naming it. In a batch, that is the final NOOP, or the first request that has no
    /// response yet; of gets, which are answered only if they hit, it cannot be told.
    fn oldest(&self, response: &Response) -> Option<u32> {
        let entry = self.entries.front()?;
        let frame = match (entry.shape, &self.slots[entry.slot]) {
            (Shape::Batch { quiet, .. }, _) if response.is_end_of_batch() => quiet,
            (Shape::Batch { opcode: opcode::GETQ, .. }, _) => return None,
            (Shape::Batch { .. }, Slot::Waiting { so_far: Reply::Batch(answers), .. }) => {
                u32::try_from(answers.iter().position(Option::is_none)?).ok()?
            }
            // The only request, or one of a batch whose caller has gone.
            _ => 0,
        };
        Some(entry.first.wrapping_add(frame))
    }

    /// Finds the entry of an opaque. Servers answer in order, so it is nearly always the first.
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

    /// Adds a response to a batch.
    fn gather(
        &mut self,
        slot: usize,
        frame: u32,
        response: Response,
    ) -> Result<(), ExcessResponse> {
        if let Slot::Waiting { so_far: Reply::Batch(answers), .. } = &mut self.slots[slot] {
            let answer = &mut answers[frame as usize];
            if answer.is_some() {
                return Err(ExcessResponse);
            }
            *answer = Some(response);
        }
        Ok(())
    }

    /// Adds a response to a list of statistics. Returns whether the list is complete: it ends with a
    /// response without a name, and an error is its only response.
    fn list(
        &mut self,
        slot: usize,
        response: Response,
        woken: &mut Vec<Waker>,
    ) -> Result<bool, ExcessResponse> {
        if response.status != status::OK {
            self.finish(slot, Ok(Reply::One(response)), woken);
            return Ok(true);
        }
        if response.key.is_empty() {
            self.finish_gathered(slot, woken);
            return Ok(true);
        }
        if let Slot::Waiting { so_far: Reply::List(list), .. } = &mut self.slots[slot] {
            let length = response.key.len() + response.value.len();
            if list.len() >= MAX_LIST || length > MAX_STATISTIC {
                return Err(ExcessResponse);
            }
            list.push(response);
        }
        Ok(false)
    }

    /// Completes an operation with the responses gathered so far.
    fn finish_gathered(&mut self, slot: usize, woken: &mut Vec<Waker>) {
        let gathered = match &mut self.slots[slot] {
            Slot::Waiting { so_far, .. } => std::mem::replace(so_far, Reply::List(Vec::new())),
            Slot::Ready(_) | Slot::Abandoned { .. } => Reply::List(Vec::new()),
        };
        self.finish(slot, Ok(gathered), woken);
    }

    /// Stores the outcome of an operation in its slot and the slots that share it.
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
