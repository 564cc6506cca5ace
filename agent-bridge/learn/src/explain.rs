//! Which rule decides a flow, why, and what would allow it.

mod through;

use std::net::IpAddr;

use outrider_model::{
    AppId, Decision, DecisionCause, Direction, IpProto, Mode, PolicyAction, Verdict,
};
use outrider_policy::{AppKnowledge, Network, Query, Snapshot};

use crate::{
    Endpoint, Group, LearnError, LearnKey, Learner, PolicyRule, Rule, Workload, reach::Reaches,
    rules::needed,
};

/// One end of a flow that is asked about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// A workload, by uid.
    Workload(String),
    /// Whatever has that address.
    Address(IpAddr),
}

/// A flow that is asked about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Question {
    /// Who opens it.
    pub client: Place,
    /// Where it goes.
    pub server: Place,
    /// To which port.
    pub port: u16,
    /// By which protocol.
    pub proto: IpProto,
    /// In which application.
    pub app: AppKnowledge,
}

/// What becomes of the flow.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Explanation {
    /// What people call the client.
    pub client: String,
    /// What people call the server.
    pub server: String,
    /// Which Service it goes through, and where that leads, for people; none if it goes through none.
    pub service: Option<String>,
    /// What happens to it in the end.
    pub verdict: Verdict,
    /// Every end that has a proxy, the client's first.
    pub judged: Vec<Judgement>,
    /// What would have to change for it to be allowed; empty when it is.
    pub to_allow: String,
}

/// What one end says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Judgement {
    /// What people call the workload that judges.
    pub at: String,
    /// Relative to it.
    pub direction: Direction,
    /// Its mode.
    pub mode: Mode,
    /// What its policy says.
    pub decision: Decision,
    /// What happens there.
    pub verdict: Verdict,
    /// Why, for people.
    pub reason: String,
}

/// The flow and its ends, resolved.
#[derive(Clone)]
struct Flow {
    addresses: (IpAddr, IpAddr),
    port: u16,
    /// The port that rules mean: behind a Service it is the backends'.
    target: u16,
    proto: IpProto,
    app: AppKnowledge,
    from: Group,
    to: Group,
}

/// Who judges it, and about which flow.
struct Asked {
    client: Endpoint,
    server: Endpoint,
    service: Option<String>,
    ends: Vec<(Endpoint, Direction, Flow)>,
}

impl Learner {
    /// Explains what the rules and modes of this moment mean for a flow.
    pub fn explain(&self, question: &Question) -> Result<Explanation, LearnError> {
        let Asked { client, server, service, ends } = self.asked(question)?;
        let mut judged = Vec::new();
        let mut to_allow = Vec::new();
        for (end, direction, flow) in &ends {
            let Endpoint::Workload(uid) = end else { continue };
            let Some(workload) = self.directory.get(uid) else { continue };
            let judgement = self.judge(workload, *direction, flow);
            if judgement.verdict > Verdict::Allow || judgement.decision.action.undecided() {
                to_allow.push(self.missing(workload, &judgement, flow));
            }
            judged.push(judgement);
        }
        Ok(Explanation {
            client: self.directory.name(&client),
            server: self.directory.name(&server),
            service,
            verdict: judged
                .iter()
                .map(|judgement| judgement.verdict)
                .max()
                .unwrap_or_default(),
            judged,
            to_allow: to_allow.join("; "),
        })
    }

