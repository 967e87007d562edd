//! An operation in flight, as its caller sees it.
//!
//! The caller of the only operation in flight reads from the socket: its waker replaces that of the
//! connection's task there. It gives the socket back when it has its outcome, is dropped, or finds that another
//! operation has been added. That one has woken the task, which replaces the waker, too. So no operation
//! of another caller depends on one that is not polled.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    super::pipeline::{Pushed, Reply},
    shared::Connection,
};
use crate::error::Error;

/// Awaits the responses of one operation. Dropping it does not cancel the operation.
#[derive(Debug)]
pub(in super::super) struct InFlight {
    connection: Arc<Connection>,
    /// `None` after the outcome has been returned.
    slot: Option<usize>,
    /// [`Pushed::alone`], until the caller has given the socket back.
    alone: Option<u32>,
}

impl InFlight {
    /// Awaits an operation that has been added. Writes it, if its caller is alone.
    pub(in super::super) fn start(connection: Arc<Connection>, pushed: Pushed) -> Self {
        if pushed.alone.is_some() {
            let mut io = connection.io();
            if let Some(io) = &mut *io {
                io.write_alone(&connection.pipeline);
            }
            connection.release(io);
        }
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
        let connection = &self.connection;
        let pipeline = &connection.pipeline;
        let mut guard = connection.io();
        let Some(io) = &mut *guard else {
            drop(guard);
            return pipeline.poll(slot, cx);
        };
        let (outcome, is_last) = loop {
            let has_read = io.read_alone(pipeline, cx);
            let (outcome, is_last) = pipeline.poll_last(slot, number, cx);
            if outcome.is_ready() || !has_read {
                break (outcome, is_last);
            }
        };
        if is_last {
            // Otherwise the same task may wait for another operation, and its response has been read.
            io.spare(cx.waker());
        }
        if outcome.is_ready() || !is_last {
            self.alone = None;
            io.end_alone(pipeline);
        }
        connection.release(guard);
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
            let mut io = self.connection.io();
            if let Some(io) = &mut *io {
                io.end_alone(&self.connection.pipeline);
            }
            self.connection.release(io);
        }
    }
}
