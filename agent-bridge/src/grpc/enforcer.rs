//! The services. A question about no workload in particular is about all of the node.

use std::sync::Arc;

use outrider_api::share::{
    ClusBoolean, ClusDatapathCounter, ClusDerivedDlpRuleEntryArray, ClusDerivedDlpRuleMacArray,
    ClusDerivedDlpRuleMap, ClusDerivedPolicyRuleMap, ClusFilter, ClusKick, ClusMeterArray,
    ClusProbeSummary, ClusSessionArray, ClusSessionCounter, ClusSnifferArray, ClusSnifferDownload,
    ClusSnifferFilter, ClusSnifferPcap, ClusSnifferRequest, ClusSnifferResponse, ClusStats,
    ClusWlIdArray, ClusWorkloadIntercept, RpcVoid, enforcer_cap_service_server::EnforcerCapService,
    enforcer_service_server::EnforcerService,
};
use outrider_telemetry::unix_seconds;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{convert, rules, sniffer};
use crate::{
    mailbox::{
        link::{Command, Question},
        watch::Workload,
    },
    node::{Answers, Node, Refusal},
};

/// Sessions in one message of a stream.
const SESSIONS_A_MESSAGE: usize = 1024;
/// Meters in one message of a stream.
const METERS_A_MESSAGE: usize = 3072;
/// Messages that wait for a client that reads slowly.
const MESSAGES_AHEAD: usize = 2;
/// Lists that are made at once, for all clients: each holds what a few proxies answered.
const MAX_LISTS: usize = 4;
/// Workloads that one question may name.
const MAX_NAMED: usize = 4096;

/// Workloads that an error names.
const MAX_SAID: usize = 8;

type Answer<T> = Result<Response<T>, Status>;

/// Answers from the node, and through it from the proxies.
#[derive(Clone, Debug)]
pub(super) struct Enforcer {
    node: Arc<Node>,
    tasks: TaskTracker,
    lists: Arc<Semaphore>,
}

/// Says what may be asked in which way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capabilities;

#[tonic::async_trait]
impl EnforcerCapService for Capabilities {
    async fn is_grpc_compressed(&self, _asked: Request<RpcVoid>) -> Answer<ClusBoolean> {
        Ok(Response::new(ClusBoolean { value: true }))
    }
}

impl Enforcer {
    pub(super) fn new(node: Arc<Node>, tasks: TaskTracker) -> Self {
        Self { node, tasks, lists: Arc::new(Semaphore::new(MAX_LISTS)) }
    }

    fn whom(&self, filter: &ClusFilter) -> Result<Vec<Arc<Workload>>, Status> {
        Ok(self.node.workloads_of(named(filter))?)
    }

    async fn stats(&self, whom: &[Arc<Workload>], question: Question) -> Answer<ClusStats> {
        let replies = self.node.ask_all(whom, question).await;
        if replies.is_empty() && !whom.is_empty() {
            return Err(nobody());
        }
        let now = i64::try_from(unix_seconds()).unwrap_or_default();
        Ok(Response::new(convert::stats(&replies, self.node.cost(whom), now)))
    }

    /// The one workload that has a flow of that number.
    async fn carrier(&self, id: u32) -> Result<Arc<Workload>, Status> {
        let _place = self.place()?;
        let mut answers = self.node.ask_each(None, Command::Sessions)?;
        let mut carriers = Vec::new();
        while let Some((workload, sessions)) = answers.next().await {
            if sessions.iter().any(|found| found.id == id) {
                carriers.push(workload);
            }
        }
        match carriers.as_slice() {
            [] => Err(Status::not_found("no proxy that answers has a flow of that number")),
            [only] => Ok(Arc::clone(only)),
            several => {
                let names = several.iter().take(MAX_SAID).map(|one| one.name.as_str());
                let names: Vec<_> = names.collect();
                let said = format!(
                    "{} workloads have a flow of that number, name one: {}",
                    several.len(),
                    names.join(", ")
                );
                Err(Status::invalid_argument(said))
            }
        }
    }