    fn asked(&self, question: &Question) -> Result<Asked, LearnError> {
        let (client, server) = (self.end(&question.client)?, self.end(&question.server)?);
        let group = |end| self.directory.group(end).ok_or(LearnError::UnknownWorkload);
        let (from, port) = (group(&client)?, question.port);
        let addresses = self.addresses(&question.client, &question.server)?;
        let (proto, app) = (question.proto, question.app);
        let flow = |to, target| Flow { addresses, port, target, proto, app, from, to };
        let through = match question.server {
            Place::Address(address) => self.through(address, proto, port),
            Place::Workload(_) => None,
        };
        let Some(through) = through else {
            let flow = flow(group(&server)?, port);
            let own = (client.clone(), Direction::Outbound, flow.clone());
            let ends = vec![own, (server.clone(), Direction::Inbound, flow)];
            return Ok(Asked { client, server, service: None, ends });
        };
        let flow = flow(through.group, through.target);
        let mut ends = vec![(client.clone(), Direction::Outbound, flow.clone())];
        for (uid, address, port) in through.here {
            let addresses = (addresses.0, address);
            let flow = Flow { addresses, port, target: port, ..flow.clone() };
            ends.push((Endpoint::Workload(uid), Direction::Inbound, flow));
        }
        Ok(Asked { client, server: through.end, service: Some(through.text), ends })
    }

    fn end(&self, place: &Place) -> Result<Endpoint, LearnError> {
        match place {
            Place::Address(address) => Ok(self.directory.endpoint(*address)),
            Place::Workload(uid) => self
                .directory
                .get(uid)
                .map(|workload| Endpoint::Workload(workload.uid.clone()))
                .ok_or(LearnError::UnknownWorkload),
        }
    }

    /// A client and a server address of one family.
    fn addresses(&self, client: &Place, server: &Place) -> Result<(IpAddr, IpAddr), LearnError> {
        let of = |place: &Place| match place {
            Place::Address(address) => vec![address.to_canonical()],
            Place::Workload(uid) => self
                .directory
                .get(uid)
                .map(|workload| {
                    workload
                        .addresses
                        .iter()
                        .map(IpAddr::to_canonical)
                        .collect()
                })
                .unwrap_or_default(),
        };
        let servers = of(server);
        of(client)
            .into_iter()
            .find_map(|client| {
                let server = servers
                    .iter()
                    .find(|server| server.is_ipv4() == client.is_ipv4())?;
                Some((client, *server))
            })
            .ok_or(LearnError::NoCommonFamily)
    }

    fn judge(&self, workload: &Workload, direction: Direction, flow: &Flow) -> Judgement {
        let mode = self.mode_of(workload);
        let policy = self.policy_of(workload, &mut Reaches::new());
        let network =
            Network { internal: self.directory.internal().to_vec(), ..Network::default() };
        let query = Query {
            client: flow.addresses.0,
            server: flow.addresses.1,
            port: flow.port,
            proto: flow.proto,
            direction,
            app: flow.app,
            host: None,
            mode,
        };
        let decision = Snapshot::compile(Some(&policy.spec), &network)
            .map(|snapshot| snapshot.decide(&query))
            .unwrap_or_default();
        Judgement {
            at: workload.name.clone(),
            direction,
            mode,
            decision,
            verdict: decision.verdict(mode),
            reason: self.reason(decision, mode, flow),
        }
    }

    fn reason(&self, decision: Decision, mode: Mode, flow: &Flow) -> String {
        let default = mode.default_action();
        let (from, to) = (&flow.from, &flow.to);
        if decision.action == PolicyAction::CheckApp {
            let said = self.policy.rule(decision.rule);
            let known = said.map_or_else(|| self.between(flow), |rule| self::said(rule, flow));
            return format!("depends on the application: {known}, any other meets {default}");
        }
        if let Some(rule) = self.policy.rule(decision.rule) {
            return said(rule, flow);
        }
        match (decision.cause, self.rules.by_id(decision.rule)) {
            (DecisionCause::Rule, Some(rule)) => {
                let seen = rule.evidence.sessions;
                let rule = describe(rule);
                format!("{from} may open {rule} to {to}, learned from {seen} sessions")
            }
            (DecisionCause::Default, _) => {
                let what = application(flow.app);
                let known = self.between(flow);
                let (proto, port) = (flow.proto, flow.target);
                let none =
                    format!("no rule allows {from} to open {what} on {proto}/{port} to {to}");
                let known = if known.is_empty() { known } else { format!(", only {known}") };
                format!("{none}{known}; the default in {mode} is {default}")
            }
            (DecisionCause::LinkLocal, _) => "link-local addresses are not judged".into(),
            (cause, _) => format!("{cause:?}: {}", decision.action),
        }
    }

