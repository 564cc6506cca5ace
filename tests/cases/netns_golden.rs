//! The real proxy asked as NeuVector's agent asked NeuVector's data path, in the same network and
//! under the same traffic: what it answers and tells is the same wherever the protocol says what it
//! has to be. `docs/wire.md` lists where it differs, and why.

#[path = "golden_ctrl/corpus.rs"]
mod corpus;
#[path = "netns_golden/network.rs"]
mod network;
#[path = "netns_golden/sums.rs"]
mod sums;

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use outrider_tests::{Pod, ctrl::Ctrl, require_netns, until};
use outrider_wire::{Kind, Reply, chunk::split, limits::MAX_RULES, request::Request};
use serde_json::Value;

use self::{
    network::{Network, Traffic},
    sums::{Sessions, Told},
};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// One of the transcript's pods, asked.
struct Asked<'a> {
    pod: &'a Pod,
    ctrl: Ctrl,
    told: Told,
}

impl Asked<'_> {
    /// Compares the replies to one request with the real ones, wherever they say something of this pod.
    fn compare(&self, text: &str, golden: &[Vec<u8>]) -> Result<()> {
        let kind = Kind(golden[0][0]);
        match kind {
            Kind::SESSION_LIST => return self.compare_sessions(golden),
            Kind::SESSION_COUNT if golden[0][4..].iter().all(|byte| *byte == 0) => {
                return until("every session to end", PATIENCE, || {
                    let found = self.ask(text, kind)?;
                    ensure!(found == golden, "{found:?}");
                    Ok(())
                });
            }
            _ => {}
        }
        let found = self.ask(text, kind)?;
        if kind == Kind::KEEP_ALIVE {
            ensure!(found == golden, "{text}: {found:?}");
        }
        let (last, real) = (found.last().context("a reply")?, golden.last().context("one")?);
        if matches!(kind, Kind::METER_LIST) {
            ensure!(last[..6] == real[..6], "the end of a list: {last:?}");
            return sums::same_meters(&found, golden);
        }
        ensure!(last.len() == real.len() && last[..4] == real[..4], "{text}: {last:?}");
        Ok(())
    }

    /// Sends a request and reads its replies to the last.
    fn ask(&self, text: &str, kind: Kind) -> Result<Vec<Vec<u8>>> {
        let mut replies = vec![self.ctrl.request(text.as_bytes())?];
        while replies.last().is_some_and(|reply| reply[1] == 1) {
            replies.push(self.ctrl.receive()?);
        }
        ensure!(replies.iter().all(|reply| reply[0] == kind.0), "{text}: {replies:?}");
        Ok(replies)
    }

    fn compare_sessions(&self, golden: &[Vec<u8>]) -> Result<()> {
        let mac = self.pod.addresses.mac.parse()?;
        let real = Sessions::read(golden)?.of(mac);
        ensure!(!real.is_empty(), "the real one had sessions");
        until("the sessions of the real one", PATIENCE, || {
            let found = self.ask(r#"{"ctrl_list_session":{}}"#, Kind::SESSION_LIST)?;
            let found = Sessions::read(&found)?.of(mac);
            let (more, missing) = (found.difference(&real), real.difference(&found));
            let (more, missing): (Vec<_>, Vec<_>) = (more.collect(), missing.collect());
            ensure!(found == real, "not of the real one: {more:?}; missing: {missing:?}");
            Ok(())
        })
    }
}

#[test]
fn a_pods_life_is_told_and_answered_as_by_the_real_data_path() -> Result<()> {
    require_netns!();
    let mut network = Network::build()?;
    network.start_proxies()?;
    let mut traffic = Traffic::default();
    let pods = [&network.one, &network.two];
    let asked = pods.map(|pod| -> Result<_> {
        Ok(Asked { pod, ctrl: Ctrl::connect(&pod.mailbox)?, told: Told::listen(pod)? })
    });
    let [one, two] = asked;
    let asked = [one?, two?];
    let lines = corpus::transcript("pod-lifecycle.jsonl")?;
    for (at, line) in lines.iter().enumerate() {
        if let Some(text) = line["text"].as_str().filter(|_| line["dir"] == "agent->dp") {
            let golden = replies_behind(&lines[at + 1..])?;
            for pod in &asked {
                if golden.is_empty() {
                    pod.ctrl.send(text.as_bytes())?;
                } else if !text.contains("stats_macs") || text.contains(&pod.pod.addresses.mac) {
                    pod.compare(text, &golden).context(text.to_owned())?;
                }
            }
        } else if line["dir"] == "note" {
            let note = line["text"].as_str().context("a note")?;
            network.play(note, &mut traffic).context(note.to_owned())?;
            if note.contains("dns server") {
                // It is seen by a tap, so a moment later than by who asked.
                asked[0].told.knows("www.example.test")?;
            } else if note.starts_with("traffic (client->pod2 now allowed") {
                // What quarantine ends is told with its last decision, if it was not told before.
                asked[1].told.has_met(20_002)?;
            }
        }
    }
    let real = Told::of(&lines)?;
    for pod in &asked {
        pod.told
            .comes_to(&real, pod.pod)
            .context(pod.pod.name.clone())?;
    }
    Ok(())
}

/// The replies that came before anything else was asked or done.
fn replies_behind(lines: &[Value]) -> Result<Vec<Vec<u8>>> {
    let until_next = lines
        .iter()
        .take_while(|line| line["dir"] == "dp->agent" && line["socket"] == "dp_client");
    until_next
        .map(|line| corpus::unhex(line["hex"].as_str().context("bytes")?))
        .collect()
}

