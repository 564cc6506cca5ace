//! Packet captures.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which packets of a pod are to be captured, and when it is enough. The first bound that is met ends
/// the capture.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaptureRequest {
    /// Which packets, in a part of tcpdump's language: `tcp port 80 and not host 10.0.0.7`. Empty: all.
    pub filter: String,
    /// Packets of loopback too, where the proxy's side towards the application can be seen.
    pub loopback: bool,
    /// Bytes of each packet at most, 64 to 65535. Default: all.
    pub snap_length: Option<u32>,
    /// Packets at most. Default: as many as come.
    pub packets: Option<u64>,
    /// Bytes of the file at most, 4096 to 1 GiB. Default: 64 MiB.
    pub bytes: Option<u64>,
    /// Seconds at most, 1 to 3600. Default: 60.
    pub seconds: Option<u32>,
}

/// How a capture is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptureState {
    /// Packets come.
    Running,
    /// It ended by one of its bounds, or was stopped.
    Ended,
    /// It broke off.
    Failed,
}

/// One capture.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Capture {
    /// Its name.
    pub id: String,
    /// Whose packets.
    pub workload: String,
    /// Which packets.
    pub filter: String,
    /// How it is.
    pub state: CaptureState,
    /// Why it broke off, if it did.
    pub error: Option<String>,
    /// When it began.
    pub started: u64,
    /// When it was over.
    pub ended: Option<u64>,
    /// Packets so far.
    pub packets: u64,
    /// Bytes so far.
    pub bytes: u64,
    /// Packets that came too fast and are missing; known at the end.
    pub lost: u64,
    /// The bridge keeps it, for gRPC.
    pub stored: bool,
}

/// Header of a capture's answer: its name, to stop it by.
pub const CAPTURE_ID: &str = "outrider-capture";
/// Content type of a capture: the file is pcapng.
pub const CAPTURE_TYPE: &str = "application/vnd.tcpdump.pcap";
