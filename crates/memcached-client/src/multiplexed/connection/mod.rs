//! One connection, and the task that opens, writes and reads it.
//!
//! The caller of an operation that is alone ([`Pushed::is_alone`](super::pipeline::Pushed)) writes and reads it by itself
//! ([`InFlight`]), and the task sleeps: the response need not wake the task first, which would then wake the caller.

mod driver;
mod in_flight;
mod io;
mod read_buffer;
mod shared;

pub(super) use self::{
    driver::serve,
    in_flight::InFlight,
    shared::{Connection, Server},
};
