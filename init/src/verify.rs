//! Proof by live connections that traffic goes where the rules say.
//!
//! Without a running proxy, stand-ins listen on its ports and read the original destination. With one, a
//! connection to an address where nobody is can only be accepted by the proxy.

mod destination;
mod peer;
mod probe;
mod queue;
mod standin;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use crate::InitError;
use crate::plan::{DELIVERY_V4, DELIVERY_V6, Family};
use crate::settings::{Mode, Queue, Settings};
use probe::{Dialled, User, dial, listen};
use standin::StandIn;

/// What a check found.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Finding {
    /// Traffic follows the rules.
    Holds,
    /// It does not.
    Broken(String),
    /// Nothing was proved, and why.
    Unproved(String),
}

/// Findings so far, in order.
#[derive(Debug, Default)]
struct Findings(Vec<(String, Finding)>);

impl Findings {
    fn add(&mut self, what: String, finding: Finding) {
        self.0.push((what, finding));
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (what, finding) in &self.0 {
            let line = match finding {
                Finding::Holds => format!("ok        {what}"),
                Finding::Broken(why) => format!("BROKEN    {what}: {why}"),
                Finding::Unproved(why) => format!("unproved  {what}: {why}"),
            };
            // Writing to a string cannot fail.
            writeln!(text, "{line}").expect("a String takes any text");
        }
        text
    }

    fn is_broken(&self) -> bool {
        self.0
            .iter()
            .any(|(_, finding)| matches!(finding, Finding::Broken(_)))
    }
}

/// Checks both families and both directions; returns the findings as text.
///
/// # Errors
/// If any traffic does not follow the rules.
pub fn verify(settings: &Settings) -> Result<String, InitError> {
    let proxy = User::proxy(settings);
    let outbound = StandIn::on(settings.outbound_port, &proxy);
    let inbound = StandIn::on(settings.inbound_port, &proxy);
    let mut findings = Findings::default();
    for family in Family::ALL {
        let check = Check { settings, family, proxy: &proxy };
        check.outbound(&outbound, &mut findings);
        check.proxy_direct(&mut findings);
        check.inside(&inbound, &mut findings);
    }
    if settings.queue != Queue::Off {
        queue::outbound(settings, &proxy, &mut findings);
    }
    peer::inbound(settings, &inbound, &mut findings);
    let text = findings.text();
    if findings.is_broken() { Err(InitError::Verify(text.trim_end().to_owned())) } else { Ok(text) }
}

/// The checks of one family that need no peer.
struct Check<'a> {
    settings: &'a Settings,
    family: Family,
    proxy: &'a User,
}

impl Check<'_> {
    /// A connection of the workload to an address where nobody is must be accepted by the proxy.
    fn outbound(&self, listener: &StandIn, findings: &mut Findings) {
        let what = format!("{} outbound connections reach the proxy", name(self.family));
        let Some(to) = destination::outbound(self.settings, self.family) else {
            findings
                .add(what, Finding::Unproved("the settings capture no test address".to_owned()));
            return;
        };
        let user = User::workload(self.settings);
        let finding = match user.run(|| dial(to, None)) {
            Some(dialled) => listener.judge(dialled, to),
            None => Finding::Unproved("needs SETUID to act as the workload".to_owned()),
        };
        findings.add(what, finding);
    }

    /// The proxy's own connection must not come back to it.
    fn proxy_direct(&self, findings: &mut Findings) {
        let what = format!("{} connections of the proxy go out directly", name(self.family));
        let Some(to) = destination::outbound(self.settings, self.family) else { return };
        let finding = match self.proxy.run(|| dial(to, None)) {
            None => self.proxy.unproved(),
            Some(Dialled::Connected(_)) => {
                Finding::Broken(format!("{to} answered, as the proxy does"))
            }
            Some(_) => Finding::Holds,
        };
        findings.add(what, finding);
    }

    /// Connections that never leave the pod: to itself, delivery, hairpin.
    fn inside(&self, inbound: &StandIn, findings: &mut Findings) {
        let what = format!("{} connections inside the pod", name(self.family));
        let Some(own) = destination::own_address(self.family) else {
            findings
                .add(what, Finding::Unproved("the pod has no route for this family".to_owned()));
            return;
        };
        let workload = User::workload(self.settings);
        let Some(listener) = workload.run(|| listen(own)).flatten() else {
            findings.add(what, Finding::Unproved(format!("cannot listen on {own}")));
            return;
        };
        let Some(to) = listener.addr() else { return };
        let itself = workload.run(|| dial(to, None));
        let finding =
            itself.map_or_else(|| self.proxy.unproved(), |one| listener.judge_direct(one));
        findings.add(format!("{}: the workload reaches itself", what), finding);

        let source = match self.family {
            Family::V4 => IpAddr::V4(DELIVERY_V4),
            Family::V6 => IpAddr::V6(DELIVERY_V6),
        };
        let delivered = self.proxy.run(|| dial(to, Some(source)));
        let finding =
            delivered.map_or_else(|| self.proxy.unproved(), |one| listener.judge_direct(one));
        findings.add(format!("{what}: the proxy delivers from {source}"), finding);

        let finding = self.hairpin(inbound, to);
        findings.add(format!("{what}: the proxy's way to itself is captured"), finding);
    }

    fn hairpin(&self, inbound: &StandIn, to: SocketAddr) -> Finding {
        if self.settings.mode == Mode::Tproxy && !inbound.is_ours() {
            return Finding::Unproved("a transparent proxy is running".to_owned());
        }
        match self.proxy.run(|| dial(to, None)) {
            Some(dialled) => inbound.judge(dialled, to),
            None => self.proxy.unproved(),
        }
    }
}

fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

#[cfg(test)]
mod tests {
    use super::{Finding, Findings};

    #[test]
    fn tells_what_is_broken_from_what_was_not_proved() {
        let mut findings = Findings::default();
        findings.add("one".to_owned(), Finding::Holds);
        findings.add("two".to_owned(), Finding::Unproved("no peer".to_owned()));
        assert!(!findings.is_broken());
        findings.add("three".to_owned(), Finding::Broken("direct".to_owned()));
        assert!(findings.is_broken());
        assert_eq!(
            findings.text(),
            "ok        one\nunproved  two: no peer\nBROKEN    three: direct\n"
        );
    }
}
