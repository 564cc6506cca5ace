//! Text to settings. Nothing stops at the first mistake: all of them are told at once.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use outrider_model::names::{OWN_MARK, VERDICT_MARK};

use super::options::option;
use super::{
    Backend, Destinations, Dns, Groups, Guard, MAX_ENTRIES, Mode, Ports, Queue, Settings, Variant,
};
use crate::plan::PortRange;

/// A setting that cannot be used, and what it could be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mistake {
    /// Flag, without dashes.
    pub setting: &'static str,
    /// What was given.
    pub value: String,
    /// The form that is allowed.
    pub allowed: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, value, allowed } = self;
        let variable = option(setting).variable;
        write!(f, "--{setting} ({variable}) is {value:?}: allowed is {allowed}")
    }
}

/// Settings as they came, by flag or environment; absent is the default.
#[derive(Clone, Debug, Default)]
pub struct RawSettings {
    /// Setting names (flag without dashes) and values.
    pub values: Vec<(&'static str, String)>,
}

impl RawSettings {
    /// Checks and converts everything.
    ///
    /// # Errors
    /// Every setting that cannot be used.
    pub fn parse(&self) -> Result<Settings, Vec<Mistake>> {
        let mut reader = Reader { raw: self, mistakes: Vec::new() };
        let mut settings = Settings::default();
        reader.tools(&mut settings);
        reader.proxy(&mut settings);
        reader.selection(&mut settings);
        reader.guard(&mut settings);
        reader.conflicts(&settings);
        if reader.mistakes.is_empty() { Ok(settings) } else { Err(reader.mistakes) }
    }
}

/// Reads settings and collects mistakes.
struct Reader<'a> {
    raw: &'a RawSettings,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    fn tools(&mut self, to: &mut Settings) {
        self.read("mode", &mut to.mode, |text| match text {
            "redirect" => Some(Mode::Redirect),
            "tproxy" => Some(Mode::Tproxy),
            _ => None,
        });
        self.read("backend", &mut to.backend, |text| match text {
            "iptables" => Some(Backend::Iptables),
            "nft" => Some(Backend::Nft),
            _ => None,
        });
        self.read("iptables-variant", &mut to.variant, |text| match text {
            "auto" => Some(Variant::Auto),
            "nft" => Some(Variant::Nft),
            "legacy" => Some(Variant::Legacy),
            _ => None,
        });
    }

    fn proxy(&mut self, to: &mut Settings) {
        self.read("outbound-port", &mut to.outbound_port, port);
        self.read("inbound-port", &mut to.inbound_port, port);
        self.read("dns-port", &mut to.dns_port, port);
        self.read("health-port", &mut to.health_port, port);
        self.read("proxy-uid", &mut to.proxy_uids, some_numbers);
        self.read("proxy-gid", &mut to.proxy_gids, numbers);
        self.read("secret-mark", &mut to.secret_mark, |text| number(text).map(Some));
        self.read("mark", &mut to.mark, number);
        self.read("table", &mut to.table, number);
    }

    fn selection(&mut self, to: &mut Settings) {
        self.read("inbound-ports", &mut to.inbound_ports, ports);
        self.read("exclude-inbound-ports", &mut to.exclude_inbound_ports, port_list);
        self.read("outbound-ports", &mut to.outbound_ports, ports);
        self.read("exclude-outbound-ports", &mut to.exclude_outbound_ports, port_list);
        self.read("outbound-cidrs", &mut to.outbound_cidrs, |text| match text {
            "*" => Some(Destinations::All),
            _ => networks(text).map(Destinations::Only),
        });
        self.read("exclude-outbound-cidrs", &mut to.exclude_outbound_cidrs, networks);
        self.read("exclude-interfaces", &mut to.exclude_interfaces, interfaces);
        self.read("virtual-interfaces", &mut to.virtual_interfaces, interfaces);
        self.read("groups", &mut to.groups, |text| match text {
            "*" => Some(Groups::All),
            _ => some_numbers(text).map(Groups::Only),
        });
        self.read("exclude-groups", &mut to.exclude_groups, numbers);
        self.read("dns", &mut to.dns, |text| match text {
            "off" => Some(Dns::Off),
            "all" => Some(Dns::All),
            _ => addresses(text)
                .filter(|list| !list.is_empty())
                .map(Dns::Servers),
        });
    }

    fn guard(&mut self, to: &mut Settings) {
        self.read("guard", &mut to.guard, |text| match text {
            "off" => Some(Guard::Off),
            "tcp" => Some(Guard::Tcp),
            "all" => Some(Guard::All),
            _ => None,
        });
        self.read("queue", &mut to.queue, |text| match text {
            "off" => Some(Queue::Off),
            "open" => Some(Queue::Open),
            "closed" => Some(Queue::Closed),
            _ => None,
        });
        self.read("drop-invalid", &mut to.drop_invalid, |text| text.parse().ok());
    }

    /// Settings that are fine one by one and not together.
    fn conflicts(&mut self, settings: &Settings) {
        let ports = [
            ("inbound-port", settings.inbound_port),
            ("dns-port", settings.dns_port),
            ("health-port", settings.health_port),
        ];
        let mut taken = vec![settings.outbound_port];
        for (setting, port) in ports {
            if taken.contains(&port) {
                self.mistake(setting, &port.to_string(), "a port that no other listener has");
            }
            taken.push(port);
        }
        if settings.queue != Queue::Off {
            let marks = [("secret-mark", settings.secret_mark), ("mark", Some(settings.mark))];
            for (setting, mark) in marks {
                let mark = mark.unwrap_or_default();
                if mark & (VERDICT_MARK | OWN_MARK) != 0 {
                    let allowed = "with the queue, a mark without the bits 0x3000000";
                    self.mistake(setting, &format!("{mark:#x}"), allowed);
                }
            }
        }
    }

    fn read<T>(
        &mut self,
        setting: &'static str,
        to: &mut T,
        parse: impl FnOnce(&str) -> Option<T>,
    ) {
        let given = self
            .raw
            .values
            .iter()
            .rev()
            .find(|(name, _)| *name == setting);
        let Some((_, text)) = given else { return };
        match parse(text.trim()) {
            Some(value) => *to = value,
            None => self.mistake(setting, text, option(setting).form),
        }
    }

    fn mistake(&mut self, setting: &'static str, value: &str, allowed: &str) {
        let mut allowed = allowed.to_owned();
        if value.split(',').count() > MAX_ENTRIES {
            allowed = format!("{allowed}, at most {MAX_ENTRIES} of them");
        }
        let value = value.chars().take(MAX_SHOWN).collect();
        self.mistakes.push(Mistake { setting, value, allowed });
    }
}

