//! Open flows, asked of the proxies.

use std::{net::SocketAddr, time::Duration};

use outrider_wire::{Session, SessionFlags};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{Node, Refusal, report};
use crate::mailbox::link::Command;

/// How long all proxies together may take.
const ANSWER_TIME: Duration = Duration::from_secs(12);

/// A workload and the answer of its proxy.
type Asked = (String, oneshot::Receiver<Vec<Session>>);

impl Node {
    /// The open flows of one workload, or of all; those of proxies that do not answer are missing.
    ///
    /// # Errors
    /// When there is no workload of that name.
    pub async fn sessions(
        &self,
        workload: Option<&str>,
    ) -> Result<Vec<outrider_api::Session>, Refusal> {
        let asked = self.ask(workload)?;
        let end = Instant::now() + ANSWER_TIME;
        let mut all = Vec::new();
        for (name, answer) in asked {
            match timeout_at(end, answer).await {
                Ok(Ok(sessions)) => {
                    all.extend(sessions.iter().filter_map(|found| read(found, &name)));
                }
                _ => tracing::debug!(workload = name, "no list of sessions"),
            }
        }
        Ok(all)
    }

    /// Asks every proxy that is concerned and connected.
    fn ask(&self, workload: Option<&str>) -> Result<Vec<Asked>, Refusal> {
        let state = self.state.lock();
        let only = match workload {
            Some(name) => Some(
                state
                    .roster
                    .named(name)
                    .map_err(|why| Refusal::from((name, why)))?
                    .uid
                    .clone(),
            ),
            None => None,
        };
        let mut asked = Vec::new();
        for found in state.roster.all() {
            let Some(link) = state
                .links
                .get(&found.uid)
                .filter(|link| link.is_connected())
            else {
                continue;
            };
            if only.as_ref().is_some_and(|only| *only != found.uid) {
                continue;
            }
            let (answer, answered) = oneshot::channel();
            if link.commands.try_send(Command::Sessions(answer)).is_ok() {
                asked.push((found.name.clone(), answered));
            }
        }
        Ok(asked)
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
