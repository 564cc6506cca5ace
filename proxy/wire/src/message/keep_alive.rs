//! KEEP_ALIVE (10).

use super::{Body, Kind};
use crate::{Reader, WireError, Writer};

/// The proof of life.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct KeepAlive {
    /// The request's number.
    pub seq_num: u32,
}

impl Body for KeepAlive {
    const KIND: Kind = Kind::KEEP_ALIVE;

    fn read(reader: &mut Reader<'_>, _more: bool) -> Result<Self, WireError> {
        Ok(Self { seq_num: reader.u32()? })
    }

    fn write(&self, writer: &mut Writer) -> Result<(), WireError> {
        writer.u32(self.seq_num);
        Ok(())
    }
}
