//! Sessions and what is kept in them.

pub(crate) mod flash;
pub(crate) mod key_rotation;
pub(crate) mod store;
