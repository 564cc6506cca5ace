//! How long a rule takes from kubectl to the verdict in a pod.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::policy::{self, object, rule};
use super::{NOT_CONTROLLED, Outcome, Passed};
use crate::kubectl::until;
use crate::manifests::STAGE;
use crate::stage::{Stage, quantile};

/// Changes that are measured; each is one `kubectl apply`.
const APPLIES: usize = 40;
/// Objects that are there besides, and rules in each: together 1000.
const OBJECTS: u32 = 100;
const RULES: u32 = 10;
/// A change is in force by then, or something is wrong.
const DEADLINE: Duration = Duration::from_secs(60);

/// Asks without a pause and says each time whether it was answered.
const PROBE: &str = "while :; do
    timeout 5 wget -q -O /dev/null $URL 2>/dev/null && echo answered || echo refused
done";

/// A pod that asks without a pause.
struct Probe {
    kubectl: Child,
    answers: Receiver<(Instant, bool)>,
}

impl Probe {
    fn start(url: &str) -> Result<Self> {
        let script = PROBE.replace("$URL", url);
        let place = ["exec", "--namespace", STAGE, "deployment/prober", "--container", "workload"];
        let mut kubectl = Command::new("kubectl")
            .args(place)
            .args(["--", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(kubectl.stdout.take().context("no output")?).lines();
        let (send, answers) = sync_channel(4096);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if send.send((Instant::now(), line == "answered")).is_err() {
                    break;
                }
            }
        });
        Ok(Self { kubectl, answers })
    }

    /// When the first answer of that kind came after `since`.
    fn first(&self, answered: bool, since: Instant) -> Result<Instant> {
        loop {
            let left = DEADLINE.saturating_sub(since.elapsed());
            let (at, this) = self
                .answers
                .recv_timeout(left)
                .with_context(|| format!("{DEADLINE:?} and not answered: {answered}"))?;
            if at > since && this == answered {
                return Ok(at);
            }
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // Nothing to be done about one that has ended by itself.
        drop(self.kubectl.kill());
        drop(self.kubectl.wait());
    }
}

/// Rules that concern the same server and let in addresses that nobody has.
fn crowd() -> Value {
    let rules = |object: u32| -> Vec<Value> {
        (0..RULES)
            .map(|rule| {
                json!({
                    "name": format!("rule-{rule}"), "action": "Allow", "ports": [format!("tcp/{}", 9000 + rule)],
                    "peers": [{"cidr": format!("198.18.{object}.{rule}/32")}],
                })
            })
            .collect()
    };
    let items: Vec<_> = (0..OBJECTS)
        .map(|number| {
            let target = json!({"podSelector": {"matchLabels": {"app": "server"}}});
            let spec = json!({"priority": 10, "target": target, "ingress": rules(number)});
            object("NetworkRule", &format!("crowd-{number}"), &spec)
        })
        .collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

pub(super) fn measured(stage: &Stage) -> Result<Outcome> {
    if !stage.controlled() {
        return Ok(NOT_CONTROLLED);
    }
    stage.kubectl.apply(&crowd())?;
    let last = format!("crowd-{}", OBJECTS - 1);
    for name in ["crowd-0", &last] {
        policy::enforced(stage, name)?;
    }
    let probe = Probe::start(&stage.url("server")?)?;
    probe.first(true, Instant::now())?;
    let (mut whole, mut kubectl) = (vec![], vec![]);
    for number in 0..APPLIES {
        let allow = number % 2 == 1;
        let start = Instant::now();
        stage
            .kubectl
            .apply(&rule("way", if allow { "Allow" } else { "Deny" }, "prober"))?;
        kubectl.push(start.elapsed());
        whole.push(probe.first(allow, start)?.duration_since(start));
        policy::enforced(stage, "way")?;
    }
    drop(probe);
    whole.sort_unstable();
    kubectl.sort_unstable();
    let figures = |times: &[Duration]| {
        let millis = |part| quantile(times, part).as_millis();
        format!("p50 {} ms, p99 {} ms", millis(0.5), millis(0.99))
    };
    let count = OBJECTS * RULES;
    eprintln!(
        "{APPLIES} changes beside {count} rules, from the start of kubectl to the verdict: {}",
        figures(&whole)
    );
    eprintln!("of that kubectl until it ended: {}", figures(&kubectl));
    ensure!(whole.len() == APPLIES);
    gone(stage)?;
    Ok(Passed)
}

/// Takes all of it away again.
fn gone(stage: &Stage) -> Result<()> {
    let delete = ["delete", "networkrules", "--all", "--namespace", STAGE];
    stage.kubectl.run(&delete)?;
    until("no rule", || {
        let left =
            stage
                .kubectl
                .run(&["get", "networkrules", "--namespace", STAGE, "--output=name"])?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })
}
