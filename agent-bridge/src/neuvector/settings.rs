//! Settings of the reports to a controller.

use std::str::FromStr;

use crate::{export::host_name, settings::Reader};

/// Every setting, its default and what it is for, as `--help` shows them.
pub const HELP: [(&str, &str, &str); 3] = [
    ("OUTRIDER_BRIDGE_CONTROLLER", "none", "HOST:PORT of a controller to report connections to"),
    ("OUTRIDER_BRIDGE_CONTROLLER_HOST_ID", "the host's name", "what the controller knows us by"),
    ("OUTRIDER_BRIDGE_CONTROLLER_AGENT_ID", "outrider-HOST_ID", "the same, of this agent"),
];

/// Longest name of a host or an agent.
const MAX_ID: usize = 253;

/// Whom to report to, and as whom.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ControllerSettings {
    /// `OUTRIDER_BRIDGE_CONTROLLER`: `host:port`.
    pub target: String,
    /// `OUTRIDER_BRIDGE_CONTROLLER_HOST_ID`.
    pub host_id: String,
    /// `OUTRIDER_BRIDGE_CONTROLLER_AGENT_ID`.
    pub agent_id: String,
}

impl ControllerSettings {
    /// Reads them; mistakes are noted in the reader.
    pub(crate) fn read(env: &mut Reader<impl Fn(&str) -> Option<String>>) -> Option<Self> {
        let target = env.option("OUTRIDER_BRIDGE_CONTROLLER");
        let host_id = env
            .value("OUTRIDER_BRIDGE_CONTROLLER_HOST_ID", Id(host_name()))
            .0;
        let agent_id = env
            .value("OUTRIDER_BRIDGE_CONTROLLER_AGENT_ID", Id(format!("outrider-{host_id}")))
            .0;
        let Target(target) = target?;
        Some(Self { target, host_id, agent_id })
    }
}

/// `host:port`.
struct Target(String);

impl FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "must be HOST:PORT";
        let (host, port) = text.rsplit_once(':').ok_or(FORM)?;
        let is_host = host.starts_with('[') == host.ends_with(']')
            && (host.starts_with('[') || !host.contains(':'))
            && !host.is_empty()
            && host.len() <= MAX_ID
            && host
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'/');
        let is_port = port.parse::<u16>().is_ok_and(|port| port != 0);
        if is_host && is_port { Ok(Self(text.to_owned())) } else { Err(FORM) }
    }
}

/// A name that a controller may know somebody by.
struct Id(String);

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_id = !text.is_empty()
            && text.len() <= MAX_ID
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_id {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("must be 1 to {MAX_ID} visible characters"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_host_and_a_port() {
        for text in ["controller.example:18400", "10.0.0.1:1", "[::1]:18400"] {
            assert!(text.parse::<Target>().is_ok(), "{text}");
        }
        for text in ["", "controller", ":1", "a:0", "a:65536", "::1:18400", "[::1:1", "http://a:1"]
        {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_id_can_be_shown() {
        assert!("node-1:abc".parse::<Id>().is_ok());
        for text in ["", "a b", "a\u{1b}", &"a".repeat(MAX_ID + 1)] {
            assert!(text.parse::<Id>().is_err(), "{text}");
        }
    }
}
