//! The words of our objects, read. An API server before 1.25 refuses none of them.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use outrider_learn::Ports;
use outrider_model::{AppId, IpProto};
use outrider_policy::Name;

/// Why an object does not hold, or not all of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Problem {
    /// One word.
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) field: String,
}

impl Problem {
    pub(super) fn new(reason: &'static str, field: &str, message: String) -> Self {
        Self { reason, message, field: field.to_owned() }
    }

    pub(super) fn invalid(field: &str, message: String) -> Self {
        Self::new("Invalid", field, message)
    }
}

/// A network, or an address.
pub(super) fn network(text: &str, field: &str) -> Result<IpNet, Problem> {
    let read = text.parse::<IpNet>().map(|net| net.trunc());
    let read = read.or_else(|_no_net| text.parse::<IpAddr>().map(IpNet::from));
    read.map_err(|_neither| {
        Problem::invalid(field, format!("{text:?} is no address and no network"))
    })
}

/// A DNS name.
pub(super) fn name(text: &str, field: &str) -> Result<Arc<str>, Problem> {
    let read = Name::new(text).map(|name| name.as_str().into());
    read.map_err(|_not_one| Problem::invalid(field, format!("{text:?} is no DNS name")))
}

/// `any`, `icmp`, `tcp/80`, `udp/any`, `sctp/1-2`.
pub(super) fn ports(text: &str, field: &str) -> Result<Ports, Problem> {
    let wrong = || {
        let forms = "it must be any, icmp, or like tcp/80, udp/any, tcp/8000-8010";
        Problem::invalid(field, format!("{text:?} are no ports: {forms}"))
    };
    let whole = |proto| Ports { proto, low: 0, high: u16::MAX };
    let (proto, range) = match (text, text.split_once('/')) {
        ("any", _) => return Ok(Ports::ANY),
        ("icmp", _) => return Ok(whole(Some(IpProto::ICMP))),
        (_, Some(("tcp", range))) => (IpProto::TCP, range),
        (_, Some(("udp", range))) => (IpProto::UDP, range),
        (_, Some(("sctp", range))) => (IpProto::SCTP, range),
        _ => return Err(wrong()),
    };
    if range == "any" {
        return Ok(whole(Some(proto)));
    }
    let (low, high) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| text.parse::<u16>().map_err(|_no_port| wrong());
    let (low, high) = (number(low)?, number(high)?);
    if low > high { Err(wrong()) } else { Ok(Ports { proto: Some(proto), low, high }) }
}

/// An application by the name that people know, or `unknown`: what can't be identified.
pub(super) fn application(text: &str, field: &str) -> Result<u32, Problem> {
    if text == AppId::UNIDENTIFIED.to_string() {
        return Ok(AppId::UNIDENTIFIED.0);
    }
    let known = AppId::known().find(|(_, name)| *name == text);
    let unknown = || Problem::invalid(field, format!("no application is called {text:?}"));
    known.map(|(app, _)| app.0).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ports_as_the_schema_has_them() {
        let of = |proto, low, high| Some(Ports { proto: Some(proto), low, high });
        for (text, expected) in [
            ("any", Some(Ports::ANY)),
            ("icmp", of(IpProto::ICMP, 0, u16::MAX)),
            ("tcp/80", of(IpProto::TCP, 80, 80)),
            ("udp/any", of(IpProto::UDP, 0, u16::MAX)),
            ("sctp/1-65535", of(IpProto::SCTP, 1, u16::MAX)),
            ("80", None),
            ("tcp/", None),
            ("tcp/65536", None),
            ("tcp/2-1", None),
            ("TCP/1", None),
            ("icmp/1", None),
        ] {
            assert_eq!(ports(text, "").ok(), expected, "{text}");
        }
    }
}
