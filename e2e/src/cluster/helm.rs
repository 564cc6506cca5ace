//! Real Helm, as a child process.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};

/// Program that takes `install NAME CHART`, `upgrade NAME CHART` and `uninstall NAME`.
pub(crate) struct Helm(pub(crate) PathBuf);

impl Helm {
    /// Runs one verb in a namespace.
    pub(crate) fn run(&self, namespace: &str, arguments: &[&str]) -> Result<()> {
        let output = Command::new(&self.0)
            .args(arguments)
            .env("HELM_NAMESPACE", namespace)
            .output()
            .with_context(|| self.0.display().to_string())?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "helm {arguments:?}: {}", complaint.trim());
        Ok(())
    }
}
