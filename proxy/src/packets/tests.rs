use std::net::SocketAddr;

use outrider_model::{AppId, Direction, IpProto, Mode, PolicyAction, RuleId, ThreatId, names};
use outrider_packet::{
    Limits,
    build::{self, Talk},
};
use outrider_policy::{AddrSpec, AppRule, Network, PolicySpec, RuleSpec, Snapshot};
use outrider_relay::{PolicyView, Relay};
use outrider_telemetry::{CutReason, Identification, Row, RowKey};

use super::*;
use crate::testing::{assemble, settings};

mod floods;
mod overhearing;
mod questions;
mod sessions;
mod silent;

pub(super) const RULE: RuleId = RuleId(10_001);
/// A peer of the pod, whose addresses are those of the golden data.
pub(super) const PEER: &str = "10.77.1.9:4000";
pub(super) const POD: &str = "10.77.1.5:53";

/// Everything but sockets.
pub(super) struct Rig {
    pub(super) context: SharedContext,
    pub(super) scene: Scene,
    pub(super) watch: Watch,
    pub(super) questions: Questions,
    pub(super) relay: Relay,
    now: Duration,
    _dir: tempfile::TempDir,
}

impl Rig {
    pub(super) fn new(view: PolicyView) -> Self {
        Self::with(view, Limits::default())
    }

    pub(super) fn with(view: PolicyView, limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (context, relay, _) = assemble(settings(dir.path(), &[]));
        context.policy.store(view.into());
        let scene = Scene {
            telemetry: context.telemetry.clone(),
            law: relay.law().clone(),
            dpi: relay.dpi().clone(),
            metering: Arc::clone(&context.metering),
        };
        let mut watch = Watch::new(context.clone(), scene.clone(), limits);
        watch.set_gates(Gates { tcp: true, other: true });
        Self {
            context,
            scene,
            watch,
            questions: Questions::default(),
            relay,
            now: Duration::ZERO,
            _dir: dir,
        }
    }

    /// The tap shows a packet.
    pub(super) fn show(&mut self, packet: &[u8]) {
        self.now += Duration::from_millis(1);
        self.watch.packet(self.now, packet, packet.len());
    }

    /// The queue asks about a packet; the tap shows it before or after, if it ever does.
    pub(super) fn queue(&mut self, packet: &[u8], hook: u8) -> Answer {
        if hook == LOCAL_IN {
            self.show(packet);
        }
        let peek = self.watch.peek(packet, packet.len());
        let pod = self.context.identity.load();
        let answer =
            self.questions
                .ask(&self.scene, &pod, hook == LOCAL_IN, peek.as_ref(), self.now);
        let unseen = is_shown_by_nobody(hook, answer, true);
        if unseen || (hook == LOCAL_OUT && answer != Answer::Drop) {
            self.show(packet);
        }
        answer
    }

    pub(super) fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.watch.advance(self.now);
        self.questions.advance(self.now);
    }

    pub(super) fn swap(&mut self, view: PolicyView) {
        let version = self.context.policy.load().version + 1;
        self.context
            .policy
            .store(PolicyView { version, ..view }.into());
        self.relay.rejudge();
        self.watch.rule();
    }

    pub(super) fn rows(&self) -> Vec<(RowKey, Row)> {
        self.context.telemetry.settle();
        self.context.telemetry.rows().lock().take()
    }

    pub(super) fn row(&self) -> (RowKey, Row) {
        let rows = self.rows();
        let [row] = &rows[..] else { panic!("{rows:#?}") };
        row.clone()
    }
}

const LOCAL_IN: u8 = 1;

pub(super) fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(super) fn udp(src: &str, dst: &str, payload: &[u8]) -> Vec<u8> {
    build::udp(at(src), at(dst), payload)
}

pub(super) fn echo(reply: bool, sequence: u16) -> Vec<u8> {
    let (peer, pod) = (at(PEER).ip(), at(POD).ip());
    let (src, dst) = if reply { (pod, peer) } else { (peer, pod) };
    build::echo(src, dst, reply, (7, sequence), b"0123456789")
}

/// A question for the address of `a`.
pub(super) const QUESTION: &[u8] =
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01";

/// One rule for everything.
pub(super) fn all(mode: Mode, action: PolicyAction) -> PolicyView {
    view(mode, vec![rule(None, action, &[])])
}

/// What applications say of the one rule there is; the default action is the mode's.
pub(super) fn apps(mode: Mode, apps: &[(AppId, PolicyAction)]) -> PolicyView {
    view(mode, vec![rule(None, PolicyAction::CheckApp, apps)])
}

pub(super) fn rule(
    proto: Option<IpProto>,
    action: PolicyAction,
    apps: &[(AppId, PolicyAction)],
) -> RuleSpec {
    RuleSpec {
        id: RULE,
        client: AddrSpec::Any,
        server: AddrSpec::Any,
        ports: (0, u16::MAX),
        proto,
        action,
        direction: Direction::Inbound,
        fqdn: None,
        vhost: false,
        apps: apps
            .iter()
            .map(|&(app, action)| AppRule { app, action, rule: RULE })
            .collect(),
    }
}

/// Rules for both directions.
pub(super) fn view(mode: Mode, mut rules: Vec<RuleSpec>) -> PolicyView {
    let outbound: Vec<_> = rules
        .iter()
        .map(|rule| RuleSpec { direction: Direction::Outbound, ..rule.clone() })
        .collect();
    rules.extend(outbound);
    let spec = PolicySpec {
        default_action: mode.default_action(),
        inbound: true,
        outbound: true,
        rules,
        grace: false,
    };
    let snapshot = Snapshot::compile(Some(&spec), &Network::default()).unwrap();
    PolicyView { snapshot, mode, managed: true, quarantined: false, version: 1 }
}

#[tokio::test(start_paused = true)]
async fn looking_at_packets_begins_again_after_a_panic_and_is_not_ready_before_it_says_so() {
    let rig = Rig::new(all(Mode::Protect, PolicyAction::Deny));
    let (context, stop) = (&rig.context, CancellationToken::new());
    let lives = std::cell::Cell::new(0);
    let life = async |not_ready| {
        lives.set(lives.get() + 1);
        assert_eq!(context.readiness.waits_for(), [NAME]);
        assert!(lives.get() > 1, "a packet brings it down");
        drop(not_ready);
        stop.cancel();
    };
    keep(context, context.readiness.guard(NAME), &stop, life).await;
    assert_eq!((lives.get(), context.restarts.with(&[NAME]).get()), (2, 1));
    assert!(context.readiness.waits_for().is_empty());
}
