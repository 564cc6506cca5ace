//! Frames that the kernel itself takes from one interface to the other: an ingress queueing
//! discipline on each, with one filter that redirects everything.

use std::{io, time::Duration};

use crate::netlink::{Asker, attribute};

/// The redirection of two interfaces to each other. Gone when dropped, not when the process dies.
#[derive(Debug)]
pub(super) struct Redirect {
    asker: Asker,
    interfaces: [u32; 2],
    /// Whose queueing discipline is ours to remove.
    own: [bool; 2],
    on: bool,
}

impl Redirect {
    /// Talks to the kernel, and removes what a proxy that died has left on the interfaces.
    pub(super) fn open(interfaces: [u32; 2]) -> io::Result<Self> {
        let asker = Asker::open(libc::NETLINK_ROUTE, PATIENCE)?;
        let mut redirect = Self { asker, interfaces, own: [false; 2], on: false };
        for side in [0, 1] {
            redirect.own[side] = redirect.remove_filter(side)?;
            redirect.remove_own(side)?;
        }
        Ok(redirect)
    }

    /// Whether the kernel forwards.
    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    /// Lets the kernel forward both ways, or neither.
    pub(super) fn turn_on(&mut self) -> io::Result<()> {
        if self.on {
            return Ok(());
        }
        self.on = true;
        let added = self.add(0).and_then(|()| self.add(1));
        if added.is_err() {
            self.turn_off()?;
        }
        added
    }

    /// Ends it. An interface that is gone has taken its part along.
    pub(super) fn turn_off(&mut self) -> io::Result<()> {
        if !self.on {
            return Ok(());
        }
        let mut removed = Ok(());
        for side in [0, 1] {
            let one = self.remove_filter(side).and_then(|_| self.remove_own(side));
            removed = removed.and(one);
        }
        self.on = removed.is_err();
        removed
    }

    fn add(&mut self, side: usize) -> io::Result<()> {
        let [from, to] = if side == 0 { [0, 1] } else { [1, 0] }.map(|side| self.interfaces[side]);
        match self.asker.ask(libc::RTM_NEWQDISC, NEW, &discipline(from)) {
            Ok(()) => self.own[side] = true,
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            other => return other,
        }
        self.asker.ask(libc::RTM_NEWTFILTER, NEW, &filter(from, to))
    }

    /// Says whether there was a filter of ours.
    fn remove_filter(&mut self, side: usize) -> io::Result<bool> {
        let filter = traffic(self.interfaces[side], 0, FILTERS, PREFERENCE);
        found(self.asker.ask(libc::RTM_DELTFILTER, 0, &filter))
    }

    fn remove_own(&mut self, side: usize) -> io::Result<()> {
        if std::mem::take(&mut self.own[side]) {
            let discipline = discipline(self.interfaces[side]);
            found(self.asker.ask(libc::RTM_DELQDISC, 0, &discipline))?;
        }
        Ok(())
    }
}

impl Drop for Redirect {
    fn drop(&mut self) {
        if let Err(error) = self.turn_off() {
            tracing::warn!(%error, "the kernel still forwards between the interfaces of a pair");
        }
    }
}

/// Whether what was to be removed was there.
fn found(removed: io::Result<()>) -> io::Result<bool> {
    match removed {
        Ok(()) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT | libc::EINVAL | libc::ENODEV) => Ok(false),
            _ => Err(error),
        },
    }
}

/// An ingress discipline, which filters can hang on.
fn discipline(interface: u32) -> Vec<u8> {
    let mut body = traffic(interface, DISCIPLINE, INGRESS, 0);
    attribute(&mut body, libc::TCA_KIND, b"ingress\0");
    body
}

/// Everything that comes in by `from` leaves by `to`, stolen from the stack of this namespace.
fn filter(from: u32, to: u32) -> Vec<u8> {
    let mut mirred = Vec::new();
    for word in [0, 0, STOLEN, 0, 0, EGRESS_REDIRECT, to] {
        mirred.extend(word.to_ne_bytes());
    }
    let parameters = nested(MIRRED_PARAMETERS, &mirred);
    let mut action = Vec::new();
    attribute(&mut action, ACTION_KIND, b"mirred\0");
    attribute(&mut action, ACTION_OPTIONS, &parameters);
    let mut options = nested(U32_ACTIONS, &nested(FIRST_ACTION, &action));
    attribute(&mut options, U32_SELECTOR, &ANYTHING);
    let mut body = traffic(from, 0, FILTERS, PREFERENCE);
    attribute(&mut body, libc::TCA_KIND, b"u32\0");
    attribute(&mut body, libc::TCA_OPTIONS, &options);
    body
}

/// The header of a message about traffic control.
fn traffic(interface: u32, handle: u32, parent: u32, information: u32) -> Vec<u8> {
    let words = [0, interface, handle, parent, information];
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn nested(kind: u16, inside: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    attribute(&mut body, kind, inside);
    body
}

/// How long the kernel may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// It must not be there already.
const NEW: u16 = 0x200 | 0x400;
/// Handle and parent of the discipline, and where its filters hang, for incoming traffic.
const DISCIPLINE: u32 = 0xffff_0000;
const INGRESS: u32 = 0xffff_fff1;
const FILTERS: u32 = 0xffff_fff2;
/// Preference of our filter, by which it is found again, and every protocol behind it.
const PREFERENCE: u32 = 1771 << 16 | 3_u16.to_be() as u32;
/// A u32 selector: final, one key that masks everything out.
const ANYTHING: [u8; 32] = {
    let mut selector = [0; 32];
    selector[0] = 1;
    selector[2] = 1;
    selector
};
const U32_SELECTOR: u16 = 5;
const U32_ACTIONS: u16 = 7;
const FIRST_ACTION: u16 = 1;
const ACTION_KIND: u16 = 1;
/// With the flag that it holds attributes.
const ACTION_OPTIONS: u16 = 0x8002;
const MIRRED_PARAMETERS: u16 = 2;
const STOLEN: u32 = 4;
const EGRESS_REDIRECT: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    /// What the tool `tc` sends for the same filter.
    #[test]
    fn the_filter_is_as_the_tool_makes_it() {
        let message = filter(3, 5);
        assert_eq!(message.len(), 124);
        assert_eq!(message[..20], traffic(3, 0, 0xffff_fff2, 116_065_024));
        assert_eq!(&message[20..28], b"\x08\0\x01\0u32\0");
        let options =
            b"\x60\0\x02\0\x38\0\x07\0\x34\0\x01\0\x0b\0\x01\0mirred\0\0\x24\0\x02\x80\x20\0\x02\0\
            \0\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\x05\0\0\0\x24\0\x05\0\x01\0\x01\0";
        assert_eq!(message[28..28 + options.len()], options[..]);
        assert!(message[28 + options.len()..].iter().all(|byte| *byte == 0));
    }
}
