//! When a certificate is valid, read from its DER: the two times are all that is needed of it that the TLS
//! library does not tell.

/// From when to when, seconds since the epoch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Validity {
    /// Not before.
    pub(crate) from: u64,
    /// Not after.
    pub(crate) until: u64,
}

impl Validity {
    /// Reads it.
    pub(crate) fn read(certificate: &[u8]) -> Option<Self> {
        let (_, outer) = element(certificate, SEQUENCE)?.0;
        let (_, mut inner) = element(outer, SEQUENCE)?.0;
        if let Some((_, rest)) = element(inner, VERSION) {
            inner = rest;
        }
        // Serial number, algorithm, issuer.
        for tag in [INTEGER, SEQUENCE, SEQUENCE] {
            inner = element(inner, tag)?.1;
        }
        let (_, times) = element(inner, SEQUENCE)?.0;
        let (from, rest) = time(times)?;
        Some(Self { from, until: time(rest)?.0 })
    }
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// An element with its tag, and what follows it.
type Element<'a> = ((u8, &'a [u8]), &'a [u8]);

fn element(bytes: &[u8], wanted: u8) -> Option<Element<'_>> {
    let found = any(bytes)?;
    (found.0.0 == wanted).then_some(found)
}

fn any(bytes: &[u8]) -> Option<Element<'_>> {
    let (&[tag, length], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = if length < 0x80 {
        (usize::from(length), rest)
    } else {
        // Two bytes of length are more than a certificate has.
        let count = usize::from(length & 0x7f);
        if !(1..=3).contains(&count) {
            return None;
        }
        let (digits, rest) = rest.split_at_checked(count)?;
        (
            digits
                .iter()
                .fold(0, |sum, digit| sum << 8 | usize::from(*digit)),
            rest,
        )
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some(((tag, content), rest))
}

/// A time in UTC with seconds, as certificates must have it.
fn time(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let ((tag, content), rest) = any(bytes)?;
    let text = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    let (year, text) = match tag {
        UTC_TIME => {
            let (year, text) = text.split_at_checked(2)?;
            let year = digits(year)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, text)
        }
        GENERALIZED_TIME => {
            let (year, text) = text.split_at_checked(4)?;
            (digits(year)?, text)
        }
        _ => return None,
    };
    if text.len() != 10 {
        return None;
    }
    let part = |at: usize| digits(text.get(at..at + 2)?);
    let (month, day) = (part(0)?, part(2)?);
    let (hour, minute, second) = (part(4)?, part(6)?, part(8)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year < 1970 {
        return None;
    }
    // Days since the epoch, years counted from March so that the leap day is the last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    Some((days * 86_400 + hour * 3600 + minute * 60 + second, rest))
}

fn digits(text: &str) -> Option<u64> {
    let are = text.bytes().all(|byte| byte.is_ascii_digit());
    are.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn made(from: u64, until: u64) -> Vec<u8> {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.not_before = at(from).into();
        params.not_after = at(until).into();
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn reads_the_times_of_any_century() {
        for (from, until) in [
            (0, 1),
            (951_782_400, 951_868_799),
            (1_764_000_000, 2_524_607_999),
            (2_524_608_000, 7_258_118_400),
        ] {
            assert_eq!(Validity::read(&made(from, until)), Some(Validity { from, until }));
        }
    }

    #[test]
    fn refuses_every_truncation_and_survives_every_flip() {
        let whole = made(0, 4_000_000_000);
        for cut in 0..whole.len() {
            assert_eq!(Validity::read(&whole[..cut]), None, "cut at {cut}");
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                let _any = Validity::read(&flipped);
            }
        }
    }
}
