//! Outrider's own extensions. The node agent and the data path they were added to ignore kinds and
//! keys they do not know, so that either end may be theirs.
//!
//! | What | From | Form |
//! |---|---|---|
//! | request `ctrl_outrider_hello` | bridge | [`Hello`]; answered by [`Status`] |
//! | request `ctrl_outrider_ack` | bridge | [`Ack`] of a [`Batch`] |
//! | request `ctrl_outrider_capture` | bridge | [`CaptureOrder`], a pipe with it; answered by [`CaptureReply`] |
//! | request `ctrl_outrider_capture_stop` | bridge | [`CaptureStop`] |
//! | request `ctrl_outrider_stop` | bridge | [`Stop`], to who says [`Status::stops`] |
//! | kind 64 | proxy | [`Batch`] |
//! | kind 65 | proxy | [`Status`] |
//! | kind 66 | proxy | [`Evidence`] |
//! | kind 67 | proxy | [`CaptureReply`] |
//! | member `rules6` of `ctrl_cfg_policy` | bridge | rules between IPv6 addresses; `::` is the external marker |
//! | member `grace` of `ctrl_cfg_policy` | bridge | false: an unknown peer is not let through for a while |
//! | member `outrider_pod` of `ctrl_add_mac` | bridge | true: the MAC stands for the proxy's pod, whatever its interfaces say |
//! | member `subnet_addr6` of the three subnet lists | bridge | IPv6 subnets |

mod batch;
mod capture;
mod evidence;
mod hello;
mod json;
mod status;
#[cfg(test)]
mod tests;

pub use batch::Batch;
pub use capture::{CaptureOrder, CaptureReply, CaptureStop};
pub use evidence::{Evidence, SampleFlow};
pub use hello::{Ack, Hello, Stop};
pub use status::{FlowTotals, Refusal, Status};

use std::fmt;

use crate::Kind;

/// [`Batch`].
pub const BATCH: Kind = Kind(64);
/// [`Status`].
pub const STATUS: Kind = Kind(65);
/// [`Evidence`].
pub const EVIDENCE: Kind = Kind(66);
/// [`CaptureReply`].
pub const CAPTURE: Kind = Kind(67);

/// A run of a proxy: random at its start, so that numbers of an earlier run are told apart. Sixteen
/// hexadecimal digits in JSON.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Instance(pub u64);

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Instance {
    /// Reads sixteen digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u64::from_str_radix(text, 16)
            .ok()
            .filter(|_| digits)
            .map(Self)
    }
}

impl serde::Serialize for Instance {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Instance {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not sixteen digits"))
    }
}
