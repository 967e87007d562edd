//! Requests in flight on one connection. Does no I/O.
//!
//! A caller adds a request ([`Pipeline::push`]) and awaits its [`Ticket`]; the connection's task takes
//! the bytes to write and delivers responses ([`Pipeline::deliver`]). If a ticket is dropped, its
//! slot stays until the response has arrived, and the response is discarded.

mod entry;
mod state;
mod writes;

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::BytesMut;

pub(crate) use self::{entry::Reply, state::UnexpectedResponse, writes::Writes};
use self::{
    entry::Shape,
    state::{Slot, State},
};
use super::{
    codec::Codec,
    frame::{Request, Response, opcode},
};
use crate::{error::Error, types::WireItem};

/// The most bytes that may wait to be written. Beyond that, operations are refused.
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;

/// The requests in flight on one connection. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pipeline(Arc<Mutex<State>>);

impl Pipeline {
    /// Creates a pipeline whose bytes are divided into `writes`.
    pub(crate) fn new(writes: Writes) -> Self {
        Self(Arc::new(Mutex::new(State::new(writes))))
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

    /// Returns whether `limit` operations or [`MAX_WAITING_BYTES`] are waiting already.
    pub(crate) fn is_full(&self, limit: usize) -> bool {
        let state = self.state();
        state.slots.len() >= limit || state.out.len() > MAX_WAITING_BYTES
    }

    /// Adds a request that has one response, or a list of statistics.
    pub(crate) fn push(&self, request: Request<'_>, deadline: Instant) -> Ticket {
        let mut state = self.state();
        if request.opcode == opcode::GET {
            if let Some(slot) = state.share_get(request.key) {
                return self.ticket(slot);
            }
            state.remember_get(request.key);
        } else {
            state.forget_gets();
        }
        let slot = state.push(request, deadline);
        Self::wake(state);
        self.ticket(slot)
    }

    /// Adds the requests that look up the entry of `item`, and store the item if there is none: one that
    /// creates an empty entry where the protocol has it, else a get and an add. Returns the ticket of each.
    pub(crate) fn push_reserve(
        &self,
        item: &WireItem<'_>,
        deadline: Instant,
    ) -> (Ticket, Option<Ticket>) {
        let (extras, key, value) = (item.extras(), item.key, item.value);
        let mut get = Request { opcode: opcode::GET, key, ..Request::default() };
        let add =
            Request { opcode: opcode::ADD, extras: &extras, key, value, ..Request::default() };
        let mut state = self.state();
        state.forget_gets();
        let creates = state.codec() == Codec::Meta;
        if creates {
            get.extras = &extras[4..];
        }
        let get = state.push(get, deadline);
        let add = (!creates).then(|| state.push(add, deadline));
        Self::wake(state);
        (self.ticket(get), add.map(|add| self.ticket(add)))
    }

    /// Adds quiet requests of one kind and the NOOP that ends them, and sets their opaques.
    pub(crate) fn push_batch<'a>(
        &self,
        opcode: u8,
        requests: impl Iterator<Item = Request<'a>>,
        deadline: Instant,
    ) -> Ticket {
        let mut state = self.state();
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
        Self::wake(state);
        self.ticket(slot)
    }

    /// Ends an operation that has been encoded, and wakes the writing task, if it is idle.
    fn wake(mut state: MutexGuard<'_, State>) {
        state.end_operation();
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    fn ticket(&self, slot: usize) -> Ticket {
        Ticket { pipeline: self.clone(), slot: Some(slot) }
    }

    /// Swaps the bytes to write with the empty buffer `spare`, and moves the writes into `divided`. If there are no
    /// bytes, `writer` is woken at the next push.
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
        Self::wake(self.state());
    }

    /// Delivers responses until `next` has no more, then wakes their callers. `woken` is scratch
    /// space.
    pub(crate) fn deliver<E: From<UnexpectedResponse>>(
        &self,
        mut next: impl FnMut() -> Result<Option<Response>, E>,
        woken: &mut Vec<Waker>,
    ) -> Result<(), E> {
        // The lock is taken once for all responses that have been read.
        let mut state = self.state();
        let outcome = loop {
            match next() {
                Ok(Some(response)) => {
                    // An unexpected response ends the connection, but the ones before it are valid.
                    if let Err(unexpected) = state.deliver(response, woken) {
                        break Err(unexpected.into());
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // Woken callers take the lock at once, so it is released first.
        drop(state);
        woken.drain(..).for_each(Waker::wake);
        outcome
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

/// Awaits the responses of one operation. Dropping it does not cancel the operation.
#[derive(Debug)]
pub(crate) struct Ticket {
    pipeline: Pipeline,
    /// `None` after the outcome has been returned.
    slot: Option<usize>,
}

impl Future for Ticket {
    type Output = Result<Reply, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(slot) = self.slot else {
            return Poll::Pending;
        };
        let mut state = self.pipeline.state();
        if let Slot::Waiting { waker, .. } = &mut state.slots[slot] {
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        let taken = state.slots.remove(slot);
        drop(state);
        self.slot = None;
        match taken {
            Slot::Ready(outcome) => Poll::Ready(outcome),
            Slot::Waiting { .. } | Slot::Abandoned { .. } => Poll::Pending,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.pipeline.state().abandon(slot);
        }
    }
}
