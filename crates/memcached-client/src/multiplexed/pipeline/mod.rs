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
    /// Whether no other operation was in flight, nor when the ones before were added ([`ALONE_AFTER`]), and the
    /// writing task is idle. Then the task has not been woken: the caller writes and reads.
    pub(crate) is_alone: bool,
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

    /// The same, and whether the caller is to read: while it is alone, has no outcome, and is polled by one task. The
    /// socket may have woken another task in vain, after the read before this poll.
    pub(crate) fn poll_alone(
        &self,
        slot: usize,
        cx: &mut Context<'_>,
    ) -> (Poll<Result<Reply, Error>>, bool) {
        let mut state = self.state();
        if state.has_other_waker(slot, cx.waker()) {
            state.reader = None;
        }
        let outcome = state.poll(slot, cx);
        let is_alone = outcome.is_pending() && state.reader == Some(slot);
        (outcome, is_alone)
    }

    /// Sets the waker of the connection's task.
    pub(crate) fn set_task(&self, task: &Waker) {
        self.state().task = Some(task.clone());
    }

    /// Wakes the reader of the socket: the caller that is alone, or the connection's task.
    pub(crate) fn wake_reader(&self) {
        let reader = self.state().take_reader();
        if let Some(reader) = reader {
            reader.wake();
        }
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
            return Pushed { slot, is_alone: false };
        } else if !self.is_alone {
            self.state.remember_get(request.key);
        }
        let slot = self.state.push(request, deadline);
        self.end(slot, slot)
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
        self.end(get, (get, add))
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
        self.end(slot, slot)
    }

    /// Ends an operation that has been encoded. A caller that is alone is to read, for the slot `first`; else the task is,
    /// which is woken if it is idle.
    fn end<T>(mut self, first: usize, slot: T) -> Pushed<T> {
        let is_alone = self.is_alone;
        self.state.end_operation();
        self.state.reader = is_alone.then_some(first);
        let writer = if is_alone { None } else { self.state.writer.take() };
        drop(self);
        if let Some(writer) = writer {
            writer.wake();
        }
        Pushed { slot, is_alone }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
        time::Duration,
    };

    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A pipeline on which the next operation is alone, the task of its connection, and a task that calls it.
    struct Fixture {
        pipeline: Pipeline,
        task: Arc<Task>,
        caller: Arc<Task>,
    }

    impl Fixture {
        fn new() -> Self {
            let (pipeline, task) = (Pipeline::default(), Arc::<Task>::default());
            let waker = Waker::from(Arc::clone(&task));
            pipeline.set_task(&waker);
            pipeline.wake_on_push(&waker);
            for _ in 0..ALONE_AFTER {
                pipeline.admit(1);
            }
            Self { pipeline, task, caller: Arc::default() }
        }

        fn push(&self) -> Pushed {
            let request = Request { opcode: opcode::GET, key: b"k", ..Request::default() };
            let deadline = Instant::now() + Duration::from_secs(60);
            self.pipeline.admit(10).unwrap().push(request, deadline)
        }

        fn push_alone(&self) -> usize {
            let pushed = self.push();
            assert!(pushed.is_alone);
            pushed.slot
        }

        fn poll(&self, slot: usize) {
            let waker = Waker::from(Arc::clone(&self.caller));
            let (outcome, _) = self.pipeline.poll_alone(slot, &mut Context::from_waker(&waker));
            assert!(outcome.is_pending());
        }

        /// Returns how often the task and the caller were woken.
        fn woken(&self) -> [usize; 2] {
            [&self.task, &self.caller].map(|task| task.0.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn the_socket_wakes_a_caller_that_is_alone() {
        let fixture = Fixture::new();
        fixture.poll(fixture.push_alone());
        fixture.pipeline.wake_reader();
        assert_eq!(fixture.woken(), [0, 1]);
    }

    #[test]
    fn the_socket_wakes_the_task_until_the_caller_has_polled() {
        let fixture = Fixture::new();
        let slot = fixture.push_alone();
        fixture.pipeline.wake_reader();
        assert_eq!(fixture.woken(), [1, 0], "before the first poll");
        fixture.poll(slot);
        fixture.pipeline.wake_reader();
        fixture.pipeline.wake_reader();
        assert_eq!(fixture.woken(), [2, 1], "woken again before the next poll");
    }

    #[test]
    fn the_socket_wakes_the_task_after_another_operation_was_added() {
        let fixture = Fixture::new();
        fixture.poll(fixture.push_alone());
        fixture.push();
        assert_eq!(fixture.woken(), [1, 0], "the task writes the other operation");
        fixture.pipeline.wake_reader();
        assert_eq!(fixture.woken(), [2, 0]);
    }

    #[test]
    fn the_socket_wakes_the_task_after_another_task_has_polled_the_caller() {
        let fixture = Fixture::new();
        let slot = fixture.push_alone();
        fixture.poll(slot);
        let cx = &mut Context::from_waker(Waker::noop());
        let (_, is_alone) = fixture.pipeline.poll_alone(slot, cx);
        assert!(!is_alone, "the first task may have been woken in between");
        fixture.pipeline.wake_reader();
        assert_eq!(fixture.woken(), [1, 0]);
    }

    #[test]
    fn the_socket_wakes_the_task_after_the_caller_has_gone() {
        let fixture = Fixture::new();
        let slot = fixture.push_alone();
        fixture.poll(slot);
        fixture.pipeline.abandon(slot);
        fixture.pipeline.wake_reader();
        assert_eq!(fixture.woken(), [1, 0]);
    }
}