/// Characters of a wrong value that are repeated in the message.
const MAX_SHOWN: usize = 120;

/// Longest interface name that the kernel takes.
const MAX_INTERFACE: usize = 15;

fn port(text: &str) -> Option<u16> {
    number(text).and_then(|number| u16::try_from(number).ok())
}

/// A number other than 0, decimal or hexadecimal.
fn number(text: &str) -> Option<u32> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) if !digits.starts_with('+') => u32::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None => decimal(text),
    };
    parsed.filter(|number| *number != 0)
}

/// Digits only: the standard parser takes a sign too.
fn decimal(text: &str) -> Option<u32> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

fn addresses(text: &str) -> Option<Vec<IpAddr>> {
    entries(text)?
        .into_iter()
        .map(|entry| entry.parse().ok())
        .collect()
}

fn numbers(text: &str) -> Option<Vec<u32>> {
    entries(text)?.into_iter().map(decimal).collect()
}

fn some_numbers(text: &str) -> Option<Vec<u32>> {
    numbers(text).filter(|list| !list.is_empty())
}

/// The entries of a list, at most [`MAX_ENTRIES`]; an empty text is an empty list.
fn entries(text: &str) -> Option<Vec<&str>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let entries: Vec<&str> = text.split(',').map(str::trim).collect();
    (entries.len() <= MAX_ENTRIES).then_some(entries)
}

fn ports(text: &str) -> Option<Ports> {
    match text {
        "*" => Some(Ports::All),
        "none" => Some(Ports::None),
        _ => port_list(text)
            .filter(|list| !list.is_empty())
            .map(Ports::Only),
    }
}

fn port_list(text: &str) -> Option<Vec<PortRange>> {
    entries(text)?.into_iter().map(port_range).collect()
}

fn port_range(text: &str) -> Option<PortRange> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(PortRange { first, last })
}

/// Networks; host bits are refused, since they are mostly a slip in the length.
fn networks(text: &str) -> Option<Vec<IpNet>> {
    entries(text)?.into_iter().map(network).collect()
}

fn network(text: &str) -> Option<IpNet> {
    let net = match text.parse::<IpAddr>() {
        Ok(addr) => IpNet::from(addr),
        Err(_) => text.parse().ok()?,
    };
    (net.trunc() == net && net.prefix_len() > 0).then_some(net)
}

fn interfaces(text: &str) -> Option<Vec<String>> {
    let name = |name: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let fits = (1..=MAX_INTERFACE).contains(&name.len()) && name.bytes().all(allowed);
        // A leading dash would be read as an option by the tools, a dot alone is refused by the kernel.
        let usable = fits && !name.starts_with(['-', '.']) && name != "lo";
        usable.then(|| name.to_owned())
    };
    entries(text)?.into_iter().map(name).collect()
}
