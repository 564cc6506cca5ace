//! Rows as the controller has them.

use std::{net::IpAddr, sync::Arc};

use outrider_api::share::ClusConnection;
use outrider_learn::{Directory, Row};
use outrider_model::IpProto;
use outrider_wire::{Connection, ConnectionFlags};

use super::{
    settings::ControllerSettings,
    table::{Key, Sum},
};
use crate::mailbox::watch::Workload;

/// An address that others know.
const GLOBAL: &str = "global";
/// One that means something on its host only.
const HOST: &str = "host";

/// A row of a workload's proxy, as it is summed. `own` are this node's addresses.
pub(super) fn read(
    (row, found): (&Row, &Connection),
    workload: &Workload,
    directory: &Directory,
    own: &[IpAddr],
) -> (Key, Sum) {
    let (local, peer) =
        if row.inbound { (row.server, row.client) } else { (row.client, row.server) };
    let is_external = found.flags.contains(ConnectionFlags::EXTERNAL);
    let name = (is_external && !row.inbound)
        .then(|| {
            directory
                .names()
                .of(&workload.uid, row.server, row.first_seen)
        })
        .flatten();
    let has_port = matches!(row.proto, IpProto::TCP | IpProto::UDP | IpProto::SCTP);
    let key = Key {
        uid: Arc::from(workload.uid.as_str()),
        client: row.client,
        server: row.server,
        port: if has_port { row.port } else { 0 },
        proto: row.proto,
        rule: row.rule,
        app: row.app,
        flags: found.flags.0,
    };
    let sum = Sum {
        client_port: row.client_port.unwrap_or_default(),
        bytes: row.bytes,
        sessions: row.sessions,
        violations: row.violations,
        first_seen: row.first_seen,
        last_seen: row.last_seen,
        threat: row.threat,
        severity: found.severity.0,
        action: row.action,
        local_peer: own.contains(&peer),
        is_global: workload.addresses.contains(&local),
        name,
        gauges: (found.ep_sess_cur_in, found.ep_sess_in_12, found.ep_byte_in_12),
    };
    (key, sum)
}

/// What is sent for a key. Numbers stay at their highest value rather than begin again.
pub(super) fn message(
    key: &Key,
    sum: &Sum,
    us: &ControllerSettings,
    log_uid: &str,
) -> ClusConnection {
    let flags = ConnectionFlags(key.flags);
    let has = |flag| flags.contains(flag);
    let ingress = has(ConnectionFlags::INGRESS);
    let workload = |is_it: bool| if is_it { key.uid.to_string() } else { String::new() };
    let (ep_sess_cur_in, ep_sess_in12, ep_byte_in12) = sum.gauges;
    ClusConnection {
        agent_id: us.agent_id.clone(),
        host_id: us.host_id.clone(),
        client_wl: workload(!ingress),
        server_wl: workload(ingress),
        client_ip: octets(key.client),
        server_ip: octets(key.server),
        scope: if sum.is_global { GLOBAL } else { HOST }.into(),
        // Pods of a cluster have one network, without a name.
        network: String::new(),
        client_port: sum.client_port.into(),
        server_port: key.port.into(),
        ip_proto: key.proto.0.into(),
        application: key.app.0,
        bytes: sum.bytes,
        sessions: highest(sum.sessions),
        first_seen_at: highest(sum.first_seen),
        last_seen_at: highest(sum.last_seen),
        threat_id: sum.threat.0,
        severity: sum.severity.into(),
        policy_action: sum.action.to_wire().into(),
        ingress,
        external_peer: has(ConnectionFlags::EXTERNAL),
        local_peer: sum.local_peer,
        policy_id: key.rule.0,
        violates: highest(sum.violations),
        log_uid: log_uid.to_owned(),
        xff: has(ConnectionFlags::XFF),
        svc_ext_ip: has(ConnectionFlags::SVC_EXTIP),
        to_sidecar: false,
        mesh_to_svr: has(ConnectionFlags::MESH_TO_SVR),
        link_local: has(ConnectionFlags::LINK_LOCAL),
        tmp_open: has(ConnectionFlags::TMP_OPEN),
        uwl_ip: has(ConnectionFlags::UWLIP),
        fqdn: sum.name.as_deref().unwrap_or_default().to_owned(),
        ep_sess_cur_in,
        ep_sess_in12,
        ep_byte_in12,
        nbe: has(ConnectionFlags::CHK_NBE),
        nbe_sns: has(ConnectionFlags::NBE_SNS),
    }
}

fn highest(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}
