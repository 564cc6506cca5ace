//! What can go wrong, which exit code says so, and what to do next.

use crate::settings::Mistake;

/// Why init could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// Settings that cannot be used; all of them.
    #[error("{}", list(.0))]
    Settings(Vec<Mistake>),
    /// The kernel refused for want of a capability.
    #[error(
        "not permitted: {0}\nnext: run as uid 0 with NET_ADMIN (and NET_RAW for the legacy tools) in the pod's \
         network namespace; in Kubernetes, securityContext.capabilities.add of the init container"
    )]
    Privilege(String),
    /// A tool that init calls is not there.
    #[error(
        "tool not found: {0}\nnext: install iptables (Debian: apt-get install iptables) or choose --backend nft \
         where nft is there"
    )]
    ToolMissing(String),
    /// A tool or the kernel refused the rules.
    #[error(
        "rules refused: {0}\nnext: the rules that were in force before are still there; see `outrider-init plan` \
         for the text, and try --iptables-variant nft or legacy, or --backend nft"
    )]
    Refused(String),
    /// The kernel has the packet queue for iptables, and not for nft.
    #[error(
        "rules refused: {0}\nnext: this kernel has no packet queue for nft; choose --backend iptables, or --queue off. \
         The rules that were in force before are still there"
    )]
    NoQueue(String),
    /// The kernel refused an address, a route, or the flush.
    #[error(
        "kernel refused to {what}: {source}\nnext: run the same command again; it continues where it stopped"
    )]
    Kernel {
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// Rules were installed, and traffic does not follow them.
    #[error(
        "verification failed:\n{0}\nnext: run `outrider-init apply` and look for other programs that change rules"
    )]
    Verify(String),
    /// Input or output of our own failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl InitError {
    /// The exit code; documented in `--help` and docs/init.md.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Io(_) => 1,
            Self::Settings(_) => 2,
            Self::Privilege(_) => 3,
            Self::ToolMissing(_) => 4,
            Self::Refused(_) | Self::NoQueue(_) | Self::Kernel { .. } => 5,
            Self::Verify(_) => 6,
        }
    }
}

fn list(mistakes: &[Mistake]) -> String {
    let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