/// Every request of the corpus and every input that was tried on the real one, to one proxy: it
/// answers what has an answer, to the byte where nothing happened yet, and lives.
#[test]
fn every_request_and_every_odd_input_is_answered_and_survived() -> Result<()> {
    require_netns!();
    let mut network = Network::build()?;
    network.one.start_proxy()?;
    let ctrl = Ctrl::connect(&network.one.mailbox)?;
    for (text, name) in FRESH {
        let reply = ctrl.request(text.as_bytes())?;
        let all = corpus::messages()?;
        let golden = all
            .iter()
            .find(|golden| golden.name == name)
            .context(name)?;
        let mut bytes = golden.bytes.clone();
        if name.ends_with("list-end") {
            bytes[6..8].fill(0); // not initialised in the real one
        }
        ensure!(reply == bytes, "{text}: {reply:?}");
    }
    let mut keys = BTreeSet::new();
    let requests = corpus::requests()?;
    for (number, request) in (1..).zip(&requests) {
        let key = request.about["key"].as_str().context("a key")?;
        keys.insert(key);
        ctrl.send(&request.bytes)?;
        let expected = REPLIES
            .iter()
            .find(|(of, _)| *of == key)
            .map(|(_, kind)| *kind);
        let kinds = kinds_before_keep_alive(&ctrl, 1_000_000 + number)?;
        let right = match expected {
            None => kinds.is_empty(),
            Some(kind) => !kinds.is_empty() && kinds.iter().all(|found| *found == kind),
        };
        ensure!(right, "{}: {kinds:?}", request.name);
    }
    ensure!(keys.len() == 37, "{} keys", keys.len());
    corpus::report(requests.len(), "requests to the real proxy", 89)?;
    for (number, case) in (1..).zip(corpus::robustness()?) {
        for request in case["requests"].as_array().context("requests")? {
            ctrl.send(&network::odd_input(request)?)?;
        }
        let kinds = kinds_before_keep_alive(&ctrl, 2_000_000 + number)?;
        let documented = case["replies"].as_array().map_or(0, Vec::len);
        ensure!(case["dp_survived"] == false || kinds.len() >= documented, "{case}: {kinds:?}");
    }
    network.one.proxy()?.check_running()
}

/// The largest policy there may be, in as many datagrams as it takes, and signs of life all the while.
#[test]
fn a_policy_of_a_quarter_of_a_million_rules_comes_into_force() -> Result<()> {
    require_netns!();
    let mut network = Network::build()?;
    network.one.start_proxy()?;
    let ctrl = Ctrl::connect(&network.one.mailbox)?;
    ctrl.send(br#"{"ctrl_add_mac":{"iface":"eth0","mac":"0a:58:0a:4d:01:05","pips":null}}"#)?;
    let mut alive = 0;
    for datagram in split(&network::policy(MAX_RULES)?, Request::CfgPolicy)? {
        ctrl.send(&datagram)?;
        alive += 1;
        if alive % 100 == 0 {
            ctrl.keep_alive(alive)?;
        }
    }
    until("the policy to be in force", PATIENCE * 4, || {
        alive += 1;
        ctrl.keep_alive(alive)?;
        let found = network.one.status()?["rules"]["exact"].as_u64();
        ensure!(found == Some(MAX_RULES as u64), "{found:?}");
        Ok(())
    })
}

/// What a data path answers before anything has happened.
const FRESH: [(&str, &str); 7] = [
    (r#"{"ctrl_keep_alive":{"seq_num":1}}"#, "keep_alive-seq1"),
    (r#"{"ctrl_count_session":{}}"#, "session_count-zero"),
    (r#"{"ctrl_list_session":{}}"#, "session_list-end"),
    (r#"{"ctrl_list_meter":{}}"#, "meter_list-end"),
    (r#"{"ctrl_stats_macs":{"macs":["0a:58:0a:4d:09:09"]}}"#, "mac_stats-unknown_mac"),
    (r#"{"ctrl_stats_device":{}}"#, "device_stats-fresh"),
    (r#"{"ctrl_counter_device":{}}"#, "device_counter-fresh"),
];

/// Keys that are answered, and by what.
const REPLIES: [(&str, Kind); 7] = [
    ("ctrl_keep_alive", Kind::KEEP_ALIVE),
    ("ctrl_stats_macs", Kind::MAC_STATS),
    ("ctrl_stats_device", Kind::DEVICE_STATS),
    ("ctrl_counter_device", Kind::DEVICE_COUNTER),
    ("ctrl_count_session", Kind::SESSION_COUNT),
    ("ctrl_list_session", Kind::SESSION_LIST),
    ("ctrl_list_meter", Kind::METER_LIST),
];

fn kinds_before_keep_alive(ctrl: &Ctrl, number: u32) -> Result<Vec<Kind>> {
    ctrl.send(format!(r#"{{"ctrl_keep_alive":{{"seq_num":{number}}}}}"#).as_bytes())?;
    let mut kinds = Vec::new();
    loop {
        let reply = Reply::decode_exact(&ctrl.receive()?)?;
        match &reply {
            Reply::KeepAlive(alive) if alive.seq_num == number => return Ok(kinds),
            other => kinds.push(other.kind()),
        }
    }
}
