//! The turn of a connection: whether the client or the app is to act. The stream of a connection
//! ([`super::connection`]) and the middleware of its requests ([`super::turns`]) tell each other through
//! it.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::Waker,
    time::Instant,
};

use super::framing::BodyKind;

/// Where a connection is between a request and its answer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Turn {
    /// The client has yet to send its request, or Actix's parser to hand it on.
    #[default]
    Client,
    /// The app has the request.
    Taken(BodyKind),
    /// The last byte of the answer was handed over for writing.
    Answered(BodyKind),
}

/// The turn of one connection.
#[derive(Debug)]
pub(crate) struct Exchange {
    turn: Cell<Turn>,
    /// Since when the client has been keeping us waiting; `None` while the app is at work.
    waiting_since: Cell<Option<Instant>>,
    /// Whether the client has sent more than the request that is being answered.
    has_more: Cell<bool>,
    /// Whether the connection has to make room for another one.
    is_evicted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Exchange {
    pub(super) fn new() -> Self {
        Self {
            turn: Cell::default(),
            waiting_since: Cell::new(Some(Instant::now())),
            has_more: Cell::default(),
            is_evicted: Cell::default(),
            waker: RefCell::default(),
        }
    }

    pub(super) fn turn(&self) -> Turn {
        self.turn.get()
    }

    pub(super) fn set_turn(&self, turn: Turn) {
        self.turn.set(turn);
    }

    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.waiting_since.get()
    }

    pub(super) fn set_waiting_since(&self, since: Option<Instant>) {
        self.waiting_since.set(since);
    }

    pub(super) fn set_has_more(&self, has_more: bool) {
        self.has_more.set(has_more);
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.is_evicted.get()
    }

    /// Ends the connection.
    pub(super) fn evict(&self) {
        self.is_evicted.set(true);
        self.wake();
    }

    /// Remembers how to wake the task of the connection.
    pub(super) fn register(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    /// Makes the task of the connection look at its stream again.
    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Reports that the app has the request.
    pub(super) fn take(self: Rc<Self>, body: BodyKind) -> Answering {
        self.turn.set(Turn::Taken(body));
        if body == BodyKind::Absent {
            self.waiting_since.set(None);
        } else {
            // The stream holds the body back until it knows how long it is.
            self.wake();
        }
        Answering(self, body)
    }
}

/// A request that is being answered, until this is dropped.
#[derive(Debug)]
pub(super) struct Answering(Rc<Exchange>, BodyKind);

impl Drop for Answering {
    fn drop(&mut self) {
        let Self(exchange, body) = self;
        exchange.turn.set(Turn::Answered(*body));
        exchange.waiting_since.set(Some(Instant::now()));
        // The stream reads the next request, or the rest of the body within its deadline.
        if *body != BodyKind::Absent || exchange.has_more.get() {
            exchange.wake();
        }
    }
}
