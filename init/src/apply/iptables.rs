//! The iptables tools: which build of them, and one restore call a family.

use std::fs;
use std::path::Path;
use std::thread;

use super::state::Observed;
use super::tool;
use super::{Outcome, netlink};
use crate::InitError;
use crate::plan::{Family, Plan, Table};
use crate::render::iptables::{removal_input, restore_input, table_name};
use crate::settings::Variant;

/// A build of the tools; its name in the middle of the programs' names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Build {
    Nft,
    Legacy,
    Plain,
}

/// One build that works, and what it sees, in the order of [`Family::ALL`].
struct Candidate {
    build: Build,
    seen: [Observed; 2],
}

impl Build {
    fn program(self, family: Family, verb: &str) -> String {
        let tool = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        match self {
            Self::Nft => format!("{tool}-nft-{verb}"),
            Self::Legacy => format!("{tool}-legacy-{verb}"),
            Self::Plain => format!("{tool}-{verb}"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Nft => "iptables over nf_tables",
            Self::Legacy => "legacy iptables",
            Self::Plain => "iptables",
        }
    }

    fn is_allowed(self, variant: Variant) -> bool {
        match variant {
            Variant::Auto => true,
            Variant::Nft => self == Self::Nft,
            Variant::Legacy => self == Self::Legacy,
        }
    }

    /// Whether there is anything to see: asking the tool costs two processes, asking the kernel nothing.
    fn may_hold_rules(self) -> Result<bool, InitError> {
        match self {
            Self::Nft => nft_has_tables(),
            Self::Legacy => Ok(legacy_has_tables()),
            Self::Plain => Ok(true),
        }
    }

    /// This build in a namespace without rules.
    fn empty(self) -> Candidate {
        Candidate { build: self, seen: Default::default() }
    }

    fn look(self) -> Result<Candidate, InitError> {
        let seen = both(|family| {
            tool::run(&self.program(family, "save"), &[], "").map(|text| Observed::parse(&text))
        })?;
        Ok(Candidate { build: self, seen })
    }

    /// Runs the restore tool for both families at once; `input` makes its text.
    fn restore(self, input: impl Fn(Family, usize) -> String + Sync) -> Result<(), InitError> {
        both(|family| {
            let text = input(family, family as usize);
            if text.is_empty() {
                return Ok(String::new());
            }
            let arguments = ["--noflush", "--wait", LOCK_SECONDS];
            tool::run(&self.program(family, "restore"), &arguments, &text)
        })?;
        Ok(())
    }
}

/// How long the tools wait for another program that changes rules.
const LOCK_SECONDS: &str = "10";

impl Candidate {
    fn is_clean(&self) -> bool {
        self.seen.iter().all(Observed::is_clean)
    }

    fn has_others(&self) -> bool {
        self.seen.iter().any(|seen| seen.others)
    }

    fn install(&self, plan: &Plan) -> Result<Outcome, InitError> {
        self.build
            .restore(|family, at| restore_input(plan, family, &self.seen[at].ours))?;
        let changed = self.is_clean() || {
            let now = self.build.look()?;
            now.seen
                .iter()
                .zip(&self.seen)
                .any(|(now, before)| now.lines != before.lines)
        };
        Ok(Outcome { tools: self.build.name().to_owned(), changed })
    }

    fn remove(&self) -> Result<(), InitError> {
        self.build
            .restore(|_, at| removal_input(&self.seen[at].ours))
    }
}

/// Installs the plan with the first build that takes it.
pub(super) fn apply(plan: &Plan, variant: Variant) -> Result<Outcome, InitError> {
    let candidates = candidates()?;
    let mut first_error = None;
    for candidate in candidates
        .iter()
        .filter(|candidate| candidate.build.is_allowed(variant))
    {
        match candidate.install(plan) {
            Ok(mut outcome) => {
                outcome.changed |= remove_others(candidate.build, &candidates)?;
                return Ok(outcome);
            }
            // What was in force is still in force; another build would only add to it.
            Err(error) if !candidate.is_clean() => return Err(error),
            Err(error) => {
                undo(candidate.build);
                first_error.get_or_insert(error);
            }
        }
    }
    Err(first_error
        .unwrap_or_else(|| InitError::ToolMissing("iptables-restore of that variant".to_owned())))
}

/// Removes our rules from every build that has some, without asking tools where the kernel has no tables.
pub(super) fn remove_if_any() -> Result<Outcome, InitError> {
    let mut tools = Vec::new();
    if nft_has_tables()? || legacy_has_tables() {
        for candidate in candidates()?
            .iter()
            .filter(|candidate| !candidate.is_clean())
        {
            candidate.remove()?;
            tools.push(candidate.build.name());
        }
    }
    let changed = !tools.is_empty();
    let tools = if changed { tools.join(" and ") } else { "nothing to remove".to_owned() };
    Ok(Outcome { tools, changed })
}

/// A first installation failed half-way: takes back what it may have left.
fn undo(build: Build) {
    // The error that matters is the one of the installation; this one would only hide it.
    drop(build.look().and_then(|candidate| candidate.remove()));
}

/// Two builds must not both redirect: removes what a run with another build left.
fn remove_others(build: Build, candidates: &[Candidate]) -> Result<bool, InitError> {
    let mut removed = false;
    for other in candidates
        .iter()
        .filter(|other| other.build != build && !other.is_clean())
    {
        other.remove()?;
        removed = true;
    }
    Ok(removed)
}

/// The builds that run, best first: one that has our rules, then one that has someone's, then the newer.
fn candidates() -> Result<Vec<Candidate>, InitError> {
    let mut found = Vec::new();
    let mut first_error = None;
    for build in [Build::Nft, Build::Legacy] {
        let looked = if build.may_hold_rules()? { build.look() } else { Ok(build.empty()) };
        match looked {
            Ok(candidate) => found.push(candidate),
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    found.extend(Build::Plain.look().ok().filter(|_| first_error.is_some()));
    found.sort_by_key(|candidate| (candidate.is_clean(), !candidate.has_others()));
    match first_error {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

/// Whether the newer build has any table in which we could have left something.
fn nft_has_tables() -> Result<bool, InitError> {
    for family in [netlink::IPV4, netlink::IPV6] {
        for table in [Table::Raw, Table::Nat, Table::Mangle, Table::Filter] {
            if netlink::table_exists(family, table_name(table))? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn legacy_has_tables() -> bool {
    ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"]
        .into_iter()
        .any(|path| fs::read(path).is_ok_and(|names| !names.is_empty()))
}

/// Whether the kernel has IPv6 at all.
fn ipv6_exists() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

/// Does the same for both families at once.
fn both<T: Default + Send>(
    work: impl Fn(Family) -> Result<T, InitError> + Sync,
) -> Result<[T; 2], InitError> {
    if !ipv6_exists() {
        return Ok([work(Family::V4)?, T::default()]);
    }
    thread::scope(|scope| {
        let other = scope.spawn(|| work(Family::V6));
        let v4 = work(Family::V4);
        let v6 = other
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok([v4?, v6?])
    })
}
