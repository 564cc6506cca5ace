use outrider_model::PolicyAction;
use outrider_wire::{Connection, ConnectionFlags, Connections, Notification};

use super::*;
use crate::{
    mailbox::{
        receive::Report,
        watch::{Change, Workload},
    },
    node::{
        Node,
        bare::{restored, workload},
    },
    store::Store,
};

/// One session from pod 1 to pod 2, as one of their proxies tells it.
fn tell(node: &Node, end: u8) {
    let row = Connection {
        flags: ConnectionFlags::NONE.with(ConnectionFlags::INGRESS, end == 2),
        client_ip: std::net::Ipv4Addr::new(10, 0, 0, 1).into(),
        server_ip: std::net::Ipv4Addr::new(10, 0, 0, 2).into(),
        server_port: 80,
        sessions: 1,
        bytes: 100,
        policy_action: PolicyAction::Learn.into(),
        ..Connection::default()
    };
    let notes = vec![Notification::from(Connections { rows: vec![row] })];
    node.enter(&Report { uid: format!("pod-{end}").into(), batch: None, notes, room: None });
}

fn sessions(node: &Node) -> u64 {
    let state = node.state.lock();
    state.learner.conversations().map(|one| one.sessions).sum()
}

async fn later(node: &Node) {
    tokio::time::advance(PATIENCE + Duration::from_secs(1)).await;
    node.update_roster(&[], Vec::new());
}

#[tokio::test(start_paused = true)]
async fn clients_speak_for_a_server_whose_proxy_is_away_and_no_longer_than_that() {
    let dir = tempfile::tempdir().unwrap();
    let node = restored(&Store::open(&dir.path().join("bridge.redb"), 1).unwrap());
    node.update_roster(&[1, 2].map(|at| Change::Present(workload(at))), Vec::new());
    let links = [1, 2].map(|at| node.attach(&format!("pod-{at}")).unwrap());
    let connect = |at: usize, connected| {
        links[at - 1]
            .state
            .send_modify(|state| state.connected = connected);
        node.update_roster(&[], Vec::new());
    };
    connect(1, true);
    tell(&node, 1);
    assert_eq!(sessions(&node), 0, "it may be here in a moment");
    later(&node).await;
    tell(&node, 1);
    assert_eq!(sessions(&node), 1);
    let other = Workload { name: "default/renamed".into(), ..workload(2) };
    node.update_roster(&[Change::Present(other)], Vec::new());
    tell(&node, 1);
    assert_eq!(sessions(&node), 2, "it is entered anew and as silent as before");
    connect(2, true);
    assert_eq!(sessions(&node), 0);
    for end in [1, 2, 2] {
        tell(&node, end);
    }
    assert_eq!(sessions(&node), 2, "what it saw it tells itself");
    connect(2, false);
    later(&node).await;
    tell(&node, 1);
    assert_eq!(sessions(&node), 3);
}
