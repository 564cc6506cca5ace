//! Host names as requests give them.

use memchr::{memchr, memmem};

use super::pending::Kind;
use crate::{MAX_NAME, bytes::name};

/// The authority inside a request target: after the scheme of an absolute one, all of CONNECT's.
pub(super) fn of_target(target: &[u8], kind: Kind) -> Option<&[u8]> {
    if kind == Kind::Connect {
        return Some(target);
    }
    if target.first() == Some(&b'/') {
        return None;
    }
    let after = memmem::find(target, b"://")?.checked_add(3)?;
    let authority = target.get(after..)?;
    let end = authority.iter().position(|byte| b"/?#".contains(byte));
    let authority = authority.get(..end.unwrap_or(authority.len()))?;
    let user_end = memchr::memrchr(b'@', authority).map_or(0, |at| at.saturating_add(1));
    authority.get(user_end..)
}

/// Cuts off a port, and the brackets of an IPv6 address.
pub(super) fn without_port(value: &[u8]) -> &[u8] {
    if let Some(inner) = value.strip_prefix(b"[") {
        return memchr(b']', inner)
            .and_then(|end| inner.get(..end))
            .unwrap_or_default();
    }
    let end = memchr(b':', value).unwrap_or(value.len());
    let host = value.get(..end).unwrap_or_default();
    host.strip_suffix(b".").unwrap_or(host)
}

/// The form for events: lower case; nothing for what can't be a host.
pub(super) fn normal(host: &[u8]) -> Option<Box<str>> {
    let strange = |byte: &u8| b"/\\@?#<>\"'`{}|^,;".contains(byte);
    if host.iter().any(strange) { None } else { name(host, MAX_NAME) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_host_out_of_values_and_targets() {
        for (value, host) in [
            ("Example.COM", Some("example.com")),
            ("example.com:8080", Some("example.com")),
            ("example.com.", Some("example.com")),
            ("[2001:DB8::1]:80", Some("2001:db8::1")),
            ("10.0.0.1:1", Some("10.0.0.1")),
            ("", None),
            (":80", None),
            ("a b", None),
            ("a/b", None),
            ("[::1", None),
            ("h\u{e9}", None),
        ] {
            assert_eq!(normal(without_port(value.as_bytes())).as_deref(), host, "{value}");
        }
        assert_eq!(normal(&[b'a'; MAX_NAME]).map(|host| host.len()), Some(MAX_NAME));
        assert_eq!(normal(&[b'a'; MAX_NAME + 1]), None);
    }

    #[test]
    fn takes_the_authority_out_of_targets() {
        let of = |target: &'static str| of_target(target.as_bytes(), Kind::Plain);
        assert_eq!(of("/path?u=http://x/"), None);
        assert_eq!(of("*"), None);
        assert_eq!(of("http://example.com"), Some(&b"example.com"[..]));
        assert_eq!(of("http://u:p@example.com:80/a@b"), Some(&b"example.com:80"[..]));
        assert_eq!(of("http://example.com?q"), Some(&b"example.com"[..]));
        assert_eq!(of_target(b"example.com:443", Kind::Connect), Some(&b"example.com:443"[..]));
    }
}
