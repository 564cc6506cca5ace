//! What can be typed about policy.

use clap::{Args, Subcommand, ValueEnum};
use outrider_api::code::Form;
use outrider_model::Mode;

use super::source::Source;

const EXPORT_HELP: &str = "\
What people wrote is no part of it: that is objects already. Every learned rule is written at both ends, with the
sessions that it was learned from and the last of them as a comment. Pods are selected by the labels that all pods of
a service have and no other pod of the namespace; what has no words in a format is left out and said on standard error.

Examples:
  outrider policy export > policy.yaml              objects of outrider.dev/v1alpha1 to review and apply
  outrider policy export --mode protect             with every WorkloadMode in protect
  kubectl outrider policy export | kubectl apply --server-side --dry-run=server -f -
  outrider policy export --format networkpolicy     Kubernetes' own kind: ports, no applications";

const DIFF_HELP: &str = "\
Each of the two is a file, `-` for standard input, or

  learned   what `policy export` prints
  live      what people wrote: the bridge's file of policy, or the objects of the cluster

Rules are compared one by one: the order of objects and lists, the spelling of networks, comments and what goes without
saying make no difference. The exit code is 0 if both mean the same, 1 if not, 2 if that can't be said.

Examples:
  outrider policy diff policy.yaml learned          what was learned since
  outrider policy diff live policy.yaml             what importing the file would change
  kubectl outrider policy diff live policy.yaml     what applying the file would change
  outrider policy diff main.yaml branch.yaml --json";

const IMPORT_HELP: &str = "\
On a node, the bridge takes the file in place of the one that OUTRIDER_BRIDGE_POLICY names, if every object of it is
accepted: what is wrong is said with its field, and nothing is changed. It is written at once or not at all, with its
comments, and in force within a second. In a cluster the objects are applied by kubectl, after a dry run; objects that
the file does not have stay. What changes is printed as by `policy diff`.

A NetworkPolicy of Kubernetes is taken too, as two NetworkRules; names of ports and exceptions of networks are refused.
So are NeuVector's NvSecurityRule and NvClusterSecurityRule: flows become rules and modes, or the file is refused and
each line that can't be said is named; what is not about flows (processes, files, sensors, responses) is left out and said.

Examples:
  outrider policy import policy.yaml --dry-run
  git show main:policy.yaml | sudo outrider policy import -
  kubectl outrider policy import policy.yaml";

const REPLAY_HELP: &str = "\
Every conversation that the bridge knows is judged as the proxies would judge it, by what is in force and by the file in
place of what people wrote. What was learned still allows what was seen, unless --alone. What changes is printed with its
sessions; the exit code is 1 if anything would be denied that is allowed now.

Examples:
  outrider policy replay policy.yaml                       what importing it would refuse
  outrider policy replay policy.yaml --mode protect        if every workload were in protect, too
  outrider policy export | outrider policy replay - --alone --mode protect
                                                           whether what was learned says it all";

/// What may be done with policy as text.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Print what was learned as objects that people can review and apply
    #[command(after_help = EXPORT_HELP)]
    Export(Export),
    /// Say which rules, groups and modes differ between two policies
    #[command(after_help = DIFF_HELP)]
    Diff {
        /// The first: a file, `-`, `learned` or `live`
        before: Source,
        /// The second
        after: Source,
    },
    /// Bring a policy into force, after showing what is wrong with it and what it changes
    #[command(after_help = IMPORT_HELP)]
    Import {
        /// A file, or `-` for standard input
        file: Source,
        /// Change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Say which of the conversations that happened a policy would deny, before it is in force
    #[command(after_help = REPLAY_HELP)]
    Replay {
        /// A file, or `-` for standard input
        file: Source,
        /// As if nothing had been learned: what the file says is all there is
        #[arg(long)]
        alone: bool,
        /// As if every workload were in this mode: discover, monitor or protect
        #[arg(long, value_name = "MODE")]
        mode: Option<Mode>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Which kinds of objects
    #[arg(long, value_enum, default_value_t = Format::Outrider)]
    pub(super) format: Format,
    /// Write this mode for all groups in place of the one that each has: discover, monitor or protect
    #[arg(long, value_name = "MODE")]
    pub(super) mode: Option<Mode>,
}

/// Kinds of objects.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Format {
    /// `NetworkRule` and `WorkloadMode`
    Outrider,
    /// `NvSecurityRule`, for NeuVector
    Neuvector,
    /// `NetworkPolicy`, Kubernetes' own: ports only
    Networkpolicy,
}

impl From<Format> for Form {
    fn from(format: Format) -> Self {
        match format {
            Format::Outrider => Self::Outrider,
            Format::Neuvector => Self::NeuVector,
            Format::Networkpolicy => Self::NetworkPolicy,
        }
    }
}
