//! What an engine may hold.

/// Caps of an [`Engine`](crate::Engine). What is over a cap is dropped and counted, and the flow it
/// belonged to says so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Flows that are open at once; beyond it, the one that would time out first goes.
    pub flows: usize,
    /// Bytes that came too early, of one side of one flow.
    pub held_by_side: usize,
    /// Bytes that came too early, of all flows.
    pub held: usize,
    /// Packets of which not all fragments are here.
    pub fragmented: usize,
    /// Bytes of their fragments.
    pub fragment_bytes: usize,
    /// Servers that are remembered, to know later which side of a flow is the server.
    pub servers: usize,
}

impl Default for Limits {
    /// For the tap of one pod.
    fn default() -> Self {
        Self {
            flows: 16_384,
            held_by_side: 256 << 10,
            held: 8 << 20,
            fragmented: 512,
            fragment_bytes: 2 << 20,
            servers: 4_096,
        }
    }
}

impl Limits {
    /// For a capture file, on a machine of a person's own.
    #[must_use]
    pub fn for_files() -> Self {
        Self {
            flows: 131_072,
            held_by_side: 1 << 20,
            held: 64 << 20,
            fragmented: 4_096,
            fragment_bytes: 16 << 20,
            servers: 65_536,
        }
    }
}
