//! What each list has: whom it concerns, and where it stands.

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

use outrider_api::{Flow, ModeChange, PolicyChange, Session, Threat, Violation, Workload};
use outrider_learn::PolicyRule;

use super::{Concerning, Listed};
use crate::node::shown;

/// Whether a full name is meant by a full or bare one.
fn is_named(full: &str, wanted: &str) -> bool {
    full == wanted || full.split_once('/').is_some_and(|(_, bare)| bare == wanted)
}

/// Larger times come first.
fn newest(at: u64) -> u64 {
    u64::MAX - at
}

fn text(app: &str) -> Option<Cow<'_, str>> {
    Some(Cow::Borrowed(app))
}

impl Concerning for Workload {
    fn concerns(&self, workload: &str) -> bool {
        is_named(&self.name, workload)
    }
    fn app(&self) -> Option<Cow<'_, str>> {
        None
    }
}

impl Listed for Workload {
    type Shown = Self;
    fn place(&self, out: &mut String) -> fmt::Result {
        out.write_str(&self.uid)
    }
    fn shown(&self) -> Self {
        self.clone()
    }
}

impl Concerning for outrider_learn::Conversation {
    fn concerns(&self, workload: &str) -> bool {
        is_named(&self.client_name, workload) || is_named(&self.server_name, workload)
    }
    fn app(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Owned(self.key.app.to_string()))
    }
}

impl Listed for outrider_learn::Conversation {
    type Shown = outrider_api::Conversation;
    fn place(&self, out: &mut String) -> fmt::Result {
        let (client, server, key) = (&self.client_name, &self.server_name, &self.key);
        write!(out, "{client}\0{server}\0{}\0{}\0{:05}", key.app, key.proto, key.port)
    }
    fn last_seen(&self) -> Option<u64> {
        Some(self.last_seen)
    }
    fn shown(&self) -> Self::Shown {
        shown::conversation(self)
    }
}

impl Concerning for outrider_learn::Rule {
    fn concerns(&self, workload: &str) -> bool {
        self.key.from.name() == workload || self.key.to.name() == workload
    }
    fn concerns_group(&self, group: &str) -> bool {
        self.concerns(group)
    }
    fn app(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Owned(self.key.app.to_string()))
    }
}

impl Listed for outrider_learn::Rule {
    type Shown = outrider_api::Rule;
    fn place(&self, out: &mut String) -> fmt::Result {
        write!(out, "{:010}", self.id.0)
    }
    fn last_seen(&self) -> Option<u64> {
        Some(self.evidence.last_seen)
    }
    fn shown(&self) -> Self::Shown {
        shown::rule(self)
    }
}

/// A rule that people wrote, or that the cluster learned; one of those that were chosen for whom the list is about.
pub(crate) struct Said<'a>(pub(crate) &'a PolicyRule);

impl Concerning for Said<'_> {
    fn concerns(&self, _workload: &str) -> bool {
        true
    }
    fn app(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Owned(shown::said(self.0).app))
    }
}

impl Listed for Said<'_> {
    type Shown = outrider_api::Rule;
    fn place(&self, out: &mut String) -> fmt::Result {
        // Before the numbers of what was learned here.
        let (learned, order, id) = (u8::from(self.0.learned), self.0.order, self.0.id.0);
        write!(out, "!{learned}{order:020}{id:010}")
    }
    fn shown(&self) -> Self::Shown {
        shown::said(self.0)
    }
}

impl Concerning for outrider_learn::Violation {
    fn concerns(&self, workload: &str) -> bool {
        is_named(&self.client_name, workload) || is_named(&self.server_name, workload)
    }
    fn app(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Owned(self.key.app.to_string()))
    }
}

impl Listed for outrider_learn::Violation {
    type Shown = Violation;
    fn place(&self, out: &mut String) -> fmt::Result {
        let (client, server, key) = (&self.client_name, &self.server_name, &self.key);
        write!(out, "{:016x}\0{client}\0{server}\0", newest(self.last_seen))?;
        write!(out, "{}\0{}\0{}\0", key.client_ip, key.server_ip, key.proto)?;
        write!(out, "{:05}\0{}", key.port, key.app)
    }
    fn last_seen(&self) -> Option<u64> {
        Some(self.last_seen)
    }
    fn shown(&self) -> Violation {
        shown::violation(self)
    }
}

impl Concerning for Violation {
    fn concerns(&self, workload: &str) -> bool {
        is_named(&self.client, workload) || is_named(&self.server, workload)
    }
    fn app(&self) -> Option<Cow<'_, str>> {
        text(&self.app)
    }
}

impl Concerning for Threat {
    fn concerns(&self, workload: &str) -> bool {
        is_named(&self.workload, workload)
    }
    fn app(&self) -> Option<Cow<'_, str>> {
        text(&self.app)
    }
}

impl Listed for Threat {
    type Shown = Self;
    fn place(&self, out: &mut String) -> fmt::Result {
        write!(out, "{:016x}\0{}\0{:010}\0", newest(self.reported_at), self.workload, self.id)?;
        write!(out, "{}\0{}\0", self.client_ip, self.server_ip)?;
        write!(out, "{:05}\0{}", self.server_port, self.message)
    }
    fn last_seen(&self) -> Option<u64> {
        Some(self.reported_at)
    }
    fn shown(&self) -> Self {
        self.clone()
    }
}

impl Concerning for Flow {
    fn concerns(&self, workload: &str) -> bool {
        is_named(&self.workload, workload)
    }
    fn app(&self) -> Option<Cow<'_, str>> {
        text(&self.app)
    }
}

impl Listed for Flow {
    type Shown = Self;
    fn place(&self, out: &mut String) -> fmt::Result {
        let Self { workload, client, server, app, .. } = self;
        write!(out, "{:016x}\0{workload}\0{client}\0{server}\0{app}", newest(self.at))
    }
    fn last_seen(&self) -> Option<u64> {
        Some(self.at)
    }
    fn shown(&self) -> Self {
        self.clone()
    }
}

impl Concerning for ModeChange {
    fn concerns(&self, workload: &str) -> bool {
        is_named(&self.workload, workload)
    }
    fn app(&self) -> Option<Cow<'_, str>> {
        None
    }
}

impl Concerning for PolicyChange {
    fn concerns(&self, workload: &str) -> bool {
        is_named(&self.workload, workload)
    }
    fn app(&self) -> Option<Cow<'_, str>> {
        None
    }
}

impl Concerning for Session {
    fn concerns(&self, workload: &str) -> bool {
        is_named(&self.workload, workload)
    }
    fn app(&self) -> Option<Cow<'_, str>> {
        text(&self.app)
    }
}

impl Listed for Session {
    type Shown = Self;
    fn place(&self, out: &mut String) -> fmt::Result {
        write!(out, "{}\0{:010}", self.workload, self.id)
    }
    fn shown(&self) -> Self {
        self.clone()
    }
}
