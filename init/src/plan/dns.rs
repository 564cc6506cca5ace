//! Questions to name servers, redirected to the proxy's DNS listener.

use super::{
    Chain, Hook, Match, PortRange, Protocol, Rule, Table, Target, UDP, all_of, host, proxy_owners,
};
use crate::settings::{Dns, Settings};

/// Port that name servers listen on.
const DNS: PortRange = PortRange { first: 53, last: 53 };
/// Zone of the proxy's own questions and of the answers to them.
const PROXY_ZONE: u16 = 1;
/// Zone of the workload's questions and of the proxy's answers to them.
const WORKLOAD_ZONE: u16 = 2;
/// Chain that puts outgoing questions in their zone.
const OUT_CHAIN: &str = "OUTRIDER_DNS_OUT";
/// Chain that puts the name servers' answers in their zone.
const IN_CHAIN: &str = "OUTRIDER_DNS_IN";

/// The servers to capture as matches, one alternative a list; none if capture is off.
fn servers(settings: &Settings, side: fn(ipnet::IpNet) -> Match) -> Vec<Vec<Match>> {
    match &settings.dns {
        Dns::Off => Vec::new(),
        Dns::All => vec![Vec::new()],
        Dns::Servers(list) => list.iter().map(|addr| vec![side(host(*addr))]).collect(),
    }
}

/// The rules of the outbound chain that send questions to the DNS listener.
pub(super) fn redirects(settings: &Settings) -> Vec<Rule> {
    let mut rules = Vec::new();
    for server in servers(settings, Match::Destination) {
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            let question = vec![Match::Protocol(protocol), Match::DestinationPorts(vec![DNS])];
            rules.push(Rule::new(
                "questions to name servers",
                all_of(question, &server),
                Target::Redirect(settings.dns_port),
            ));
        }
    }
    rules
}

/// Separate conntrack zones: a question of the workload and the proxy's own question upstream may have
/// the same addresses and ports, and one must not be taken for the other.
pub(super) fn zones(settings: &Settings) -> Vec<Chain> {
    let questions = servers(settings, Match::Destination);
    if questions.is_empty() {
        return Vec::new();
    }
    let to_dns = |server: &[Match]| all_of(vec![UDP, Match::DestinationPorts(vec![DNS])], server);
    let mut out = Vec::new();
    for owner in proxy_owners(settings) {
        out.extend(questions.iter().map(|server| {
            let when = all_of(to_dns(server), &owner);
            Rule::new("the proxy asks upstream", when, Target::Zone(PROXY_ZONE))
        }));
        let answer = vec![UDP, Match::SourcePorts(vec![settings.dns_port.into()])];
        let when = all_of(answer, &owner);
        out.push(Rule::new("the proxy answers the workload", when, Target::Zone(WORKLOAD_ZONE)));
    }
    out.extend(
        questions.iter().map(|server| {
            Rule::new("the workload asks", to_dns(server), Target::Zone(WORKLOAD_ZONE))
        }),
    );
    let answers = servers(settings, Match::Source).into_iter().map(|server| {
        let from_dns = vec![UDP, Match::SourcePorts(vec![DNS])];
        Rule::new(
            "a name server answers the proxy",
            all_of(from_dns, &server),
            Target::Zone(PROXY_ZONE),
        )
    });
    vec![
        Chain { table: Table::Raw, name: OUT_CHAIN, hook: Some(Hook::Output), rules: out },
        Chain {
            table: Table::Raw,
            name: IN_CHAIN,
            hook: Some(Hook::Prerouting),
            rules: answers.collect(),
        },
    ]
}
