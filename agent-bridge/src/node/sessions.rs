//! Open flows, asked of the proxies.

use std::{net::SocketAddr, sync::Arc};

use outrider_wire::{Session, SessionFlags};

use super::{Node, Refusal, report};
use crate::mailbox::link::Command;

impl Node {
    /// The open flows of one workload, or of all; those of proxies that do not answer are missing.
    ///
    /// # Errors
    /// When there is no workload of that name.
    pub async fn sessions(
        self: &Arc<Self>,
        workload: Option<&str>,
    ) -> Result<Vec<outrider_api::Session>, Refusal> {
        let mut answers = self.ask_each(workload, Command::Sessions)?;
        let mut all = Vec::new();
        while let Some((workload, sessions)) = answers.next().await {
            all.extend(
                sessions
                    .iter()
                    .filter_map(|found| read(found, &workload.name)),
            );
        }
        Ok(all)
    }
}

fn read(session: &Session, workload: &str) -> Option<outrider_api::Session> {
    let client = SocketAddr::new(session.client_addr()?.to_canonical(), session.client_port);
    let server = SocketAddr::new(session.server_addr()?.to_canonical(), session.server_port);
    let inbound = session.flags.contains(SessionFlags::INGRESS);
    Some(outrider_api::Session {
        workload: workload.into(),
        id: session.id,
        direction: if inbound { "inbound" } else { "outbound" }.into(),
        client: client.to_string(),
        server: server.to_string(),
        app: session.application.to_string(),
        age: session.age.into(),
        idle: session.idle.into(),
        bytes_client: session.client.bytes.into(),
        bytes_server: session.server.bytes.into(),
        rule: session.policy_id.0,
        action: report::action(session.policy_action.known()),
    })
}
