//! `ctrl_outrider_capture`, `ctrl_outrider_capture_stop` and CAPTURE (67), ours.

use serde::{Deserialize, Serialize};

use super::{CAPTURE, Instance, json};
use crate::{Body, Kind, Reader, WireError, Writer, error::within, request::fields::Fields};

/// Packets of the pod are to be written, as [`crate::pcapng`] has it, into the pipe whose descriptor
/// comes with the datagram; answered by [`CaptureReply`]. The capture ends at the first of its bounds,
/// by [`CaptureStop`], or when nobody reads the pipe any more.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct CaptureOrder {
    /// Which capture: drawn by the bridge.
    pub id: Instance,
    /// Which packets, as [`outrider_model::PacketFilter`] reads it.
    pub filter: String,
    /// Whether packets of loopback are wanted too.
    pub loopback: bool,
    /// Bytes of each packet at most; 0: all.
    pub snap: u32,
    /// Packets at most; 0: as many as come.
    pub packets: u64,
    /// Bytes that may be written.
    pub bytes: u64,
    /// Seconds.
    pub seconds: u32,
}

impl CaptureOrder {
    pub(crate) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        Ok(Self {
            id: id(fields)?,
            filter: fields.text("filter").unwrap_or_default().to_owned(),
            loopback: fields.is_true("loopback"),
            snap: fields.u32("snap"),
            packets: fields.u64("packets").unwrap_or_default(),
            bytes: fields.u64("bytes").unwrap_or_default(),
            seconds: fields.u32("seconds"),
        })
    }
}

/// A capture is to end: what was seen so far is still written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct CaptureStop {
    /// Which.
    pub id: Instance,
}

impl CaptureStop {
    pub(crate) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        Ok(Self { id: id(fields)? })
    }
}

fn id(fields: Fields<'_>) -> Result<Instance, WireError> {
    Instance::parse(fields.text("id")?).ok_or(WireError::BadValue("id"))
}

/// What became of a [`CaptureOrder`]. JSON text on the wire.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct CaptureReply {
    /// Which.
    pub id: Instance,
    /// Why packets are not captured; empty: they are, from now on.
    pub error: String,
}

/// Longest error of a [`CaptureReply`], in bytes.
const MAX_ERROR: usize = 512;

impl CaptureReply {
    /// A reply; an error longer than it may be is cut.
    #[must_use]
    pub fn new(id: Instance, mut error: String) -> Self {
        error.truncate(error.floor_char_boundary(MAX_ERROR));
        Self { id, error }
    }
}

impl Body for CaptureReply {
    const KIND: Kind = CAPTURE;

    fn read(reader: &mut Reader<'_>, _more: bool) -> Result<Self, WireError> {
        let reply: Self = json::read(reader)?;
        within("error bytes", reply.error.len(), MAX_ERROR)?;
        Ok(reply)
    }

    fn write(&self, writer: &mut Writer) -> Result<(), WireError> {
        within("error bytes", self.error.len(), MAX_ERROR)?;
        json::write(self, writer)
    }
}