    /// The rules between the same groups on the same port, as text.
    fn between(&self, flow: &Flow) -> String {
        let same = |rule: &&Rule| {
            let key = &rule.key;
            (&key.from, &key.to, key.proto, key.port)
                == (&flow.from, &flow.to, flow.proto, flow.target)
        };
        let known: Vec<String> = self.rules().filter(same).map(describe).collect();
        known.join(", ")
    }

    /// What would have to change for a flow to be allowed at one end.
    fn missing(&self, workload: &Workload, judgement: &Judgement, flow: &Flow) -> String {
        let at = &judgement.at;
        let soften = match judgement.verdict {
            Verdict::Deny => ", or in monitor to let it pass and be reported",
            Verdict::Alert | Verdict::Allow => "",
        };
        if judgement.decision.action.undecided() {
            return format!("at {at}: an application that the rules name");
        }
        if let Some(rule) = self.policy.rule(judgement.decision.rule) {
            return format!("at {at}: change {}, or allow it before{soften}", rule.origin);
        }
        let app = app_id(flow.app);
        let key = |app| LearnKey {
            from: flow.from.clone(),
            to: flow.to.clone(),
            proto: flow.proto,
            port: flow.target,
            app,
        };
        if app == Some(AppId::UNIDENTIFIED) && self.rules.is_identified(&key(AppId::UNIDENTIFIED)) {
            return format!(
                "at {at}: an identified application: the port alone makes no rule, because \
                 applications were identified on it"
            );
        }
        let seen = app
            .and_then(|app| self.rules.candidates.get(&key(app)))
            .map_or(0, |candidate| candidate.evidence.data_sessions);
        let needed = needed(app.unwrap_or_default(), &self.settings);
        let (left, group) = (needed.saturating_sub(seen).max(1), workload.group());
        let of = if app.is_some() { "" } else { " of one application" };
        format!(
            "at {at}: put {group} in discover until {left} more sessions with data{of} make a rule \
             ({seen} of {needed} seen){soften}"
        )
    }
}

/// What a rule of policy says of a flow.
fn said(rule: &PolicyRule, flow: &Flow) -> String {
    let PolicyRule { id, origin, from, to, .. } = rule;
    let apps: Vec<_> = rule.apps.iter().map(ToString::to_string).collect();
    let what = if apps.is_empty() { "any application".into() } else { apps.join(", ") };
    let does = match (rule.learned, rule.deny) {
        (true, _) => "learned in the cluster, allows",
        (false, true) => "denies",
        (false, false) => "allows",
    };
    let (proto, port) = (flow.proto, flow.target);
    format!("{origin} (rule {id}) {does} {what} on {proto}/{port} from {from} to {to}")
}

fn describe(rule: &Rule) -> String {
    let LearnKey { proto, port, app, .. } = &rule.key;
    let app = if *app == AppId::UNIDENTIFIED { "unidentified".into() } else { app.to_string() };
    format!("{app} on {proto}/{port} (rule {})", rule.id)
}

fn application(app: AppKnowledge) -> String {
    match app {
        AppKnowledge::Pending => "any application".into(),
        AppKnowledge::Unidentified => "an unidentified application".into(),
        AppKnowledge::Known(app) => app.to_string(),
    }
}

/// The application as rules have it; `None` while it is not known.
fn app_id(app: AppKnowledge) -> Option<AppId> {
    match app {
        AppKnowledge::Pending => None,
        AppKnowledge::Known(AppId::UNKNOWN) | AppKnowledge::Unidentified => {
            Some(AppId::UNIDENTIFIED)
        }
        AppKnowledge::Known(app) => Some(app),
    }
}

#[cfg(test)]
mod tests;
