//! Requests in flight on one connection. Does no I/O.
//!
//! A caller adds a request ([`Pipeline::admit`]) and awaits the outcome in its slot ([`Pipeline::poll`]); the
//! connection's task, or a caller that is alone, takes the bytes to write and delivers responses
//! ([`Pipeline::deliver`]). If a caller goes
//! ([`Pipeline::abandon`]), its slot stays until the response has arrived, and the response is discarded.

mod entry;
mod state;
mod writes;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::BytesMut;

pub(crate) use self::{entry::Reply, state::UnexpectedResponse, writes::Writes};
use self::{entry::Shape, state::State};
use super::{
    codec::Codec,
    frame::{Request, Response, opcode},
};
use crate::{error::Error, types::WireItem};

/// The most bytes that may wait to be written. Beyond that, operations are refused.
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;

/// The number of operations in a row that must have found no other in flight before one counts as alone. A lower number
/// costs more under load, where a few operations in a row are alone by chance, than it gains.
const ALONE_AFTER: u32 = 8;

/// The requests in flight on one connection.
#[derive(Debug, Default)]
pub(crate) struct Pipeline(Mutex<State>);

/// The permission to add one operation.
pub(crate) struct Admission<'a> {
    state: MutexGuard<'a, State>,
    is_alone: bool,
}

/// An operation that has been added: its slot, or several.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pushed<T = usize> {
    pub(crate) slot: T,
    /// The number of the next request, if no other operation was in flight, nor when the ones before were added
    /// ([`ALONE_AFTER`]), and the writing task is idle. Then the task has not been woken: the caller writes and reads.
    pub(crate) alone: Option<u32>,
}

impl Pipeline {
    /// Creates a pipeline whose bytes are divided into `writes`.
    pub(crate) fn new(writes: Writes) -> Self {
        Self(Mutex::new(State::new(writes)))
    }

    /// Locks the state. A poisoned lock is harmless, because code that holds it does not panic between
    /// two changes that belong together.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the protocol that the server speaks. Requests that were added before are translated.
    pub(crate) fn speak(&self, codec: Codec) {
        self.state().speak(codec);
    }

    /// Returns the number of operations in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.state().in_flight()
    }

    /// Admits an operation, unless `limit` operations or [`MAX_WAITING_BYTES`] are waiting already.
    pub(crate) fn admit(&self, limit: usize) -> Option<Admission<'_>> {
        let mut state = self.state();
        let is_full = state.slots.len() >= limit || state.out.len() > MAX_WAITING_BYTES;
        // One that follows a burst is likely to be the first of the next one, and is written with it.
        state.idle_pushes =
            if state.in_flight() == 0 { state.idle_pushes.saturating_add(1) } else { 0 };
        let is_alone = state.idle_pushes > ALONE_AFTER && state.writer.is_some();
        (!is_full).then_some(Admission { state, is_alone })
    }

    /// Swaps the bytes to write with the empty buffer `spare`, and moves the writes into `divided`. If there are no
    /// bytes, `writer` is woken when one is added by a caller that is not alone.
    pub(crate) fn take_bytes(&self, spare: &mut BytesMut, divided: &mut Writes, writer: &Waker) {
        let mut state = self.state();
        if state.out.is_empty() {
            state.wake_on_push(writer);
        } else {
            std::mem::swap(&mut state.out, spare);
            state.writes.move_to(divided);
            state.forget_gets();
        }
    }

    /// Wakes `writer` at the next push.
    pub(crate) fn wake_on_push(&self, writer: &Waker) {
        self.state().wake_on_push(writer);
    }

    /// Wakes the writing task, if it is idle.
    pub(crate) fn wake_writer(&self) {
        let writer = self.state().writer.take();
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Delivers responses until `next` has no more, and adds their callers to `woken`.
    pub(crate) fn deliver<E: From<UnexpectedResponse>>(
        &self,
        mut next: impl FnMut() -> Result<Option<Response>, E>,
        woken: &mut Vec<Waker>,
    ) -> Result<(), E> {
        // The lock is taken once for all responses that have been read.
        let mut state = self.state();
        while let Some(response) = next()? {
            // An unexpected response ends the connection, but the ones before it are valid.
            state.deliver(response, woken)?;
        }
        Ok(())
    }

    /// Returns the outcome of an operation, and releases its slot. While there is none, it will wake the caller.
    pub(crate) fn poll(&self, slot: usize, cx: &mut Context<'_>) -> Poll<Result<Reply, Error>> {
        self.state().poll(slot, cx)
    }

    /// The same, and whether no request has been added since the number of the next one was `number`.
    pub(crate) fn poll_last(
        &self,
        slot: usize,
        number: u32,
        cx: &mut Context<'_>,
    ) -> (Poll<Result<Reply, Error>>, bool) {
        let mut state = self.state();
        let is_last = state.next_opaque == number;
        (state.poll(slot, cx), is_last)
    }

    /// Releases the slot of an operation whose caller has gone, when its response has arrived.
    pub(crate) fn abandon(&self, slot: usize) {
        self.state().abandon(slot);
    }

    /// Returns the deadline of the oldest operation in flight.
    pub(crate) fn first_deadline(&self) -> Option<Instant> {
        self.state().first_deadline()
    }

    /// Fails all operations in flight and drops the bytes to write.
    pub(crate) fn fail_all(&self, error: &Error) {
        let mut woken = Vec::new();
        self.state().fail_all(error, &mut woken);
        woken.into_iter().for_each(Waker::wake);
    }
}

