//! What can be typed.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;
use outrider_model::Mode;

use crate::{
    capture::Wanted,
    client::Target,
    narrow::{Followed, Narrow, Open},
    policy::PolicyCommand,
    probe::Probe,
};

const EXAMPLES: &str = "\
Examples:
  outrider conversations                     who talks to whom, in which application
  outrider rules --json                      learned rules with their evidence, an object a line
  outrider mode set cache protect            from now on, what no rule names is refused
  outrider flows --follow                    flows as they come, until interrupted
  outrider conversations --workload cache --since 10m
                                             what one workload did lately
  outrider sessions --app redis --limit 20   what is open now
  outrider violations                        what was refused or would have been
  outrider explain intruder cache 6379 --app redis
                                             which rule decides, why, and what would allow it
  outrider capture cache -f 'port 6379' -w cache.pcapng
                                             a pod's packets, for a minute or until interrupted
  outrider policy export > policy.yaml       what was learned, as objects to be reviewed
  outrider inspect capture.pcapng            what a capture file holds, flow by flow; needs no bridge
  outrider --bridge http://127.0.0.1:15180 status
  outrider --bridge unix:/run/outrider/api.sock status
  outrider --bridge http://node:15180 --token-file ~/.outrider-token workloads
  kubectl outrider check                     (this program as kubectl-outrider in the PATH) a whole cluster
  kubectl outrider mode set shop/cache protect
                                             writes a WorkloadMode for the pods of that service

Workloads are named <namespace>/<name>; the bare name will do while it is the only one.

Exit codes: 0 done, 1 the bridge refused or could not do it, 2 wrong usage, 3 no bridge answered,
4 you may not (no token or a wrong one, or a socket of others).";

/// See and decide who may talk to whom on this node.
#[derive(Debug, Parser)]
#[command(name = "outrider", version, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where the bridge answers: `unix:PATH`, `http://HOST:PORT` or `HOST:PORT`.
    ///
    /// Default: unix:/run/outrider/api.sock if it answers, else http://127.0.0.1:15180.
    /// Over TCP the bridge takes changes only with a token, and off loopback it shows nothing without.
    #[arg(long, global = true, env = "OUTRIDER_BRIDGE", value_name = "URL|unix:PATH")]
    pub(crate) bridge: Option<Target>,
    /// File with the token for a bridge that is asked over TCP; OUTRIDER_TOKEN may hold the token itself.
    #[arg(long, global = true, env = "OUTRIDER_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Ask a whole cluster through kubectl and its credentials; called as `kubectl outrider` it always does.
    #[arg(long, global = true)]
    pub(crate) cluster: bool,
    /// Context of kubectl's configuration.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Namespace that Outrider is installed in.
    #[arg(long, global = true, value_name = "NAME", default_value = "outrider")]
    pub(crate) release_namespace: String,
    /// In a cluster: only this node's bridge.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) node: Option<String>,
    /// Print JSON, one object a line, instead of a table.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Rules, with what they were learned from
    Rules(Narrow),
    /// Flows summed per client, server, application and port
    Conversations(Narrow),
    /// Samples of recent flows, with the names that were asked for
    #[command(after_help = FOLLOW_HELP)]
    Flows(Followed),
    /// Traffic that no rule allows, with the rule or default that decided
    #[command(after_help = FOLLOW_HELP)]
    Violations(Followed),
    /// What the detectors found, with evidence
    #[command(after_help = FOLLOW_HELP)]
    Threats(Followed),
    /// Flows that are open now, asked of the proxies
    Sessions(Open),
    /// Pods of this node, their mode and whether their proxy answers
    Workloads,
    /// The bridge itself: what it covers, received, dropped, keeps and exports, and what is wrong
    Status,
    /// In a cluster: whether all of Outrider works there, or with --pre whether it is fit for it
    #[command(after_help = CHECK_HELP)]
    Check {
        /// Before the installation
        #[arg(long)]
        pre: bool,
    },
    /// In a cluster: pods of namespaces that ask for injection which have no proxy, and why
    Coverage,
    /// Read or set how far policy may go for a workload's group; in a cluster, for a namespace or a service of it
    #[command(subcommand)]
    Mode(ModeCommand),
    /// Say which rule decides about a flow, why, and what would allow it
    #[command(after_help = "Example:\n  outrider explain intruder cache 6379 --app redis")]
    Explain {
        /// Workload or address that opens the flow
        client: String,
        /// Workload or address that answers
        server: String,
        /// Server port
        port: u16,
        /// Application, as `outrider conversations` names it; without it, not yet identified
        #[arg(long, value_name = "NAME")]
        app: Option<String>,
    },
    /// Capture a pod's packets to a file or a pipe (pcapng)
    #[command(after_help = CAPTURE_HELP)]
    Capture(Wanted),
    /// Policy as code: write down what was learned, compare, try out, bring into force
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Answer, or see who answers: what `helm test` runs
    #[command(subcommand)]
    Probe(Probe),
    /// Print what makes a shell complete commands and options
    #[command(after_help = COMPLETION_HELP)]
    Completion {
        /// bash, zsh, fish, elvish or powershell
        shell: Shell,
    },
    /// Say what a capture file holds: flows, applications, names, threats; needs no bridge
    #[command(after_help = INSPECT_HELP)]
    Inspect {
        /// A file that tcpdump, tshark or dumpcap wrote (pcap or pcapng); `-` is standard input
        file: PathBuf,
    },
}

