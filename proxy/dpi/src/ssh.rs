//! SSH: the version in each side's banner.

use outrider_model::{AppId, Side, ThreatId};

use crate::{
    Need,
    bytes::Small,
    inspector::{Inspector, Sink},
    recognise::{Guess, Prefix, begins},
};

/// Most digits of either half of a version.
const MAX_DIGITS: usize = 3;

/// Longest beginning of a banner, through the dash after the version.
const MAX_BANNER: usize = 12;

/// Whether a side's first bytes are a banner; either may speak first.
pub(crate) fn guess(prefix: Prefix<'_>) -> Guess {
    match parse(prefix.bytes) {
        Ok(Some(_version)) => Guess::Yes,
        Ok(None) => Guess::More,
        Err(NoBanner) => Guess::No,
    }
}

/// Starts reading a flow that was recognised as SSH.
pub(crate) fn start() -> Box<dyn Inspector> {
    Box::new(Ssh { banners: [Some(Small::default()), Some(Small::default())], warned: false })
}

/// The banners of client and server as far as they are here; `None` once a side is done.
#[derive(Debug)]
struct Ssh {
    banners: [Option<Small<MAX_BANNER>>; 2],
    warned: bool,
}

struct NoBanner;

impl Inspector for Ssh {
    fn feed(&mut self, side: Side, mut chunk: &[u8], sink: &mut Sink<'_>) {
        sink.application(AppId::SSH);
        let [client, server] = &mut self.banners;
        let slot = if side == Side::Client { client } else { server };
        let Some(banner) = slot else { return };
        banner.fill(&mut chunk, MAX_BANNER);
        let version = match parse(banner.bytes()) {
            Ok(None) => return,
            Ok(version) => version,
            Err(NoBanner) => None,
        };
        *slot = None;
        // Version 1.99 announces version 2 with a fallback.
        if let Some((1, minor)) = version.filter(|version| *version != (1, 99) && !self.warned) {
            self.warned = true;
            let message = format!("SSH protocol version 1.{minor}");
            sink.threat(ThreatId::SSH_VERSION_1, side, message);
        }
    }

    fn skip(&mut self, _side: Side, _bytes: u64) {}

    fn need(&self, side: Side) -> Need {
        let [client, server] = &self.banners;
        let slot = if side == Side::Client { client } else { server };
        if slot.is_some() { Need::Bytes } else { Need::Nothing }
    }

    fn held(&self) -> usize {
        self.banners
            .iter()
            .flatten()
            .map(|banner| banner.bytes().len())
            .sum()
    }
}

/// The version at the beginning of a banner; `Ok(None)` if it is not complete.
fn parse(bytes: &[u8]) -> Result<Option<(u16, u16)>, NoBanner> {
    match begins(bytes, b"SSH-") {
        Guess::No => return Err(NoBanner),
        Guess::More => return Ok(None),
        Guess::Yes => {}
    }
    let rest = bytes.get(4..).unwrap_or_default();
    let Some((major, rest)) = number(rest, b'.')? else { return Ok(None) };
    let Some((minor, _software)) = number(rest, b'-')? else { return Ok(None) };
    Ok(Some((major, minor)))
}

/// Digits and the byte that ends them; `Ok(None)` if that is not here yet.
fn number(bytes: &[u8], end: u8) -> Result<Option<(u16, &[u8])>, NoBanner> {
    let count = bytes
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    if count > MAX_DIGITS {
        return Err(NoBanner);
    }
    let (digits, rest) = bytes.split_at_checked(count).ok_or(NoBanner)?;
    let value = digits.iter().fold(0_u16, |value, digit| {
        value
            .saturating_mul(10)
            .saturating_add(u16::from(digit.saturating_sub(b'0')))
    });
    match rest.split_first() {
        None => Ok(None),
        Some((byte, rest)) if *byte == end && count > 0 => Ok(Some((value, rest))),
        Some(_) => Err(NoBanner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{events, threats};

    const CLIENT: &[u8] = b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7\r\n";

    #[test]
    fn recognises_a_banner_of_either_side() {
        let app = crate::Event::Application(AppId::SSH);
        assert_eq!(events(22, &[(Side::Client, CLIENT)]), std::slice::from_ref(&app));
        assert_eq!(events(22, &[(Side::Server, CLIENT)]), std::slice::from_ref(&app));
        assert_eq!(events(22, &[(Side::Server, b"SSH-2.0-x\r\n"), (Side::Client, CLIENT)]), [app]);
    }

    #[test]
    fn version_1_is_a_threat_but_1_99_is_version_2() {
        let flow = [(Side::Server, &b"SSH-1.5-1.2.27\n"[..]), (Side::Client, b"SSH-1.5-x\n")];
        let seen = events(22, &flow);
        assert_eq!(
            threats(&seen),
            [(ThreatId::SSH_VERSION_1, Side::Server, "SSH protocol version 1.5")]
        );
        assert_eq!(threats(&events(22, &[(Side::Server, b"SSH-1.99-Cisco-1.25\n")])), []);
        let flow = [(Side::Server, &b"SSH-1.99-x\n"[..]), (Side::Client, b"SSH-1.5-x\n")];
        assert_eq!(threats(&events(22, &flow)).len(), 1);
    }

    #[test]
    fn refuses_what_is_no_banner() {
        for text in ["SSH", "SSH-2", "SSH-2.0", "SSH2.0-x", "SSH-.0-x", "SSH-2.-x", "SSH-1234.0-x"]
        {
            let seen = events(22, &[(Side::Server, text.as_bytes())]);
            assert_eq!(seen, [crate::Event::Unidentified], "{text}");
        }
    }
}
