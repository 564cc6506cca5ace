//! Simulated proxies by the hundred, in front of one real bridge: real sockets, the real protocol,
//! traffic that is made up.
//!
//! The proxies live in this process, on two threads: the honest ones share one, whoever does harm
//! is on the other. Nothing here needs root.

pub mod cost;
pub mod everything;
pub mod member;
pub mod mischief;
pub mod traffic;

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, de::DeserializeOwned};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinSet};

use crate::{binaries, cli::Conversation, process::Process, wait::until};
use cost::Cost;
use member::{Manner, Member, Tally};
use mischief::Mischief;
use traffic::{Pair, Traffic};

/// How long the bridge may take to answer at first.
const START: Duration = Duration::from_secs(120);
/// How long it may take to reach and program every proxy.
const CONNECT: Duration = Duration::from_secs(180);
/// How long what is under way may take to be acknowledged.
const SETTLE: Duration = Duration::from_secs(180);

/// Who is there and what they do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Proxies, honest and other.
    pub size: u32,
    /// Of those, how many speak as NeuVector's data path does: no batches, no hello.
    pub foreign: u32,
    /// Who does harm; the last ones of all.
    pub mischief: Vec<Mischief>,
    /// What the honest ones report.
    pub traffic: Traffic,
    /// Time from the begin of one report to the begin of the next; zero for the next one once the
    /// last is acknowledged.
    pub pace: Duration,
    /// The bridge's default mode.
    pub mode: &'static str,
}

/// What everybody is to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// Answer requests.
    Quiet,
    /// Report as well.
    Report,
}

/// A bridge and its proxies; both end when it is dropped.
#[derive(Debug)]
pub struct Crowd {
    plan: Plan,
    bridge: Process,
    phase: watch::Sender<Phase>,
    tallies: Vec<Arc<Tally>>,
    /// Datagrams that those sent who do harm.
    harm: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
    dir: TempDir,
}

/// The bridge's own account.
#[derive(Clone, Debug, Deserialize)]
pub struct Account {
    /// Proxies that answer.
    pub proxies_connected: u64,
    /// Conversations kept.
    pub conversations: u64,
    /// Kinds of violations kept.
    pub violations: u64,
    /// Rules learned.
    pub rules: u64,
    /// What came in, by kind.
    pub received: BTreeMap<String, u64>,
    /// What was not used, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// The store.
    pub store: Store,
}

/// The store's account.
#[derive(Clone, Debug, Deserialize)]
pub struct Store {
    /// Transactions.
    pub commits: u64,
}

/// What the bridge says of one workload.
#[derive(Clone, Debug, Deserialize)]
struct Workload {
    name: String,
    proxy: String,
    connects: u64,
}

impl Crowd {
    /// Starts proxies and bridge and waits until every honest one is programmed.
    pub fn start(plan: Plan) -> Result<Self> {
        raise_descriptors()?;
        let dir = tempfile::tempdir()?;
        let (phase, follow) = watch::channel(Phase::Quiet);
        let harmful = u32::try_from(plan.mischief.len())?;
        let honest = plan
            .size
            .checked_sub(harmful)
            .context("more harm than proxies")?;
        let mut good = Vec::new();
        let mut tallies = Vec::new();
        for number in 0..honest {
            let mailbox = make_mailbox(dir.path(), number)?;
            let manner = if number < plan.foreign { Manner::Foreign } else { Manner::Ours };
            let tally = Arc::new(Tally::default());
            tallies.push(Arc::clone(&tally));
            good.push(Member { number, manner, mailbox, tally, phase: follow.clone() });
        }
        let bad: Vec<_> = (honest..plan.size)
            .zip(plan.mischief.iter().copied())
            .collect();
        let mailboxes: Result<Vec<_>> = bad
            .iter()
            .map(|(number, _)| make_mailbox(dir.path(), *number))
            .collect();
        let bad: Vec<_> = bad.into_iter().zip(mailboxes?).collect();
        let (traffic, pace) = (plan.traffic, plan.pace);
        let mut threads = Vec::new();
        let (harm, done) = (Arc::new(AtomicU64::new(0)), follow.clone());
        let mischief = Arc::clone(&harm);
        threads.push(live(done, move |all| {
            for member in good {
                member.join(all, traffic, pace)?;
            }
            Ok(())
        }));
        threads.push(live(follow.clone(), move |all| {
            for ((number, mischief), mailbox) in bad {
                let sent = Arc::clone(&harm);
                mischief.join(all, (number, &mailbox), follow.clone(), sent)?;
            }
            Ok(())
        }));
        let bridge = start_bridge(dir.path(), plan.mode)?;
        let mut crowd = Self { plan, bridge, phase, tallies, harm: mischief, threads, dir };
        crowd.connect()?;
        Ok(crowd)
    }

