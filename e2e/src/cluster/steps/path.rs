//! How long a rule takes from kubectl to the verdict in a pod.

use std::{
    collections::BTreeMap,
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

/// Changes that are measured in a series; each is one `kubectl apply`.
const APPLIES: u32 = 40;
/// Objects that are there besides, and rules in each: together 1000.
const OBJECTS: u32 = 100;
const RULES: u32 = 10;
/// A change is in force by then, or something is wrong.
const DEADLINE: Duration = Duration::from_secs(60);

/// Asks without a pause and says each time whether it was answered.
const PROBE: &str = "while :; do
    timeout 5 wget -q -O /dev/null $URL 2>/dev/null && echo answered || echo refused
done";

/// Program, role, and ticks of the processor as user and system, of each of our processes in a pod.
const USED: &str = r"for process in /proc/[0-9]*; do
    case $(cat $process/comm 2>/dev/null) in outrider-*) ;; *) continue ;; esac
    grep -q pod $process/cgroup || continue
    echo $(tr '\0' ' ' <$process/cmdline | cut -d' ' -f1,2) $(cut -d' ' -f14,15 $process/stat)
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

    /// How long after `since` the first answer of that kind came, and the longest time between two until then.
    fn first(&self, answered: bool, since: Instant) -> Result<(Duration, Duration)> {
        let (mut last, mut pause) = (None, Duration::ZERO);
        loop {
            let left = DEADLINE.saturating_sub(since.elapsed());
            let (at, this) = self
                .answers
                .recv_timeout(left)
                .with_context(|| format!("{DEADLINE:?} and not answered: {answered}"))?;
            pause = pause.max(last.replace(at).map_or(Duration::ZERO, |last| at - last));
            if at > since && this == answered {
                return Ok((at - since, pause));
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
    series(stage, 0)?;
    stage.kubectl.apply(&crowd())?;
    let last = format!("crowd-{}", OBJECTS - 1);
    for name in ["crowd-0", &last] {
        policy::enforced(stage, name)?;
    }
    let measured = series(stage, OBJECTS * RULES);
    gone(stage)?;
    measured.map(|()| Passed)
}

/// Changes one rule again and again, beside so many others.
fn series(stage: &Stage, others: u32) -> Result<()> {
    let probe = Probe::start(&stage.url("server")?)?;
    probe.first(true, Instant::now())?;
    let (mut whole, mut kubectl) = (vec![], vec![]);
    let before = used(stage)?;
    let start = Instant::now();
    for number in 0..APPLIES {
        let allow = number % 2 == 1;
        let start = Instant::now();
        stage
            .kubectl
            .apply(&rule("way", if allow { "Allow" } else { "Deny" }, "prober"))?;
        kubectl.push(start.elapsed());
        whole.push(probe.first(allow, start)?);
        policy::enforced(stage, "way")?;
    }
    let took = start.elapsed();
    let after = used(stage)?;
    drop(probe);
    let slowest = (0..).zip(&whole).max_by_key(|(_, times)| times.0);
    if let Some((number, (whole, pause))) = slowest {
        let way = if number % 2 == 1 { "Allow" } else { "Deny" };
        eprintln!("slowest: change {number}, to {way}, {whole:.0?}, {pause:.0?} of it one request");
    }
    let mut whole: Vec<_> = whole.into_iter().map(|(whole, _)| whole).collect();
    whole.sort_unstable();
    kubectl.sort_unstable();
    let figures = |times: &[Duration]| {
        let millis = |part| quantile(times, part).as_millis();
        format!("p50 {} ms, p99 {} ms", millis(0.5), millis(0.99))
    };
    eprintln!(
        "{APPLIES} changes beside {others} rules, from the start of kubectl to the verdict: {}; of that kubectl until it ended: {}",
        figures(&whole),
        figures(&kubectl)
    );
    let used = after.iter().filter_map(|(role, seconds)| {
        let more = seconds - before.get(role)?;
        Some(format!("{role} {:.0} ms", more * 1000.0 / f64::from(APPLIES)))
    });
    eprintln!(
        "processor time a change: {}; it took {took:.0?}; the machine's load {}",
        used.collect::<Vec<_>>().join(", "),
        stage.on_node("cut -d' ' -f1-3 /proc/loadavg")?.trim()
    );
    Ok(())
}

/// Seconds of processor that pods' processes of ours have used, by program and role.
fn used(stage: &Stage) -> Result<BTreeMap<String, f64>> {
    let lines = stage.on_node(USED)?;
    let mut all = BTreeMap::new();
    for line in lines.lines() {
        let mut words = line.split_whitespace().rev();
        let mut ticks = || words.next().and_then(|word| word.parse::<f64>().ok());
        let (Some(system), Some(user)) = (ticks(), ticks()) else { continue };
        let role: Vec<_> = words.rev().collect();
        // Of a hundred a second, wherever Linux runs.
        *all.entry(role.join(" ")).or_default() += (system + user) / 100.0;
    }
    Ok(all)
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
