//! kubectl as a child process, and waiting for what it says.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Between two looks at something that is waited for.
const INTERVAL: Duration = Duration::from_millis(500);
/// What is waited for has come by then, or never will. Long, since machines of CI are slow.
const PATIENCE: Duration = Duration::from_secs(180);

/// The cluster, as KUBECONFIG names it.
#[derive(Default)]
pub(crate) struct Kubectl {
    /// Directory of `kubectl-outrider`.
    pub(crate) plugins: Option<PathBuf>,
}

impl Kubectl {
    /// Runs kubectl to its end and returns what it printed.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String> {
        self.feed(arguments, "")
    }

    /// Runs kubectl and reads its output as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.run(&[arguments, &["--output=json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("kubectl {arguments:?} is no JSON"))
    }

    /// Applies one object.
    pub(crate) fn apply(&self, object: &Value) -> Result<()> {
        self.feed(&["apply", "--filename=-"], &object.to_string())?;
        Ok(())
    }

    /// Makes objects of which nothing stays but the answer; the answers.
    pub(crate) fn create(&self, objects: &[Value]) -> Result<Vec<Value>> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let text = self.feed(&["create", "--filename=-", "--output=json"], &list.to_string())?;
        // One object stands alone, several stand in a list or one after the other.
        let mut answers = vec![];
        for answer in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
            match answer? {
                Value::Object(mut list) if list.get("kind") == Some(&json!("List")) => {
                    let items = list.remove("items");
                    answers.extend(
                        items
                            .and_then(|items| items.as_array().cloned())
                            .into_iter()
                            .flatten(),
                    );
                }
                one => answers.push(one),
            }
        }
        Ok(answers)
    }

    /// Runs `kubectl outrider`.
    pub(crate) fn outrider(&self, arguments: &[&str]) -> Result<String> {
        self.run(&[&["outrider"], arguments].concat())
    }

    /// Runs a program in a pod's container.
    pub(crate) fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        program: &[&str],
    ) -> Result<String> {
        let place = ["exec", "--namespace", namespace, pod, "--container", container, "--"];
        self.run(&[&place, program].concat())
    }

    fn command(&self) -> Result<Command> {
        let mut command = Command::new("kubectl");
        if let Some(plugins) = &self.plugins {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let all = std::iter::once(plugins.clone()).chain(std::env::split_paths(&path));
            command.env("PATH", std::env::join_paths(all)?);
        }
        Ok(command)
    }

    fn feed(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut child = self
            .command()?
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("kubectl")?;
        child
            .stdin
            .take()
            .context("no input")?
            .write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {arguments:?}: {}", complaint.trim());
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Looks until `probe` finds what it looks for; after three minutes fails with what the last look found instead.
pub(crate) fn until<T>(what: &str, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(found) => return Ok(found),
            Err(error) if start.elapsed() >= PATIENCE => {
                bail!("waited {PATIENCE:?} for {what}: {error:#}")
            }
            Err(_not_yet) => sleep(INTERVAL),
        }
    }
}
