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
  live      in a cluster, the objects that it has

Rules are compared one by one: the order of objects and lists, the spelling of networks, comments and what goes without
saying make no difference. The exit code is 0 if both mean the same, 1 if not, 2 if that can't be said.

Examples:
  outrider policy diff policy.yaml learned          what was learned since
  kubectl outrider policy diff live policy.yaml     what applying the file would change
  outrider policy diff main.yaml branch.yaml --json";

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
