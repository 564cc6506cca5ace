//! What a proxy is told of policy, and what it says to that.

use std::{io, sync::Arc};

use super::{Channel, Desired, Link, LinkState, Refused, program};

impl Link {
    /// Says everything from the beginning.
    pub(super) async fn program(&mut self, channel: &Channel) -> io::Result<Arc<Desired>> {
        self.meet(channel).await?;
        let desired = Arc::clone(&self.desired.borrow_and_update());
        for request in program::everything(&desired)? {
            self.send(channel, &request).await?;
        }
        self.settle(channel).await?;
        let refused = self.refused(&desired);
        tracing::info!(
            rules = desired.policy.spec.rules.len(),
            mode = %desired.policy.mode,
            acks = self.proxy.is_some(),
            kept = desired.keeps_rules,
            refused = refused.is_some(),
            "the proxy is connected and was told its policy"
        );
        let proxy = self.proxy.clone();
        let before = self.state.borrow().refused.clone();
        self.state.send_modify(|state| {
            *state = LinkState {
                connected: true,
                connects: state.connects + 1,
                pushes: 1,
                applied: if refused.is_none() { desired.generation } else { 0 },
                refused: refused.clone(),
                proxy,
            };
        });
        self.judged(&desired, before.as_deref());
        Ok(desired)
    }

    /// Says what is different, and makes sure that it is in force.
    pub(super) async fn push(
        &mut self,
        channel: &Channel,
        applied: &mut Arc<Desired>,
    ) -> io::Result<()> {
        let desired = Arc::clone(&self.desired.borrow_and_update());
        let requests = program::difference(applied, &desired)?;
        for request in &requests {
            self.send(channel, request).await?;
        }
        if !requests.is_empty() {
            self.settle(channel).await?;
            tracing::info!(rules = desired.policy.spec.rules.len(), mode = %desired.policy.mode, "policy pushed");
        }
        let before = self.state.borrow().refused.clone();
        let refused = self.refused(&desired);
        self.state.send_modify(|state| {
            if refused.is_none() {
                state.applied = desired.generation;
            }
            state.refused.clone_from(&refused);
            state.pushes += u64::from(!requests.is_empty());
        });
        *applied = Arc::clone(&desired);
        self.judged(&desired, before.as_deref());
        Ok(())
    }

    /// What the proxy refuses of what it was told, as it said when that was to be in force.
    fn refused(&self, desired: &Desired) -> Option<Arc<Refused>> {
        // Nothing was told that it could refuse.
        let said = self.proxy.as_ref().filter(|_| !desired.keeps_rules)?;
        let why = said.refused.clone()?;
        Some(Arc::new(Refused { generation: desired.generation, why }))
    }

    /// Tells the node what became of a policy, if that is news.
    fn judged(&self, desired: &Desired, before: Option<&Refused>) {
        let state = self.state.borrow();
        let now = state.refused.as_deref();
        if before.map(|refused| &refused.why) != now.map(|refused| &refused.why) {
            let mode = state.proxy.as_ref().map(|said| said.mode.clone());
            self.node
                .judged(&desired.workload.name, desired.generation, now, mode);
        }
    }

    /// Has a proxy say what it enforces before it is told anything, if the store never knew.
    async fn meet(&mut self, channel: &Channel) -> io::Result<()> {
        let uid = self.desired.borrow().workload.uid.clone();
        let Some(greetings) = self.node.asks(&uid) else { return Ok(()) };
        for _ in 0..greetings {
            if self.proxy.is_some() {
                break;
            }
            let status = self.hello(channel).await?;
            self.keep_alive(channel).await?;
            status.into_iter().for_each(|status| self.is_ours(status));
        }
        self.node.met(&uid, self.proxy.as_deref());
        Ok(())
    }
}
