//! An operation in flight, as its caller sees it.
//!
//! A caller whose operation is the only one in flight reads from the socket: its waker replaces that of the
//! connection's task there. It gives the socket back when it has its outcome, is dropped, or finds that another
//! operation has been added. That one has woken the task, which replaces the waker, too. So no operation
//! depends on a caller that is not polled.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use super::{
    super::pipeline::{Pushed, Reply},
    Connection,
};
use crate::error::Error;

/// Awaits the responses of one operation. Dropping it does not cancel the operation.
#[derive(Debug)]
pub(in super::super) struct InFlight {
    connection: Arc<Connection>,
    /// `None` after the outcome has been returned.
    slot: Option<usize>,
    /// Set while no other operation has been added since this one, and none was in flight then: see
    /// [`Pushed::alone`]. The caller reads from the socket by itself.
    alone: Option<u32>,
}

impl InFlight {
    pub(in super::super) fn new(connection: Arc<Connection>, pushed: Pushed) -> Self {
        Self { connection, slot: Some(pushed.slot), alone: pushed.alone }
    }

    /// Returns the number of the connection.
    pub(in super::super) fn connection(&self) -> u64 {
        self.connection.number
    }

    /// Reads from the socket until the outcome is there, or nothing more to read.
    fn poll_alone(
        &mut self,
        slot: usize,
        number: u32,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Reply, Error>> {
        let pipeline = &self.connection.pipeline;
        let mut guard = self.connection.io();
        let Some(io) = guard.as_mut() else {
            drop(guard);
            return pipeline.poll(slot, cx);
        };
        let (outcome, is_alone) = loop {
            let has_read = io.read_alone(pipeline, cx);
            let (outcome, is_last) = pipeline.poll_last(slot, number, cx);
            if outcome.is_ready() || !has_read {
                let is_alone = outcome.is_pending() && is_last;
                break (outcome, is_alone);
            }
        };
        if !is_alone {
            // If another operation has been added, the task reads for both: this caller may not be polled again soon.
            self.alone = None;
            io.end_alone();
        }
        let woken = io.take_woken();
        drop(guard);
        woken.into_iter().for_each(Waker::wake);
        outcome
    }
}

impl Future for InFlight {
    type Output = Result<Reply, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(slot) = self.slot else {
            return Poll::Pending;
        };
        let outcome = match self.alone {
            Some(number) => self.poll_alone(slot, number, cx),
            None => self.connection.pipeline.poll(slot, cx),
        };
        if outcome.is_ready() {
            self.slot = None;
        }
        outcome
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let Some(slot) = self.slot else { return };
        self.connection.pipeline.abandon(slot);
        if self.alone.is_some() {
            let mut guard = self.connection.io();
            let woken = guard.as_mut().map(|io| {
                io.end_alone();
                io.take_woken()
            });
            drop(guard);
            woken.into_iter().flatten().for_each(Waker::wake);
        }
    }
}