    /// Room to make a list in.
    fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.lists)
            .try_acquire_owned()
            .map_err(|_full| Status::resource_exhausted("too many lists are being made: try again"))
    }

    /// Starts a list; its messages come as the proxies answer.
    fn list<T, R, M>(
        &self,
        filter: &ClusFilter,
        command: fn(tokio::sync::oneshot::Sender<Vec<T>>) -> Command,
        shape: Shape<T, R, M>,
    ) -> Answer<BoxStream<M>>
    where
        T: Send + 'static,
        R: Send + 'static,
        M: Send + 'static,
    {
        let place = self.place()?;
        let answers = self.node.ask_each(named(filter), command)?;
        let (into, messages) = mpsc::channel(MESSAGES_AHEAD);
        let page = Page { skip: filter.start, left: left(filter.limit), into, shape };
        self.tasks.spawn(page.fill(answers, place));
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

/// How proxies' entries become messages.
struct Shape<T, R, M> {
    wanted: Box<dyn Fn(&T) -> bool + Send + Sync>,
    entry: fn(&T, &str) -> R,
    message: fn(Vec<R>) -> M,
    /// Entries of a message.
    size: usize,
}

/// The part of a list that was asked for.
struct Page<T, R, M> {
    skip: u32,
    left: u32,
    into: mpsc::Sender<Result<M, Status>>,
    shape: Shape<T, R, M>,
}

impl<T, R, M> Page<T, R, M> {
    /// Sends what belongs on the page, and at the end one message more, which may be empty. Ends
    /// early when the page is full or the client has gone.
    async fn fill(mut self, mut answers: Answers<Vec<T>>, _place: OwnedSemaphorePermit) {
        let mut ready = Vec::new();
        while self.left > 0
            && let Some((workload, found)) = answers.next().await
        {
            for entry in found {
                if !self.takes(&entry) {
                    continue;
                }
                ready.push((self.shape.entry)(&entry, &workload.uid));
                if ready.len() == self.shape.size && !self.send(&mut ready).await {
                    return;
                }
            }
        }
        self.send(&mut ready).await;
    }

    fn takes(&mut self, entry: &T) -> bool {
        if self.left == 0 || !(self.shape.wanted)(entry) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        if self.left != u32::MAX {
            self.left -= 1;
        }
        true
    }

    async fn send(&self, ready: &mut Vec<R>) -> bool {
        let message = (self.shape.message)(std::mem::take(ready));
        self.into.send(Ok(message)).await.is_ok()
    }
}

/// No limit is the highest.
fn left(limit: u32) -> u32 {
    if limit == 0 { u32::MAX } else { limit }
}

fn named(filter: &ClusFilter) -> Option<&str> {
    (!filter.workload.is_empty()).then_some(filter.workload.as_str())
}

fn nobody() -> Status {
    Status::unavailable("no proxy answered")
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let said = refusal.to_string();
        match refusal {
            Refusal::NotFound(_) => Self::not_found(said),
            Refusal::Bad(_) | Refusal::Ambiguous(_) => Self::invalid_argument(said),
            Refusal::Busy(_) => Self::resource_exhausted(said),
            Refusal::Unable(_) => Self::failed_precondition(said),
            Refusal::NotStored(_) => Self::unavailable(said),
        }
    }
}

#[tonic::async_trait]
impl EnforcerService for Enforcer {
    async fn get_session_list(
        &self,
        asked: Request<ClusFilter>,
    ) -> Answer<BoxStream<ClusSessionArray>> {
        let filter = asked.into_inner();
        let id = filter.id;
        self.list(
            &filter,
            Command::Sessions,
            Shape {
                wanted: Box::new(move |found| id == 0 || found.id == id),
                entry: convert::session,
                message: |sessions| ClusSessionArray { sessions },
                size: SESSIONS_A_MESSAGE,
            },
        )
    }

    async fn get_meter_list(
        &self,
        asked: Request<ClusFilter>,
    ) -> Answer<BoxStream<ClusMeterArray>> {
        self.list(
            &asked.into_inner(),
            Command::Meters,
            Shape {
                wanted: Box::new(|_| true),
                entry: convert::meter,
                message: |meters| ClusMeterArray { meters },
                size: METERS_A_MESSAGE,
            },
        )
    }

    async fn clear_session(&self, asked: Request<ClusFilter>) -> Answer<RpcVoid> {
        let filter = asked.into_inner();
        let mut whom = self.whom(&filter)?;
        // Every proxy counts its own.
        if filter.id != 0 && whom.len() > 1 {
            whom = vec![self.carrier(filter.id).await?];
        }
        match self.node.clear(&whom, filter.id).await {
            0 if !whom.is_empty() => Err(nobody()),
            told => {
                tracing::info!(id = filter.id, told, "open flows cleared by gRPC");
                Ok(Response::new(RpcVoid {}))
            }
        }
    }

