//! Which rule decides about a flow.

use outrider_api::{ExplainQuery, Explanation, Judgement};
use outrider_learn::{Place, Question};
use outrider_model::{AppId, IpProto};
use outrider_policy::AppKnowledge;

use super::{Node, Refusal, State, roster::Unnamed};

impl Node {
    /// Answers for one flow, at every end that has a proxy.
    ///
    /// # Errors
    /// When an end is neither a workload nor an address, or the application has no such name.
    pub fn explain(&self, query: &ExplainQuery) -> Result<Explanation, Refusal> {
        let app = match query.app.as_deref().map(AppId::from_name) {
            None => AppKnowledge::Pending,
            Some(Some(AppId::UNKNOWN)) => AppKnowledge::Unidentified,
            Some(Some(app)) => AppKnowledge::Known(app),
            Some(None) => {
                let name = query.app.as_deref().unwrap_or_default();
                return Err(Refusal::Bad(format!("no application is called {name:?}")));
            }
        };
        let state = self.state.lock();
        let question = Question {
            client: state.place(&query.client)?,
            server: state.place(&query.server)?,
            port: query.port,
            proto: IpProto::TCP,
            app,
        };
        let answer = state.learner.explain(&question);
        let answer = answer.map_err(|error| Refusal::Bad(error.to_string()))?;
        Ok(Explanation {
            client: answer.client,
            server: answer.server,
            port: query.port,
            service: answer.service,
            app: match app {
                AppKnowledge::Pending => "not yet identified".into(),
                AppKnowledge::Unidentified => AppId::UNIDENTIFIED.to_string(),
                AppKnowledge::Known(app) => app.to_string(),
            },
            verdict: answer.verdict.label().into(),
            judged: answer.judged.into_iter().map(judgement).collect(),
            to_allow: answer.to_allow,
        })
    }
}

fn judgement(judged: outrider_learn::Judgement) -> Judgement {
    Judgement {
        at: judged.at,
        direction: judged.direction.label().into(),
        mode: judged.mode.name().into(),
        action: judged.decision.action.label().into(),
        verdict: judged.verdict.label().into(),
        rule: judged.decision.rule.0,
        reason: judged.reason,
    }
}

impl State {
    /// The workload or the address that was written.
    fn place(&self, end: &str) -> Result<Place, Refusal> {
        if let Ok(address) = end.parse() {
            return Ok(Place::Address(address));
        }
        match self.roster.named(end) {
            Ok(workload) => Ok(Place::Workload(workload.uid.clone())),
            Err(Unnamed::Unknown) => Err(Refusal::NotFound(format!(
                "{end:?} is neither an address nor a workload of this node; \
                 `outrider workloads` lists them"
            ))),
            Err(several) => Err(Refusal::from((end, several))),
        }
    }
}
