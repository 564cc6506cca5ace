//! A real cluster, black box: what `make e2e` proves once a cluster is up and has the images.
//!
//! Everything goes through kubectl and Helm, as a person would do it; KUBECONFIG says which cluster.
#![forbid(unsafe_code)]

mod bridge;
mod helm;
mod kubectl;
mod manifests;
mod stage;
mod steps;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, builder::FalseyValueParser};
use serde_json::{Map, Value};

use crate::helm::Helm;
use crate::kubectl::Kubectl;
use crate::manifests::Images;
use crate::stage::{Previous, Sidecar, Stage};
use crate::steps::{Choice, Summary};

/// What stands for Helm unless told otherwise.
const HELM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/helm");

/// Runs every step against the cluster that KUBECONFIG names.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    /// Where the cluster takes Outrider's images and busybox from.
    #[arg(long, env = "OUTRIDER_E2E_REPOSITORY", default_value = "outrider.local")]
    repository: String,
    /// Tag of those images.
    #[arg(long, env = "OUTRIDER_E2E_TAG", default_value = "e2e")]
    tag: String,
    /// Tag of the images to upgrade to; without it the upgrade is skipped.
    #[arg(long, env = "OUTRIDER_E2E_NEXT_TAG")]
    next_tag: Option<String>,
    /// Chart of another revision, which is upgraded from and rolled back to instead of everything else.
    #[arg(long, env = "OUTRIDER_E2E_PREVIOUS_CHART", requires = "previous_tag")]
    previous_chart: Option<String>,
    /// Tag of that revision's images.
    #[arg(long, env = "OUTRIDER_E2E_PREVIOUS_TAG")]
    previous_tag: Option<String>,
    /// Program that stands for Helm, with the verbs that `e2e/cluster/helm` has.
    #[arg(long, env = "OUTRIDER_E2E_HELM", default_value = HELM)]
    helm: PathBuf,
    /// Directory that has `kubectl-outrider` in it; without one the plugin is not tried.
    #[arg(long, env = "OUTRIDER_E2E_PLUGINS")]
    plugins: Option<PathBuf>,
    /// The nodes' directory of the kubelet; without it CSI volumes are not tried.
    #[arg(long, env = "OUTRIDER_E2E_KUBELET")]
    kubelet: Option<String>,
    /// More values for the chart, as JSON.
    #[arg(long, env = "OUTRIDER_E2E_VALUES", default_value = "{}", value_parser = object)]
    values: Map<String, Value>,
    /// Leave what was installed where it is.
    #[arg(long)]
    keep: bool,
    /// Of the steps that others don't need, only those whose name has this in it.
    #[arg(long, env = "OUTRIDER_E2E_ONLY")]
    only: Option<String>,
    /// A step that cannot be tried fails the run.
    #[arg(long, env = "OUTRIDER_REQUIRE_CLUSTER", value_parser = FalseyValueParser::new())]
    require: bool,
}

fn object(text: &str) -> serde_json::Result<Map<String, Value>> {
    serde_json::from_str(text)
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let previous = cli.previous_chart.zip(cli.previous_tag);
    let stage = Stage {
        kubectl: Kubectl { plugins: cli.plugins },
        images: Images { repository: cli.repository, tag: cli.tag },
        next_tag: cli.next_tag,
        previous: previous.map(|(chart, tag)| Previous { chart, tag }),
        helm: Helm(cli.helm),
        values: cli.values.into(),
        kubelet: cli.kubelet,
        sidecar: Sidecar::Native,
    };
    let choice = Choice { keep: cli.keep, only: cli.only };
    let Summary { passed, failed, skipped } = steps::run(stage, &choice);
    eprintln!("{passed} passed, {failed} failed, {skipped} skipped");
    let missing = cli.require && skipped > 0;
    if failed == 0 && !missing { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
