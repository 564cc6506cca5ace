//! A real cluster, black box: what `make e2e` proves once a cluster is up and has the images.
//!
//! Everything goes through kubectl, as a person would do it; KUBECONFIG says which cluster.
#![forbid(unsafe_code)]

mod bridge;
mod helm;
mod kubectl;
mod manifests;
mod steps;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, builder::FalseyValueParser};

use crate::helm::Helm;
use crate::manifests::Images;
use crate::steps::Summary;

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
    /// Program that stands for Helm, as `e2e/cluster/helm` does; without it Helm's step is skipped.
    #[arg(long, env = "OUTRIDER_E2E_HELM")]
    helm: Option<PathBuf>,
    /// Leave what was installed where it is.
    #[arg(long)]
    keep: bool,
    /// A step that cannot be tried fails the run.
    #[arg(long, env = "OUTRIDER_REQUIRE_CLUSTER", value_parser = FalseyValueParser::new())]
    require: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let images = Images { repository: cli.repository, tag: cli.tag };
    let Summary { passed, failed, skipped } = steps::run(&images, cli.helm.map(Helm), cli.keep);
    eprintln!("{passed} passed, {failed} failed, {skipped} skipped");
    let missing = cli.require && skipped > 0;
    if failed == 0 && !missing { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
