//! SIP and syslog.

use memchr::memchr;
use outrider_model::Side;

use super::Datagram;

/// Longest first line of SIP that is looked at.
const MAX_FIRST_LINE: usize = 1024;

const METHODS: [&[u8]; 14] = [
    b"ACK",
    b"BYE",
    b"CANCEL",
    b"INFO",
    b"INVITE",
    b"MESSAGE",
    b"NOTIFY",
    b"OPTIONS",
    b"PRACK",
    b"PUBLISH",
    b"REFER",
    b"REGISTER",
    b"SUBSCRIBE",
    b"UPDATE",
];

/// A request line or a status line of SIP; either side asks.
pub(super) fn is_sip(datagram: Datagram<'_>) -> bool {
    let start = datagram
        .bytes
        .get(..MAX_FIRST_LINE)
        .unwrap_or(datagram.bytes);
    let Some(line) = memchr(b'\n', start).and_then(|end| start.get(..end)) else { return false };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let (Some(first), Some(second), Some(third)) = (parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    if first == b"SIP/2.0" {
        return second.len() == 3 && second.iter().all(u8::is_ascii_digit);
    }
    let target = [&b"sip:"[..], b"sips:", b"tel:"].iter().any(|scheme| {
        second
            .get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    });
    third == b"SIP/2.0" && METHODS.contains(&first) && target
}

/// A priority in angle brackets, then a version or a time; on syslog's port, any text.
pub(super) fn is_syslog(datagram: Datagram<'_>) -> bool {
    let Some(rest) = datagram.bytes.strip_prefix(b"<") else { return false };
    let digits = rest
        .iter()
        .take(4)
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let (priority, rest) = rest.split_at_checked(digits).unwrap_or_default();
    let number = std::str::from_utf8(priority)
        .ok()
        .and_then(|text| text.parse::<u16>().ok());
    let Some(text) = rest.strip_prefix(b">") else { return false };
    if datagram.side != Side::Client || number.is_none_or(|number| number > 191) {
        return false;
    }
    text.starts_with(b"1 ") || has_date(text) || datagram.port == SYSLOG_PORT && is_text(text)
}

/// `Nov 25 14:31:22`.
fn has_date(text: &[u8]) -> bool {
    let month = text.get(..4).unwrap_or_default();
    let known = MONTHS
        .chunks(3)
        .any(|known| month.strip_suffix(b" ") == Some(known));
    let time = text.get(7..15).unwrap_or_default();
    let mut fields = time.split(|byte| *byte == b':');
    let two = |field: &[u8]| field.len() == 2 && field.iter().all(u8::is_ascii_digit);
    known && fields.by_ref().take(3).filter(|field| two(field)).count() == 3
}

fn is_text(text: &[u8]) -> bool {
    let start = text.get(..64).unwrap_or(text);
    !start.is_empty()
        && start
            .iter()
            .all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0x7e | 0x80..))
}

const SYSLOG_PORT: u16 = 514;
const MONTHS: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
