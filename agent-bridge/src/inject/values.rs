//! Forms of values: the same that `outrider-init` and `outrider-proxy` take.

use std::net::IpAddr;

use ipnet::IpNet;

use super::cluster::MAX_ENTRIES;

/// `*`, `none`, or a list that is not empty.
pub(super) fn ports(text: &str) -> bool {
    matches!(text, "*" | "none") || !text.is_empty() && port_list(text)
}

/// Ports and ranges, perhaps none.
pub(super) fn port_list(text: &str) -> bool {
    entries(text, |entry| {
        let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
        matches!((port(first), port(last)), (Some(first), Some(last)) if first <= last)
    })
}

/// A port's number.
pub(super) fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

/// `*`, or networks, not none: of a variable without a value nothing is left in a pod.
pub(super) fn networks(text: &str) -> bool {
    text == "*" || !text.is_empty() && network_list(text)
}

/// Networks without host bits, perhaps none.
pub(super) fn network_list(text: &str) -> bool {
    entries(text, |entry| {
        let net = match entry.parse::<IpAddr>() {
            Ok(address) => Ok(IpNet::from(address)),
            Err(_no_address) => entry.parse::<IpNet>(),
        };
        net.is_ok_and(|net| net.trunc() == net && net.prefix_len() > 0)
    })
}

/// Names that the kernel takes and the tools do not mistake for options.
pub(super) fn interfaces(text: &str) -> bool {
    entries(text, |name| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let fits = (1..=MAX_INTERFACE).contains(&name.len()) && name.bytes().all(allowed);
        fits && !name.starts_with(['-', '.']) && name != "lo"
    })
}

/// `off`, `all`, or name servers.
pub(super) fn dns(text: &str) -> bool {
    let listed = || {
        let servers = text.split(',').map(str::trim);
        servers.clone().count() <= MAX_NAME_SERVERS
            && servers.into_iter().all(|one| one.parse::<IpAddr>().is_ok())
    };
    matches!(text, "off" | "all") || listed()
}

/// An amount of CPU within bounds.
pub(super) fn cpu(text: &str) -> bool {
    quantity(text).is_some_and(|amount| (1..=64_000).contains(&amount))
}

/// An amount of memory within bounds.
pub(super) fn memory(text: &str) -> bool {
    const MEBIBYTE: u128 = (1 << 20) * 1000;
    quantity(text).is_some_and(|amount| (16 * MEBIBYTE..=65_536 * MEBIBYTE).contains(&amount))
}

/// A time with its unit, an hour at most.
pub(super) fn grace(text: &str) -> bool {
    let Some(end) = text.find(|letter: char| !letter.is_ascii_digit()) else { return false };
    let (digits, unit) = text.split_at(end);
    let unit: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return false,
    };
    let number: Option<u64> = digits.parse().ok();
    number
        .and_then(|number| number.checked_mul(unit))
        .is_some_and(|time| time <= 3_600_000)
}

/// Thousandths of a Kubernetes quantity: `100m`, `0.5`, `128Mi`.
pub(super) fn quantity(text: &str) -> Option<u128> {
    let end = text
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let unit: u128 = match suffix {
        "m" => 1,
        "" => 1000,
        "k" => 1000 * 1000,
        "M" => 1000 * 1_000_000,
        "G" => 1000 * 1_000_000_000,
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || whole.len() + part.len() > MAX_DIGITS {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    let scale = 10_u128.checked_pow(u32::try_from(part.len()).ok()?)?;
    let part: u128 = if part.is_empty() { 0 } else { part.parse().ok()? };
    let exact = (whole * scale + part).checked_mul(unit)?;
    exact.is_multiple_of(scale).then(|| exact / scale)
}

/// At most so many entries, each of which fits; an empty text has none.
fn entries(text: &str, fits: impl Fn(&str) -> bool) -> bool {
    text.is_empty()
        || text.split(',').count() <= MAX_ENTRIES && text.split(',').map(str::trim).all(fits)
}

/// Longest interface name that the kernel takes.
const MAX_INTERFACE: usize = 15;
/// Name servers that the proxy asks.
const MAX_NAME_SERVERS: usize = 3;
/// Digits of a quantity.
const MAX_DIGITS: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_ports_and_networks_are_those_of_init() {
        for text in ["*", "none", "80", "80,8000-8100", " 80 , 81"] {
            assert!(ports(text), "{text:?}");
        }
        for text in ["", "0", "65536", "+80", "90-80", "80,", "http", "80;81"] {
            assert!(!ports(text), "{text:?}");
        }
        for text in ["", "10.0.0.0/8", "fd00::/8,192.0.2.1"] {
            assert!(network_list(text), "{text:?}");
        }
        for text in ["10.0.0.1/8", "0.0.0.0/0", "ten", "10.0.0.0/33"] {
            assert!(!network_list(text), "{text:?}");
        }
        let many = |entries: usize| vec!["80"; entries].join(",");
        assert!(port_list(&many(MAX_ENTRIES)) && !port_list(&many(MAX_ENTRIES + 1)));
    }

    #[test]
    fn interfaces_are_names_that_the_kernel_takes() {
        assert!(interfaces("eth1,net1.7"));
        for text in ["lo", "-i", ".", "abcdefghijklmnop", "eth 1", "eth1/0"] {
            assert!(!interfaces(text), "{text:?}");
        }
    }

    #[test]
    fn quantities_are_exact_and_within_bounds() {
        assert_eq!(quantity("100m"), Some(100));
        assert_eq!(quantity("0.5"), Some(500));
        assert_eq!(quantity("1.5Gi"), Some(1500 << 30));
        for text in ["", "m", "-1", "1e3", "1 Gi", "0.0001m", ".5", "1.2.3", "9999999999999999"] {
            assert_eq!(quantity(text), None, "{text:?}");
        }
        assert!(cpu("1m") && cpu("64") && !cpu("0") && !cpu("65"));
        assert!(memory("16Mi") && memory("64Gi") && !memory("15Mi") && !memory("128"));
    }

    #[test]
    fn times_have_a_unit_and_an_end() {
        assert!(grace("0s") && grace("500ms") && grace("1h"));
        for text in ["", "10", "s", "2h", "10 s", "99999999999999999999s"] {
            assert!(!grace(text), "{text:?}");
        }
        assert!(dns("off") && dns("10.0.0.10, fd00::a") && !dns("") && !dns("ns.example"));
        assert!(!dns("10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.4"));
    }
}
