//! What was counted and learned about a Service's address before it was known whose it is.

use std::sync::Arc;

use crate::{ConversationKey, Endpoint, LearnError, Learner, Service};

impl Learner {
    /// Takes in a Service. What is known of its addresses moves to what is behind them.
    pub(crate) fn enter_service(&mut self, service: Service) -> Result<(), LearnError> {
        let name = Arc::clone(&service.name);
        if !self.directory.services.enter(service)? {
            return Ok(());
        }
        self.directory.touched.services = true;
        let own = self.directory.services.get(&name).map(Arc::clone);
        for address in own.iter().flat_map(|service| &service.addresses) {
            self.move_from(&Endpoint::Unmanaged(address.to_canonical()));
        }
        Ok(())
    }

    fn move_from(&mut self, end: &Endpoint) {
        let Endpoint::Unmanaged(address) = *end else { return };
        let known = self.conversations.0.iter();
        let known = known.filter(|(key, _)| key.server == *end);
        let known: Vec<_> = known.map(|(key, _)| key.clone()).collect();
        for key in known {
            let reached = self.directory.reached(address, key.proto, key.port);
            let Some(reached) = reached else { continue };
            let to =
                ConversationKey { server: reached.endpoint, port: reached.port, ..key.clone() };
            let rules = self.learn_key(&key).zip(self.learn_key(&to));
            if reached.managed {
                self.conversations.mirror(&key, &mut self.totals);
            } else {
                self.conversations.rename(&key, &to, &mut self.totals);
                if let Some(known) = self.conversations.0.change(&to) {
                    known.server_name = self.directory.name(&to.server);
                }
            }
            if let Some((from, to)) = rules {
                self.rules.move_to(&from, &to);
            }
        }
    }
}
