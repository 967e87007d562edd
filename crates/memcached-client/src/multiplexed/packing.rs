//! Compresses values on their way to a server. It needs the flags that the binary and the meta protocol have.

use std::borrow::Cow;

use super::{Link, frame::Response};
#[cfg(feature = "compression")]
use crate::compression::COMPRESSED;
use crate::{
    error::Error,
    types::{Cas, Value, WireItem},
};

impl Link {
    /// Returns the value of a response, unpacked.
    #[cfg_attr(
        not(feature = "compression"),
        expect(clippy::unused_self, reason = "unpacks nothing")
    )]
    pub(super) fn value_of(&self, response: Response, connection: u64) -> Value {
        let cas = Cas::new(response.cas, connection);
        let value = Value { data: response.value, flags: response.flags, cas };
        #[cfg(feature = "compression")]
        let value = self.server.config.compression.unpack(value);
        value
    }

    /// Returns the bytes and flags of an item as they are stored.
    #[cfg(feature = "compression")]
    pub(super) fn packed<'a>(&self, item: &WireItem<'a>) -> Result<Packed<'a>, Error> {
        let config = &self.server.config;
        let packed = config.compression.pack(item.value);
        let is_packed = if packed.is_some() { COMPRESSED } else { 0 };
        let value = packed.map_or(Cow::Borrowed(item.value), Cow::Owned);
        // The client leaves the check to the transport if the value may become shorter.
        config.check_size(item.key, value.len())?;
        Ok((value, item.flags | is_packed))
    }

    #[cfg(not(feature = "compression"))]
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "compression may fail")]
    pub(super) fn packed<'a>(&self, item: &WireItem<'a>) -> Result<Packed<'a>, Error> {
        Ok((item.value.into(), item.flags))
    }
}

/// The bytes and flags of an item.
pub(super) type Packed<'a> = (Cow<'a, [u8]>, u32);