impl Admission<'_> {
    /// Adds a request that has one response, or a list of statistics.
    pub(crate) fn push(mut self, request: Request<'_>, deadline: Instant) -> Pushed {
        if request.opcode != opcode::GET {
            self.state.forget_gets();
        } else if let Some(slot) = self.state.share_get(request.key) {
            return Pushed { slot, alone: None };
        } else if !self.is_alone {
            self.state.remember_get(request.key);
        }
        let slot = self.state.push(request, deadline);
        self.end(slot)
    }

    /// Adds the requests that look up the entry of `item`, and store the item if there is none: one that
    /// creates an empty entry where the protocol has it, else a get and an add. Returns the slot of each.
    pub(crate) fn push_reserve(
        mut self,
        item: &WireItem<'_>,
        deadline: Instant,
    ) -> Pushed<(usize, Option<usize>)> {
        let (extras, key, value) = (item.extras(), item.key, item.value);
        let mut get = Request { opcode: opcode::GET, key, ..Request::default() };
        let add =
            Request { opcode: opcode::ADD, extras: &extras, key, value, ..Request::default() };
        let state = &mut self.state;
        state.forget_gets();
        let creates = state.codec() == Codec::Meta;
        if creates {
            get.extras = &extras[4..];
        }
        let get = state.push(get, deadline);
        let add = (!creates).then(|| state.push(add, deadline));
        self.end((get, add))
    }

    /// Adds quiet requests of one kind and the NOOP that ends them, and sets their opaques.
    pub(crate) fn push_batch<'a>(
        mut self,
        opcode: u8,
        requests: impl Iterator<Item = Request<'a>>,
        deadline: Instant,
    ) -> Pushed {
        let state = &mut self.state;
        if opcode != opcode::GETQ {
            state.forget_gets();
        }
        let mut quiet = 0;
        for mut request in requests {
            (request.opcode, request.opaque) = (opcode, state.next_opaque.wrapping_add(quiet));
            state.encode(&request);
            quiet += 1;
        }
        let opaque = state.next_opaque.wrapping_add(quiet);
        state.encode(&Request { opcode: opcode::NOOP, opaque, ..Request::default() });
        let slot = state.enter(Shape::Batch { opcode, quiet }, deadline);
        self.end(slot)
    }

    /// Ends an operation that has been encoded. Wakes the writing task if it is idle, unless the caller is alone.
    fn end<T>(mut self, slot: T) -> Pushed<T> {
        self.state.end_operation();
        let alone = self.is_alone.then_some(self.state.next_opaque);
        let writer = if self.is_alone { None } else { self.state.writer.take() };
        drop(self.state);
        if let Some(writer) = writer {
            writer.wake();
        }
        Pushed { slot, alone }
    }
}
