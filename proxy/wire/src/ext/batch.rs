//! BATCH (64), ours.

use super::{BATCH, Instance};
use crate::{Body, Kind, Reader, WireError, Writer};

/// Announces that the next `datagrams` notifications of this proxy ([`crate::Connections`],
/// [`crate::ThreatLog`], [`crate::ext::Evidence`]) are one batch. It is sent again, equal, until
/// [`crate::ext::Ack`] says that it is stored.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Batch {
    /// Which run of the proxy.
    pub instance: Instance,
    /// Number of the batch in that run.
    pub seq: u64,
    /// How many notifications belong to it.
    pub datagrams: u16,
}

impl Body for Batch {
    const KIND: Kind = BATCH;

    fn read(reader: &mut Reader<'_>, _more: bool) -> Result<Self, WireError> {
        let batch = Self {
            instance: Instance(reader.u64()?),
            seq: reader.u64()?,
            datagrams: reader.u16()?,
        };
        reader.skip(6)?;
        Ok(batch)
    }

    fn write(&self, writer: &mut Writer) -> Result<(), WireError> {
        writer.u64(self.instance.0);
        writer.u64(self.seq);
        writer.u16(self.datagrams);
        writer.zeros(6);
        Ok(())
    }
}
