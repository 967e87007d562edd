//! How entries stay fresh.

pub(crate) mod flight;
pub(crate) mod invalidation;
pub(crate) mod lease;
