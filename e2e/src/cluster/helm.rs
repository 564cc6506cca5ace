//! Real Helm, as a child process.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};

/// Program that has Helm's verbs as `e2e/cluster/helm` takes them.
pub(crate) struct Helm(pub(crate) PathBuf);

impl Helm {
    /// Runs one verb in a namespace and waits until everything is as it has to be; what it printed.
    pub(crate) fn run(&self, namespace: &str, arguments: &[&str]) -> Result<String> {
        self.call(namespace, arguments, "watcher")
    }

    /// The same without waiting.
    pub(crate) fn begin(&self, namespace: &str, arguments: &[&str]) -> Result<String> {
        self.call(namespace, arguments, "hookOnly")
    }

    fn call(&self, namespace: &str, arguments: &[&str], wait: &str) -> Result<String> {
        let output = Command::new(&self.0)
            .args(arguments)
            .env("HELM_NAMESPACE", namespace)
            .env("HELM_WAIT", wait)
            .output()
            .with_context(|| self.0.display().to_string())?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "helm {arguments:?}: {said}{}", complaint.trim());
        Ok(said)
    }
}
