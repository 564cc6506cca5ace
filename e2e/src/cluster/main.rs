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

use clap::Parser;

use crate::helm::Helm;
use crate::manifests::Images;

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
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let images = Images { repository: cli.repository, tag: cli.tag };
    let (passed, failed) = steps::run(&images, cli.helm.map(Helm), cli.keep);
    eprintln!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