const CHECK_HELP: &str = "\
The exit code is 1 if something is wrong. Pods of the release are asked through the API server, so it takes the right
to `get` `pods/proxy` in its namespace; what may not be seen is a warning.

Examples:
  kubectl outrider check --pre
  kubectl outrider check
  kubectl outrider --context test --release-namespace security check --json";

const FOLLOW_HELP: &str = "\
With --follow nothing old is shown; what happens is printed as it happens, a line each. If the bridge
goes away it is looked for again, and what was missed meanwhile is printed or said to be lost.

Examples:
  outrider flows --follow --workload cache
  outrider violations --since 10m
  outrider threats --follow --json | jq .name";

const CAPTURE_HELP: &str = "\
What the pod sends and receives on its interfaces, as it is on the wire. Connections that the proxy
relays are there once, on their way to or from the other pod; with --loopback also between proxy and
application. The capture ends at the first of its bounds, or when it is interrupted. What comes too
fast is left out and counted: capturing never holds up traffic. The proxy needs NET_RAW for it.

A filter is made of  host ADDRESS, net NETWORK, port N, portrange A-B  (with src or dst before them,
ports also with tcp, udp or sctp),  tcp, udp, sctp, icmp, icmp6, ip, ip6, arp, proto N,  joined by
and, or, not and brackets. Names are not looked up.

Examples:
  outrider capture default/cache -w cache.pcapng
  outrider capture cache -f 'tcp port 6379 and not host 10.0.0.7' -d 10m -w - | tcpdump -nr -
  outrider capture cache -c 1000 | outrider inspect -
  outrider capture cache -s 96 -f 'portrange 8000-8100 or icmp' -w headers.pcapng";

const COMPLETION_HELP: &str = "\
Examples:
  outrider completion bash > /etc/bash_completion.d/outrider
  outrider completion zsh > \"${fpath[1]}/_outrider\"
  outrider completion fish > ~/.config/fish/completions/outrider.fish";

const INSPECT_HELP: &str = "\
Frames of Ethernet (with VLANs), Linux cooked, raw IP and loopback are read. The inspectors are the
proxy's own: what they say of a capture they would have said of the traffic.

Examples:
  outrider inspect web.pcap
  outrider inspect web.pcap --json | jq 'select(.threats != [])'
  tcpdump -i eth0 -w - -c 1000 | outrider inspect -";

const MODE_HELP: &str = "\
Modes:
  discover   learn rules from what is seen; block nothing, report no violation
  monitor    report what no rule allows; block nothing
  protect    refuse what no rule allows, and report it

A mode belongs to the group, so all workloads of one service change together.

Examples:
  outrider mode get cache
  outrider mode set default/cache protect";

#[derive(Debug, Subcommand)]
#[command(after_help = MODE_HELP)]
pub(crate) enum ModeCommand {
    /// Print a workload's mode
    Get {
        /// Workload
        workload: String,
    },
    /// Set it; returns once it is stored and every connected proxy has the new policy
    #[command(after_help = MODE_HELP)]
    Set {
        /// Workload
        workload: String,
        /// discover, monitor or protect
        mode: Mode,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn options_may_stand_behind_the_command() {
        let args = Args::parse_from(["outrider", "rules", "--json", "--bridge", "unix:/x"]);
        assert!(args.json);
        assert_eq!(args.bridge, Some(Target::Unix("/x".into())));
    }

    #[test]
    fn sessions_are_narrowed_like_other_lists() {
        let narrowed = |words: &[&str]| match Args::try_parse_from(words).map(|args| args.command) {
            Ok(Command::Sessions(open)) => {
                let narrow = Narrow::from(&open);
                Some((narrow.path("/v1/sessions"), narrow.limit))
            }
            _ => None,
        };
        let path = "/v1/sessions?workload=cache&app=redis".to_owned();
        for words in [
            ["outrider", "sessions", "cache", "--app", "redis", "--limit", "20"].as_slice(),
            &["outrider", "sessions", "--workload", "cache", "--app", "redis", "--limit=20"],
        ] {
            assert_eq!(narrowed(words), Some((path.clone(), Some(20))), "{words:?}");
        }
        assert_eq!(narrowed(&["outrider", "sessions"]), Some(("/v1/sessions".into(), None)));
        for wrong in [
            ["outrider", "sessions", "cache", "--workload", "shop"].as_slice(),
            &["outrider", "sessions", "--limit", "0"],
            &["outrider", "sessions", "--since", "1m"],
        ] {
            assert_eq!(narrowed(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_wrong_mode_is_told_the_right_ones() {
        let error = Args::try_parse_from(["outrider", "mode", "set", "cache", "block"]);
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("discover, monitor, protect")
        );
    }
}