    /// Waits until the bridge answers and every proxy that does has been programmed.
    fn connect(&mut self) -> Result<()> {
        let socket = self.dir.path().join("api.sock");
        self.bridge
            .ready(START, || ask::<Account>(&socket, "/v1/status").map(drop))?;
        let answer = self
            .plan
            .mischief
            .iter()
            .filter(|one| one.answers())
            .count();
        let wanted = u64::try_from(self.tallies.len() + answer)?;
        until("every proxy to be programmed", CONNECT, || {
            let found = self.account()?.proxies_connected;
            ensure!(found >= wanted, "{found} of {wanted}");
            Ok(())
        })
    }

    /// Lets everybody report.
    pub fn go(&self) {
        self.phase.send_replace(Phase::Report);
    }

    /// Ends the reports and waits until the last of them are acknowledged.
    pub fn halt(&self) -> Result<()> {
        self.phase.send_replace(Phase::Quiet);
        until("the last reports to be acknowledged", SETTLE, || {
            let busy = self.tallies.iter().filter(|tally| tally.is_busy()).count();
            ensure!(busy == 0, "{busy} proxies still wait");
            Ok(())
        })
    }

    /// What each honest proxy did, by number.
    #[must_use]
    pub fn tallies(&self) -> &[Arc<Tally>] {
        &self.tallies
    }

    /// Datagrams that those sent who do harm.
    #[must_use]
    pub fn harm(&self) -> u64 {
        self.harm.load(Ordering::Relaxed)
    }

    /// Rows that honest proxies are done with.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.rows()).sum()
    }

    /// What the bridge has cost so far.
    pub fn cost(&self) -> Result<Cost> {
        Cost::of(self.bridge.pid())
    }

    /// The bridge's own account.
    pub fn account(&self) -> Result<Account> {
        self.ask("/v1/status")
    }

    /// Asks the bridge's REST API.
    pub fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        ask(&self.dir.path().join("api.sock"), path)
    }

    /// Every conversation's sessions and bytes, by who talks to whom.
    pub fn conversations(&self) -> Result<BTreeMap<Pair, (u64, u64)>> {
        let binary = binaries::find("outrider")?;
        let bridge = format!("unix:{}", self.dir.path().join("api.sock").display());
        let mut command = Command::new(binary);
        command
            .args(["conversations", "--json"])
            .env("OUTRIDER_BRIDGE", bridge);
        let mut sums = BTreeMap::<_, (u64, u64)>::new();
        for line in crate::process::run(&mut command)?.lines() {
            let found: Conversation =
                serde_json::from_str(line).with_context(|| line.to_owned())?;
            let pair = Pair { client: found.client, server: found.server, port: found.port };
            let sum = sums.entry(pair).or_default();
            *sum = (sum.0 + found.sessions, sum.1 + found.bytes);
        }
        Ok(sums)
    }

    /// Fails unless every honest proxy's link was made once and never lost: one keep-alive missed
    /// would have ended it.
    pub fn never_parted(&self) -> Result<()> {
        let all: Vec<Workload> = self.ask("/v1/workloads")?;
        ensure!(all.len() == self.plan.size as usize, "{} workloads", all.len());
        let honest: BTreeMap<_, _> = (0..)
            .zip(&self.tallies)
            .map(|(at, _)| (traffic::name(at), at))
            .collect();
        let lost: Vec<_> = all
            .iter()
            .filter(|one| honest.contains_key(&one.name))
            .filter(|one| one.connects != 1 || one.proxy != "connected")
            .collect();
        ensure!(lost.is_empty(), "{} links were lost: {:?}", lost.len(), lost.first());
        Ok(())
    }

    /// Fails unless the bridge comes to have, of what honest proxies reported, every session and byte
    /// once.
    pub fn sums_are_exact(&self) -> Result<()> {
        // What was not acknowledged may be under way still.
        until("the sums to be exact", SETTLE, || self.compare_sums())
    }

    fn compare_sums(&self) -> Result<()> {
        let mut expected = BTreeMap::<Pair, (u64, u64)>::new();
        for (number, tally) in (0..).zip(&self.tallies) {
            for (key, sum) in tally.sums.lock().iter() {
                expected.insert(key.pair(number), *sum);
            }
        }
        let mut found = self.conversations()?;
        let honest: Vec<_> = (0..)
            .zip(&self.tallies)
            .map(|(at, _)| traffic::name(at))
            .collect();
        found.retain(|pair, _| honest.contains(&pair.server) && expected.contains_key(pair));
        ensure!(
            found.len() == expected.len(),
            "{} of {} conversations",
            found.len(),
            expected.len()
        );
        for (pair, sum) in expected {
            let had = found.get(&pair).copied().unwrap_or_default();
            ensure!(had == sum, "{pair:?}: {had:?} instead of {sum:?}");
        }
        Ok(())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // Without a sender, whoever follows the phase ends.
        self.phase = watch::channel(Phase::Quiet).0;
        for thread in self.threads.drain(..) {
            let _ended = thread.join();
        }
    }
}

