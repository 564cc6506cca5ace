//! What the tests of this crate share: a context without sockets, flows without tasks, golden data.

use std::{path::Path, path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use outrider_dpi::DpiConfig;
use outrider_model::{AppId, Decision, Direction, FlowKey, IpProto, MacAddr, PolicyAction, Side};
use outrider_relay::{Relay, RelaySettings};
use outrider_telemetry::{FlowGuard, Identification, Registry, Telemetry};
use outrider_wire::ext::Instance;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    context::{Context, SharedContext, restarts},
    ctrl::{Beginning, CtrlMetrics, State, begin},
    dns::{DnsMetrics, Names},
    identity::Identity,
    packets::{Metering, PacketMetrics, PortBoard, PortMetrics},
    readiness::Readiness,
    rights::Rights,
    settings::{Env, Settings},
};

/// The pod of the golden data.
pub(crate) const POD_MAC: MacAddr = MacAddr([0x0a, 0x58, 0x0a, 0x4d, 0x01, 0x05]);

/// An environment of pairs.
pub(crate) struct Pairs(pub(crate) Vec<(&'static str, String)>);

impl Env for Pairs {
    fn get(&self, key: &str) -> Option<String> {
        self.0
            .iter()
            .find(|(known, _)| *known == key)
            .map(|(_, value)| value.clone())
    }

    fn keys(&self) -> Vec<String> {
        self.0.iter().map(|(key, _)| (*key).to_owned()).collect()
    }
}

/// Settings whose directories are `dir`.
pub(crate) fn settings(dir: &Path, more: &[(&'static str, &str)]) -> Settings {
    let mut pairs = vec![("OUTRIDER_CTRL_DIR", dir.display().to_string())];
    pairs.extend(more.iter().map(|(key, value)| (*key, (*value).to_owned())));
    Settings::read(&Pairs(pairs)).unwrap()
}

/// A context of the golden pod, its relay, and the state to begin with.
pub(crate) fn assemble(settings: Settings) -> (SharedContext, Relay, State) {
    let identity = pod();
    let Beginning { state, view } = begin(&settings, &identity).unwrap();
    let registry = Registry::default();
    let telemetry = Telemetry::new(&registry).unwrap();
    let policy = Arc::new(ArcSwap::from_pointee(view));
    let dns = DnsMetrics::register(&registry).unwrap();
    let configured = state.network().names.clone();
    let names = Names::new(Arc::clone(&policy), configured, dns.clone());
    let metering = Metering::new(
        &settings.meters,
        &DpiConfig::default(),
        telemetry.clone(),
        Arc::clone(&policy),
        &registry,
    );
    let relay = Relay::new(
        RelaySettings::default(),
        Arc::clone(&policy),
        Arc::new(DpiConfig::default()),
        telemetry.clone(),
    );
    let context = Context {
        settings,
        rights: Rights::default(),
        instance: Instance(0x1234),
        identity: ArcSwap::from_pointee(identity),
        policy,
        names: Arc::new(names),
        telemetry,
        ctrl: CtrlMetrics::register(&registry).unwrap(),
        dns,
        legs: Arc::clone(relay.legs()),
        packets: PacketMetrics::register(&registry).unwrap(),
        metering: metering.unwrap(),
        ports: PortBoard::new(PortMetrics::register(&registry).unwrap()),
        restarts: restarts(&registry).unwrap(),
        registry,
        readiness: Readiness::default(),
        alone: CancellationToken::new(),
        log: None,
        started: Instant::now(),
    };
    (Arc::new(context), relay, state)
}

/// The golden pod's interfaces.
pub(crate) fn pod() -> Identity {
    let addresses = ["10.77.1.5".parse().unwrap(), "fd77:1::5".parse().unwrap()];
    Identity::new(vec![POD_MAC], addresses)
}

/// A key of an inbound flow to port `port` of the golden pod.
pub(crate) fn inbound(client: &str, port: u16) -> FlowKey {
    FlowKey {
        client: client.parse().unwrap(),
        server: ([10, 77, 1, 5], port).into(),
        proto: IpProto::TCP,
        direction: Direction::Inbound,
    }
}

/// A live flow that was identified and carried so many bytes from the client.
pub(crate) fn flow(telemetry: &Telemetry, key: FlowKey, app: AppId, bytes: u64) -> FlowGuard {
    let decision = Decision { action: PolicyAction::Learn, ..Decision::default() };
    let flow = telemetry.open(key, decision);
    flow.establish();
    flow.identify(Identification::Known(app));
    flow.count(Side::Client, bytes);
    flow
}

/// The golden data of the ctrl protocol.
pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden/ctrl")
        .join(name)
}
