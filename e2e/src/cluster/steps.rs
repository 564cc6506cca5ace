//! What is proved, one function a step, in the order of the product's own story.

mod csi;
mod faults;
mod ground;
mod install;
mod jobs;
mod path;
mod plugin;
mod policy;
mod removal;
mod rights;
mod skew;
mod traffic;

use anyhow::{Context as _, Result};
use tokio::time::Instant;

use crate::kubectl::Kubectl;
use crate::manifests::SYSTEM;
use crate::stage::{Sidecar, Stage, seconds};

/// The oldest minor version whose kubelets have native sidecars by default.
const NATIVE_SINCE: u32 = 29;

/// What a step came to, if nothing was wrong.
enum Outcome {
    /// All of it was seen.
    Passed,
    /// It cannot be tried here, and why.
    Skipped(&'static str),
}

use Outcome::{Passed, Skipped};

/// Of a step that needs the controller.
const NOT_CONTROLLED: Outcome = Skipped("the release has no controller (controller.enabled)");

struct Step {
    name: &'static str,
    run: fn(&Stage) -> Result<Outcome>,
    /// Whether the steps after it need what it leaves.
    needed: bool,
}

const fn needed(name: &'static str, run: fn(&Stage) -> Result<Outcome>) -> Step {
    Step { name, run, needed: true }
}

const fn step(name: &'static str, run: fn(&Stage) -> Result<Outcome>) -> Step {
    Step { name, run, needed: false }
}

const STEPS: &[Step] = &[
    step("what this runs on", ground::told),
    needed("real Helm installs the chart, all of it gets ready", install::install),
    step("the chart's own test passes", install::test),
    needed("three workloads of a labelled namespace are injected and start", traffic::start),
    needed("what they say to each other is learned", traffic::learned),
    step("a Job with a proxy asks a server and ends", jobs::ends),
    needed("they are put into Protect, their traffic goes on", policy::protected),
    step("an intruder is refused and reported", policy::intruder),
    step("kubectl get says what there is", policy::shown),
    step("an object that makes no sense is refused with field and reason", policy::refused),
    step("each role may do what it needs and nothing else", rights::proved),
    step("kubectl outrider, by tunnels into the pods", plugin::works),
    step("webhook away: only labelled namespaces get no new pods", faults::webhook_away),
    step("bridge killed: traffic goes on, its counts add up", faults::bridge_killed),
    step("a rollout under load fails no request", traffic::rollout),
    step("controller killed: another one leads, a new rule holds", faults::controller_killed),
    step("a rule's way from kubectl to the verdict, alone and beside 1000 rules", path::measured),
    step("Helm upgrades, one part a version ahead at a time", install::upgrade),
];

/// What is done instead if there is another revision.
const SKEW: &[Step] = &[
    step("what this runs on", ground::told),
    needed("real Helm installs the chart of another revision", skew::installed),
    needed("three workloads of a labelled namespace are injected and start", traffic::start),
    needed("what they say to each other is learned", traffic::learned),
    needed("they are put into Protect, their traffic goes on", policy::protected),
    needed("rules and modes get there while all is of that revision", skew::begun),
    needed("Helm upgrades: newer webhook and controller, older bridges", skew::controller_first),
    needed("newer bridges, older proxies", skew::bridges_next),
    needed("pods get newer proxies", skew::proxies_last),
    needed("Helm rolls back: older webhook and controller, newer bridges", skew::controller_back),
    needed("older bridges, newer proxies; then older proxies", skew::bridges_back),
    needed("Helm upgrades again, all at once", skew::forth_again),
];

/// What is done if nothing is to stay.
const LAST: &[Step] = &[
    needed("Helm removes it: no pod is harmed, nothing stays", removal::uninstall),
    step("mailboxes as CSI volumes", csi::mounted),
];

/// How many steps ended in which way.
#[derive(Default)]
pub(crate) struct Summary {
    /// Seen to hold.
    pub(crate) passed: u32,
    /// Not seen to hold.
    pub(crate) failed: u32,
    /// Not tried.
    pub(crate) skipped: u32,
}

/// What of it is done.
pub(crate) struct Choice {
    /// Nothing is removed at the end.
    pub(crate) keep: bool,
    /// Part of the names of those steps that are wanted.
    pub(crate) only: Option<String>,
}

/// Runs the steps, up to the first failed one that others need. What is expected of injection is found out.
pub(crate) fn run(mut stage: Stage, choice: &Choice) -> Summary {
    let mut summary = Summary::default();
    stage.sidecar = match sidecar_of(&stage.kubectl) {
        Ok(sidecar) => sidecar,
        Err(error) => {
            eprintln!("FAILED the cluster does not answer: {error:#}");
            summary.failed = 1;
            return summary;
        }
    };
    let wanted = |step: &Step| {
        step.needed
            || choice
                .only
                .as_ref()
                .is_none_or(|part| step.name.contains(part))
    };
    let (steps, last) = if stage.previous.is_some() { (SKEW, &LAST[..1]) } else { (STEPS, LAST) };
    for one in steps.iter().filter(|step| wanted(step)) {
        if !summary.run(&stage, one) {
            return summary;
        }
    }
    if !choice.keep {
        for one in last.iter().filter(|step| wanted(step)) {
            if !summary.run(&stage, one) {
                return summary;
            }
        }
    }
    summary
}

impl Summary {
    /// Runs one step; whether others may follow.
    fn run(&mut self, stage: &Stage, step: &Step) -> bool {
        let start = Instant::now();
        match (step.run)(stage) {
            Ok(Passed) => {
                eprintln!("ok {} ({:.1} s)", step.name, seconds(start));
                self.passed += 1;
            }
            Ok(Skipped(reason)) => {
                eprintln!("SKIPPED {}: {reason}", step.name);
                self.skipped += 1;
            }
            Err(error) => {
                eprintln!("FAILED {} ({:.1} s): {error:#}", step.name, seconds(start));
                explain(&stage.kubectl);
                self.failed += 1;
                return !step.needed;
            }
        }
        true
    }
}

fn sidecar_of(kubectl: &Kubectl) -> Result<Sidecar> {
    let version = kubectl.json(&["version"])?;
    let server = &version["serverVersion"];
    let minor = server["minor"].as_str().context("no version")?;
    let minor: u32 = minor.trim_end_matches('+').parse()?;
    let sidecar = if minor >= NATIVE_SINCE { Sidecar::Native } else { Sidecar::Classic };
    eprintln!("Kubernetes {}: {sidecar:?} sidecars", server["gitVersion"]);
    Ok(sidecar)
}

/// Prints what a person would look at first.
fn explain(kubectl: &Kubectl) {
    let logs = |what| ["logs", "--namespace", SYSTEM, what, "--tail=12", "--all-containers"];
    for arguments in [
        &["get", "pods", "--all-namespaces", "--output=wide"][..],
        &["get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"],
        &logs("daemonset/outrider-bridge"),
        &logs("deployment/outrider-controller"),
        &logs("deployment/outrider-webhook"),
    ] {
        let text = kubectl
            .run(arguments)
            .unwrap_or_else(|error| format!("{error:#}"));
        let lines: Vec<_> = text.lines().collect();
        let tail = lines.len().saturating_sub(30);
        eprintln!("{}", lines.get(tail..).unwrap_or_default().join("\n"));
    }
}
