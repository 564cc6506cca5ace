//! A plan as text that a tool of the kernel reads.

pub mod iptables;
pub mod nft;

use crate::plan::{Family, Plan};
use crate::settings::Backend;

/// Everything that apply would do, for people: the tools' input and the rest as comments.
pub fn text(plan: &Plan, backend: Backend) -> String {
    let rules = match backend {
        Backend::Iptables => iptables_text(plan),
        Backend::Nft => format!("# nft -f -\n{}\n", nft::ruleset(plan, &usual_place())),
    };
    rules + &network(plan)
}

/// What a pod looks like; apply looks itself.
fn usual_place() -> nft::Place {
    nft::Place { devices: vec!["eth0".to_owned()], occupied: true }
}

fn iptables_text(plan: &Plan) -> String {
    let nothing = iptables::Leftovers::default();
    let family = |(family, tool)| {
        format!("# {tool}-restore --noflush\n{}\n", iptables::restore_input(plan, family, &nothing))
    };
    [(Family::V4, "iptables"), (Family::V6, "ip6tables")]
        .map(family)
        .concat()
}

/// What is done by netlink, written as the commands that would do the same.
fn network(plan: &Plan) -> String {
    let mut text = String::from("# by netlink, as these commands would\n");
    text.push_str("# ip -6 address add ::6/128 dev lo\n");
    if let Some(route) = plan.route {
        for family in ["-4", "-6"] {
            let (mark, table) = (route.mark, route.table);
            let preference = crate::plan::RULE_PREFERENCE;
            text.push_str(&format!("# ip {family} route add local default dev lo table {table}\n"));
            text.push_str(&format!(
                "# ip {family} rule add preference {preference} fwmark {mark:#x} lookup {table}\n"
            ));
        }
    }
    text.push_str("# conntrack -F, if anything changed\n");
    text
}
