//! Open flows, asked of the proxies.

use std::{net::SocketAddr, sync::Arc};

use outrider_wire::{Session, SessionFlags};

use super::{Node, Refusal, report};
use crate::{
    api::lists::{Picked, Selection},
    mailbox::link::Command,
};

impl Node {
    /// Open flows of one workload, or of all, in order of workload and number. Only proxies whose
    /// flows may be on the page are asked; those that do not answer are missing.
    ///
    /// # Errors
    /// When there is no workload of that name.
    pub(crate) async fn sessions(
        self: &Arc<Self>,
        asked: &Selection,
    ) -> Result<Picked<outrider_api::Session>, Refusal> {
        let mut whom = self.workloads_of(asked.workload())?;
        whom.sort_by(|one, other| one.name.cmp(&other.name));
        let first = asked.begin().split('\0').next().unwrap_or_default();
        whom.retain(|workload| workload.name.as_str() >= first);
        let mut answers = self.ask_these(whom, Command::Sessions);
        let mut picked = Picked::default();
        while !picked.is_full(asked)
            && let Some((workload, sessions)) = answers.next().await
        {
            let all: Vec<_> = sessions
                .iter()
                .filter_map(|found| read(found, &workload.name))
                .collect();
            asked.pick_more(&mut picked, &all);
        }
        Ok(picked)
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
