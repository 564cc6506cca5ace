//! A Job's pod with a classic sidecar: when the work has ended, the bridge tells the proxy to end too. It finishes
//! what is open, tells all it has seen, and ends with 0.

#[path = "netns_jobs/api.rs"]
mod api;

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use outrider_tests::{
    Node, Pod, World,
    exchange::{End, exchange},
    require_netns, until,
};
use serde_json::{Value, json};

use self::api::Api;

/// The work's end is heard, told and carried out within this, on a machine as busy as may be.
const PATIENCE: Duration = Duration::from_secs(40);
/// Where the server of a test listens.
const PORT: u16 = 7000;

/// What runs in the pods goes first, the world last.
struct Scene {
    job: Pod,
    /// The node does not know it, so that everything that is known of it is what the Job's proxy said.
    server: Pod,
    node: Node,
    api: Api,
    _world: World,
}

impl Scene {
    fn build() -> Result<Self> {
        let mut world = World::new()?;
        let (mut job, server) = (world.pod("job")?, world.pod("server")?);
        job.init()?;
        job.start_proxy_with(&[("OUTRIDER_PROXY_DRAIN_GRACE", "60s")])?;
        // The API server says who is here.
        for pod in [&job, &server] {
            std::fs::remove_file(&pod.workload_file)?;
        }
        let working = json!({ "running": {} });
        let api = Api::start(world.node(), pod(&job, &working))?;
        let file = api.kubeconfig(&world)?;
        let settings = [("OUTRIDER_BRIDGE_KUBE", &*file), ("OUTRIDER_BRIDGE_NODE", "here")];
        let node = world.start_node_with(&settings)?;
        node.connected(&[&job])?;
        Ok(Self { job, server, node, api, _world: world })
    }

    fn work_ends(&self) {
        let ended = json!({ "terminated": { "exitCode": 0 } });
        self.api.put(pod(&self.job, &ended));
    }

    /// The proxy ends by itself, and well.
    fn proxy_ends(&mut self) -> Result<()> {
        let status = self.job.wait_for_proxy(PATIENCE)?;
        ensure!(status.code() == Some(0), "the proxy ended with {status}");
        Ok(())
    }

    /// The bridge knows so many sessions and bytes of the Job's at a port, at once: the proxy has ended, and does so
    /// only when what it told is stored.
    fn knows(&self, port: u16, is: impl Fn(u64, u64) -> bool) -> Result<()> {
        let rows = self.node.conversations()?;
        let own = rows
            .iter()
            .filter(|row| row.client == self.job.workload() && row.port == port);
        let (sessions, bytes) =
            own.fold((0, 0), |sum, row| (sum.0 + row.sessions, sum.1 + row.bytes));
        let logs = || -> Result<String> {
            let files = self.job.logs()?.into_iter().chain(self.node.logs());
            let texts = files.map(std::fs::read_to_string);
            Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
        };
        ensure!(is(sessions, bytes), "{sessions} sessions, {bytes} bytes: {rows:#?}\n{}", logs()?);
        Ok(())
    }
}

/// The Job's pod as the API server shows it.
fn pod(job: &Pod, work: &Value) -> Value {
    let status = |name: &str, state: &Value| {
        json!({ "name": name, "ready": false, "restartCount": 0, "image": "", "imageID": "",
            "state": state })
    };
    let proxy = status("outrider-proxy", &json!({ "running": {} }));
    json!({
        "metadata": { "name": job.name, "namespace": "default", "uid": format!("uid-{}", job.name),
            "resourceVersion": "2" },
        "spec": { "nodeName": "here", "restartPolicy": "OnFailure",
            "volumes": [{ "name": "outrider-mailbox" }],
            "containers": [{ "name": "outrider-proxy" }, { "name": "work" }] },
        "status": { "phase": "Running",
            "podIPs": [{ "ip": job.addresses.v4 }, { "ip": job.addresses.v6 }],
            "containerStatuses": [proxy, status("work", work)] },
    })
}

#[test]
fn the_proxy_of_a_job_that_is_done_ends_well_and_has_told_everything() -> Result<()> {
    require_netns!();
    let mut scene = Scene::build()?;
    scene.server.serve_nginx()?;
    let url = format!("http://{}/", scene.server.ip(false));
    for _ in 0..3 {
        scene.job.fetch(&url)?;
    }
    scene.work_ends();
    scene.proxy_ends()?;
    scene.knows(80, |sessions, bytes| sessions == 3 && bytes > 0)
}

#[test]
fn an_open_connection_is_finished_before_the_proxy_of_a_job_ends() -> Result<()> {
    require_netns!();
    let mut scene = Scene::build()?;
    let address = scene.server.at(false, PORT);
    let listener = scene
        .server
        .netns
        .enter(|| Ok(TcpListener::bind(address)?))?;
    let mut client = scene.job.netns.enter(|| Ok(TcpStream::connect(address)?))?;
    let mut server = listener.accept()?.0;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    pass(&mut client, &mut server, b"before")?;
    scene.work_ends();
    until("the proxy to take nothing new", PATIENCE, || {
        let seen = exchange(&scene.job.netns, address, b"", Duration::from_secs(1))?;
        ensure!(seen.end == End::Refused, "{:?}", seen.end);
        Ok(())
    })?;
    ensure!(!scene.job.proxy()?.has_ended()?, "it does not wait for the connection");
    pass(&mut client, &mut server, b"behind")?;
    pass(&mut server, &mut client, b"answer")?;
    drop((client, server, listener));
    scene.proxy_ends()?;
    scene.knows(PORT, |_, bytes| bytes == 18)
}

/// Sends bytes one way through the proxy.
fn pass(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8; 6]) -> Result<()> {
    from.write_all(bytes)?;
    let mut arrived = [0; 6];
    to.read_exact(&mut arrived)
        .context("what was sent does not arrive")?;
    if arrived != *bytes {
        bail!("{bytes:?} arrived as {arrived:?}");
    }
    Ok(())
}
