//! The kernel's table of flows: taking the proxy's verdicts back.

use std::{io, time::Duration};

use parking_lot::Mutex;

use crate::{
    CaptureError,
    netlink::{Asker, attribute},
};

/// Makes the kernel forget flows by their mark. Needs `NET_ADMIN`.
#[derive(Debug)]
pub struct Conntrack {
    /// Requests are answered one at a time.
    asker: Mutex<Asker>,
}

impl Conntrack {
    /// Opens the way to the kernel.
    ///
    /// # Errors
    /// The kernel has no such interface, or the process no descriptor left. A want of the capability, which
    /// counts now, is told by [`Conntrack::forget`].
    pub fn open() -> Result<Self, CaptureError> {
        let asker = Asker::open(libc::NETLINK_NETFILTER, PATIENCE).map_err(failed("open"))?;
        Ok(Self { asker: Mutex::new(asker) })
    }

    /// Deletes every flow of both families whose mark has all the bits of `mark`; other bits don't matter.
    /// Each flow's next packet is a new flow's first. Without bits this would be every flow: refused.
    /// Blocks while the kernel walks its table, a second at most.
    ///
    /// # Errors
    /// There is no capability, the kernel refuses, or it does not answer.
    pub fn forget(&self, mark: u32) -> Result<(), CaptureError> {
        if mark == 0 {
            return Err(CaptureError::Setting("flows are forgotten by a mark that is not 0"));
        }
        let asked = self.asker.lock().ask(DELETE, 0, &marked(mark));
        asked.map_err(|source| {
            CaptureError::net_admin("flow table", source, failed("forget marked flows"))
        })
    }
}

fn failed(step: &'static str) -> impl Fn(io::Error) -> CaptureError {
    move |source| CaptureError::Conntrack { step, source }
}

/// "Delete" without saying which flow is "delete all", and the mark is a filter for it. The family
/// counts from version 1 of the message on; with version 0 it is both.
fn marked(mark: u32) -> Vec<u8> {
    // Family, version and resource.
    let mut body = vec![0; 4];
    for kind in [CTA_MARK, CTA_MARK_MASK] {
        attribute(&mut body, kind, &mark.to_be_bytes());
    }
    body
}

/// How long the kernel may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Subsystem 1 (ctnetlink), message 2 (`IPCTNL_MSG_CT_DELETE`), of `linux/netfilter/nfnetlink_conntrack.h`.
const DELETE: u16 = 1 << 8 | 2;
const CTA_MARK: u16 = 8;
const CTA_MARK_MASK: u16 = 21;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink;

    #[test]
    fn asks_for_all_flows_with_the_mark() {
        let want = [
            &36_u32.to_ne_bytes()[..],
            &0x102_u16.to_ne_bytes(),
            &5_u16.to_ne_bytes(),
            &[0; 12],
            &8_u16.to_ne_bytes(),
            &8_u16.to_ne_bytes(),
            &[1, 0, 0, 0],
            &8_u16.to_ne_bytes(),
            &21_u16.to_ne_bytes(),
            &[1, 0, 0, 0],
        ];
        let flags = netlink::REQUEST | netlink::ACKNOWLEDGE;
        let request = netlink::message(DELETE, flags, 0, &marked(0x0100_0000));
        assert_eq!(request, want.concat());
    }
}
