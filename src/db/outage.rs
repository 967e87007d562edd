//! One line in the log when the database becomes unavailable, and one when it answers again.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use super::error::DbError;

/// Whether the database is unavailable. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(super) struct OutageLog(Arc<Outage>);

#[derive(Debug, Default)]
struct Outage {
    /// Whether there is an outage: a success without one takes no lock.
    is_under_way: AtomicBool,
    last_failure: Mutex<Option<Instant>>,
}

impl OutageLog {
    /// Logs the beginning or the end of an outage, if the outcome of a query that began at `start` is one.
    pub(super) fn observe<T>(&self, start: Instant, outcome: &Result<T, DbError>) {
        let outage = &*self.0;
        let is_out = matches!(outcome, Err(DbError::Unavailable(_)));
        if !is_out && !outage.is_under_way.load(Ordering::Relaxed) {
            return;
        }
        let mut last_failure = outage.last_failure.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Err(error @ DbError::Unavailable(_)) => {
                if last_failure.replace(Instant::now()).is_none() {
                    log::error!("{error}; requests that need it get 503 until it answers");
                }
                outage.is_under_way.store(true, Ordering::Relaxed);
            }
            // An error of a query is an answer, too. A query that began before the last failure may have
            // been answered before it.
            _ => {
                if last_failure.is_some_and(|at| start > at) {
                    *last_failure = None;
                    outage.is_under_way.store(false, Ordering::Relaxed);
                    log::info!("the database answers again");
                }
            }
        }
    }
}