    async fn get_stats(&self, asked: Request<ClusFilter>) -> Answer<ClusStats> {
        let filter = asked.into_inner();
        let question =
            if named(&filter).is_some() { Question::WorkloadStats } else { Question::DeviceStats };
        self.stats(&self.whom(&filter)?, question).await
    }

    async fn get_group_stats(&self, asked: Request<ClusWlIdArray>) -> Answer<ClusStats> {
        let names = asked.into_inner().wl_id;
        if names.len() > MAX_NAMED {
            return Err(Status::invalid_argument("too many workloads"));
        }
        // Those of other nodes are passed over, as a data path passes over MACs it does not know.
        let known = |name: &String| self.node.workloads_of(Some(name)).ok();
        let mut whom: Vec<_> = names.iter().filter_map(known).flatten().collect();
        whom.sort_by(|one, other| one.uid.cmp(&other.uid));
        whom.dedup_by(|one, other| one.uid == other.uid);
        self.stats(&whom, Question::WorkloadStats).await
    }

    async fn get_session_counter(&self, _asked: Request<RpcVoid>) -> Answer<ClusSessionCounter> {
        let whom = self.node.workloads_of(None)?;
        let replies = self.node.ask_all(&whom, Question::SessionCount).await;
        Ok(Response::new(convert::session_count(&replies)))
    }

    async fn get_datapath_counter(&self, _asked: Request<RpcVoid>) -> Answer<ClusDatapathCounter> {
        let whom = self.node.workloads_of(None)?;
        let replies = self.node.ask_all(&whom, Question::Counters).await;
        Ok(Response::new(convert::counters(&replies)))
    }

    async fn get_derived_policy_rules(
        &self,
        asked: Request<ClusFilter>,
    ) -> Answer<ClusDerivedPolicyRuleMap> {
        let desired = self.node.desired_of(&self.whom(asked.get_ref())?);
        let rule_byte = rules::compressed(&desired)?;
        Ok(Response::new(ClusDerivedPolicyRuleMap { rule_byte, ..Default::default() }))
    }

    async fn get_derived_dlp_rules(
        &self,
        asked: Request<ClusFilter>,
    ) -> Answer<ClusDerivedDlpRuleMap> {
        self.whom(asked.get_ref())?;
        Ok(Response::new(Default::default()))
    }

    async fn get_derived_dlp_rule_entries(
        &self,
        asked: Request<ClusFilter>,
    ) -> Answer<ClusDerivedDlpRuleEntryArray> {
        self.whom(asked.get_ref())?;
        Ok(Response::new(Default::default()))
    }

    async fn get_derived_dlp_rule_macs(
        &self,
        asked: Request<ClusFilter>,
    ) -> Answer<ClusDerivedDlpRuleMacArray> {
        self.whom(asked.get_ref())?;
        Ok(Response::new(Default::default()))
    }

    async fn get_container_intercept(
        &self,
        asked: Request<ClusFilter>,
    ) -> Answer<ClusWorkloadIntercept> {
        let filter = asked.into_inner();
        if named(&filter).is_none() {
            return Err(Status::invalid_argument("which workload?"));
        }
        let desired = self.node.desired_of(&self.whom(&filter)?);
        let found = desired
            .first()
            .ok_or_else(|| Status::not_found("no mailbox to serve it"))?;
        Ok(Response::new(convert::intercept(found)))
    }

    async fn kick(&self, _asked: Request<ClusKick>) -> Answer<RpcVoid> {
        Err(Status::unimplemented("whoever runs the bridge restarts it"))
    }

    async fn sniffer_cmd(&self, asked: Request<ClusSnifferRequest>) -> Answer<ClusSnifferResponse> {
        let done = Box::pin(sniffer::command(&self.node, asked.into_inner())).await?;
        Ok(Response::new(done))
    }

    async fn get_sniffers(&self, asked: Request<ClusSnifferFilter>) -> Answer<ClusSnifferArray> {
        sniffer::list(&self.node, asked.get_ref()).map(Response::new)
    }

    async fn get_sniffer_pcap(
        &self,
        asked: Request<ClusSnifferDownload>,
    ) -> Answer<BoxStream<ClusSnifferPcap>> {
        sniffer::download(&self.node, asked.get_ref()).map(Response::new)
    }

    async fn probe_summary(&self, _asked: Request<RpcVoid>) -> Answer<ClusProbeSummary> {
        Ok(Response::new(ClusProbeSummary {}))
    }
}
