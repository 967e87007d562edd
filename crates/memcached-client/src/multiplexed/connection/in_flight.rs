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
    io::Io,
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
            connection.use_io(Io::write_alone);
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
        let polled = self.connection.use_io(|io, pipeline| {
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
            let is_alone = outcome.is_pending() && is_last;
            if !is_alone {
                io.end_alone(pipeline);
            }
            (outcome, is_alone)
        });
        let (outcome, is_alone) =
            polled.unwrap_or_else(|| (self.connection.pipeline.poll(slot, cx), false));
        if !is_alone {
            self.alone = None;
        }
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
            self.connection.use_io(Io::end_alone);
        }
    }
}
