//! The backends of this crate. Each is one file, registered here and by one line in `backends!`.

#[cfg(feature = "testing")]
pub(crate) mod failing;
#[cfg(feature = "memcached")]
pub(crate) mod memcached;
pub(crate) mod memory;
pub(crate) mod null;
