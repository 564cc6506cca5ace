//! Which rule decides about a flow, by the very snapshot that the proxies compile.

use std::net::IpAddr;

use outrider_api::{ExplainQuery, Explanation, Judgement};
use outrider_model::{AppId, Decision, DecisionCause, Direction, IpProto, Mode, Verdict};
use outrider_policy::{AppKnowledge, Network, Query, Snapshot};

use super::{Node, Refusal, State, roster::Unnamed};
use crate::mailbox::watch::Workload;

impl Node {
    /// Answers for one flow, at every end that has a proxy.
    ///
    /// # Errors
    /// When an end is neither a workload nor an address, or the application has no such name.
    pub fn explain(&self, query: &ExplainQuery) -> Result<Explanation, Refusal> {
        let app = match query.app.as_deref() {
            None => AppKnowledge::Pending,
            Some(name) => match AppId::from_name(name) {
                None => return Err(Refusal::Bad(format!("no application is called {name:?}"))),
                Some(AppId::UNKNOWN) => AppKnowledge::Unidentified,
                Some(app) => AppKnowledge::Known(app),
            },
        };
        let state = self.state.lock();
        let (clients, servers) = (state.addresses(&query.client)?, state.addresses(&query.server)?);
        let (client, server) = one_family(&clients, &servers)?;
        let flow = Flow { client, server, port: query.port, app };
        let ends = [(client, Direction::Outbound), (server, Direction::Inbound)];
        let mut judged = Vec::new();
        for (address, direction) in ends {
            if let Some(workload) = state.roster.at(address) {
                judged.push(state.judge(workload, direction, &flow)?);
            }
        }
        let worst = judged
            .iter()
            .map(|(verdict, _)| *verdict)
            .max()
            .unwrap_or_default();
        Ok(Explanation {
            client: state.roster.call(client),
            server: state.roster.call(server),
            port: query.port,
            app: query
                .app
                .clone()
                .unwrap_or_else(|| "not yet identified".into()),
            verdict: worst.label().into(),
            to_allow: to_allow(worst, &judged, query),
            judged: judged.into_iter().map(|(_, judgement)| judgement).collect(),
        })
    }
}

struct Flow {
    client: IpAddr,
    server: IpAddr,
    port: u16,
    app: AppKnowledge,
}

impl State {
    /// The addresses of a workload, or the one address that was written.
    fn addresses(&self, end: &str) -> Result<Vec<IpAddr>, Refusal> {
        if let Ok(address) = end.parse::<IpAddr>() {
            return Ok(vec![address.to_canonical()]);
        }
        match self.roster.named(end) {
            Ok(workload) => Ok(workload.addresses.clone()),
            Err(Unnamed::Unknown) => Err(Refusal::NotFound(format!(
                "{end:?} is neither an address nor a workload of this node; \
                 `outrider workloads` lists them"
            ))),
            Err(several) => Err(Refusal::from((end, several))),
        }
    }

    fn judge(
        &self,
        workload: &Workload,
        direction: Direction,
        flow: &Flow,
    ) -> Result<(Verdict, Judgement), Refusal> {
        let Some(desired) = self.desired(&workload.uid) else {
            return Err(Refusal::NotFound(format!("{} is gone", workload.name)));
        };
        let network = Network {
            internal: desired.internal.to_vec(),
            policy_addrs: desired.policy_addrs.iter().copied().collect(),
            ..Network::default()
        };
        let snapshot = Snapshot::compile(Some(&desired.policy), &network)
            .map_err(|error| Refusal::Bad(format!("the policy does not compile: {error}")))?;
        let decision = snapshot.decide(&Query {
            client: flow.client,
            server: flow.server,
            port: flow.port,
            proto: IpProto::TCP,
            direction,
            app: flow.app,
            host: None,
            mode: desired.mode,
        });
        let verdict = decision.verdict(desired.mode);
        let judgement = Judgement {
            at: workload.name.clone(),
            direction: direction.label().into(),
            mode: desired.mode.name().into(),
            action: decision.action.label().into(),
            verdict: verdict.label().into(),
            rule: decision.rule.0,
            reason: reason(decision, desired.mode),
        };
        Ok((verdict, judgement))
    }
}

fn one_family(clients: &[IpAddr], servers: &[IpAddr]) -> Result<(IpAddr, IpAddr), Refusal> {
    let pair = |client: &IpAddr| {
        let same = servers
            .iter()
            .find(|server| server.is_ipv4() == client.is_ipv4());
        same.map(|server| (*client, *server))
    };
    clients
        .iter()
        .find_map(pair)
        .ok_or_else(|| Refusal::Bad("client and server have no address of the same family".into()))
}

fn reason(decision: Decision, mode: Mode) -> String {
    match decision.cause {
        DecisionCause::Rule if decision.action.undecided() => format!(
            "rule {} decides once the application is known; name it with --app",
            decision.rule
        ),
        DecisionCause::Rule => format!("rule {} matches", decision.rule),
        DecisionCause::Default => format!("no rule matches, and that is the default in {mode}"),
        DecisionCause::NoPolicy => "no policy is loaded".into(),
        DecisionCause::LinkLocal => "link-local addresses are not judged".into(),
        DecisionCause::OtherEnd => "it is judged at the other end".into(),
        DecisionCause::Unmanaged => "unmanaged workloads are not judged".into(),
        DecisionCause::ServiceExternalIp => "it goes to a service's external address".into(),
        DecisionCause::Grace => "the peer's policy may not have arrived yet".into(),
        DecisionCause::Boundary => "it crosses an enforced namespace boundary".into(),
        DecisionCause::Quarantine => "the workload is quarantined".into(),
        DecisionCause::Threat => "a detector stopped it".into(),
    }
}

fn to_allow(worst: Verdict, judged: &[(Verdict, Judgement)], query: &ExplainQuery) -> String {
    if worst == Verdict::Allow {
        return String::new();
    }
    let at = judged.iter().filter(|(verdict, _)| *verdict == worst);
    let at: Vec<_> = at.map(|(_, judgement)| judgement.at.as_str()).collect();
    format!(
        "a rule from {} to {} for {} on tcp/{}: set {} to discover while such traffic flows, \
         and it is learned",
        query.client,
        query.server,
        query.app.as_deref().unwrap_or("its application"),
        query.port,
        at.join(" and ")
    )
}