/// A thread of its own for what `join` starts; it ends when the phase's sender is gone.
fn live(
    mut phase: watch::Receiver<Phase>,
    join: impl FnOnce(&mut JoinSet<()>) -> Result<()> + Send + 'static,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            let mut all = JoinSet::new();
            if let Err(error) = join(&mut all) {
                eprintln!("crowd: {error:#}");
                return;
            }
            while phase.changed().await.is_ok() {}
        });
    })
}

fn start_bridge(dir: &Path, mode: &str) -> Result<Process> {
    let mut command = Command::new(binaries::find("outrider-agent-bridge")?);
    command
        .arg("bridge")
        .env("OUTRIDER_PODS_DIR", dir.join("pods"))
        .env("OUTRIDER_BRIDGE_STORE", dir.join("bridge.redb"))
        .env("OUTRIDER_BRIDGE_SOCKET", dir.join("api.sock"))
        .env("OUTRIDER_BRIDGE_GRPC_SOCKET", dir.join("grpc.sock"))
        .env("OUTRIDER_BRIDGE_API", "127.0.0.1:0")
        .env("OUTRIDER_BRIDGE_METRICS_PORT", "0")
        .env("OUTRIDER_BRIDGE_DEFAULT_MODE", mode)
        .env("OUTRIDER_BRIDGE_LOG", "warn")
        .env("RUST_BACKTRACE", "1");
    Process::spawn("the bridge", command, &dir.join("bridge.log"))
}

/// Each proxy has two sockets here, and its mailbox four descriptors in the bridge, which is our child.
fn raise_descriptors() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// One mailbox and its workload file.
fn make_mailbox(dir: &Path, number: u32) -> Result<PathBuf> {
    let pods = dir.join("pods");
    let mailbox = pods.join(traffic::uid(number));
    fs::create_dir_all(&mailbox)?;
    let name = traffic::service(number);
    let workload = serde_json::json!({
        "uid": traffic::uid(number), "name": name, "namespace": traffic::NAMESPACE, "service": name,
        "addresses": [traffic::address(number)], "mac": traffic::mac(number).to_string(),
        "labels": {},
    });
    fs::write(pods.join(format!("{}.json", traffic::uid(number))), workload.to_string())?;
    Ok(mailbox)
}

/// One question over the unix socket.
fn ask<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(START))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8(answer)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP")?;
    ensure!(head.contains(" 200 "), "{head} {body}");
    serde_json::from_str(body).with_context(|| body.chars().take(200).collect::<String>())
}
