//! `outrider.cluster.v1.Cluster`: one stream a bridge. Only the leader serves; another replica says who leads.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::Stream;
use outrider_api::cluster::{
    Acknowledged, FromNode, ToNode, cluster_server::Cluster, from_node, to_node,
};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming, metadata::MetadataValue};

use super::{
    links::{Link, Links},
    review::{MAX_TOKEN, Refusal, Reviewer},
};
use crate::cluster::lease::Standing;

/// Metadata that says where the leader is.
pub const LEADER: &str = "outrider-leader";
/// Answers of one link that wait to be sent. What does not fit is not queued: the next update has it.
const MAX_WAITING: usize = 4;
/// Time for the bridge's hello.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// How long a bridge may take nothing before its link is cut.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two updates of one link.
const PACE: Duration = Duration::from_millis(50);
/// Longest name of a node or an instance.
const MAX_NAME: usize = 253;

/// The service.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) links: Arc<Links>,
    pub(super) reviewer: Arc<Reviewer>,
    pub(super) standing: watch::Receiver<Standing>,
    /// Revisions of another one mean nothing.
    pub(super) epoch: Arc<str>,
    /// What the API server has was read once.
    pub(super) ready: watch::Receiver<bool>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

type Answers = Pin<Box<dyn Stream<Item = Result<ToNode, Status>> + Send + 'static>>;

#[tonic::async_trait]
impl Cluster for Service {
    async fn link(
        &self,
        request: Request<Streaming<FromNode>>,
    ) -> Result<Response<Answers>, Status> {
        self.leads()?;
        let token = token(&request).ok_or(Refusal::NoToken);
        let node = match token {
            Ok(token) => self.reviewer.node(&token).await,
            Err(refusal) => Err(refusal),
        };
        let node = node.map_err(|refusal| self.refuse(&refusal))?;
        let mut from = request.into_inner();
        let hello = timeout(HELLO_TIME, from.message()).await;
        let hello = hello.map_err(|_elapsed| Status::deadline_exceeded("no hello"))??;
        let Some(FromNode { message: Some(from_node::Message::Hello(hello)) }) = hello else {
            return Err(Status::invalid_argument("the first message must be a hello"));
        };
        if hello.node != *node {
            return Err(self.refuse(&Refusal::Node(node.to_string())));
        }
        if hello.instance.len() > MAX_NAME {
            return Err(Status::invalid_argument("instance is too long"));
        }
        let (into, answers) = mpsc::channel(MAX_WAITING);
        let link = self.links.enter(&node, &hello.instance);
        link.lock().known.serves = hello.services;
        tracing::info!(%node, version = %hello.version.escape_debug(), "bridge linked");
        let served = Served { service: self.clone(), node, link, into };
        self.tasks.spawn(served.run(from));
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

impl Service {
    /// Only the leader answers, and only when it knows what is in force.
    fn leads(&self) -> Result<(), Status> {
        let standing = self.standing.borrow().clone();
        match standing {
            Standing::Leading | Standing::Unsure if *self.ready.borrow() => Ok(()),
            Standing::Leading | Standing::Unsure => {
                Err(Status::unavailable("not ready: the API server's objects are being read"))
            }
            Standing::Following(leader) => {
                let mut status = Status::unavailable("another replica leads");
                let leader = leader.and_then(|leader| MetadataValue::try_from(leader).ok());
                if let Some(leader) = leader {
                    status.metadata_mut().insert(LEADER, leader);
                }
                Err(status)
            }
        }
    }

    fn is_sure(&self) -> bool {
        *self.standing.borrow() == Standing::Leading
    }

    fn refuse(&self, refusal: &Refusal) -> Status {
        self.links.counts.refused.with(&[refusal.reason()]).inc();
        tracing::warn!(%refusal, "bridge refused");
        match refusal {
            Refusal::Unknown(_) => Status::unavailable(refusal.to_string()),
            Refusal::NoToken | Refusal::Invalid => Status::unauthenticated(refusal.to_string()),
            _ => Status::permission_denied(refusal.to_string()),
        }
    }
}

/// One link that is served.
struct Served {
    service: Service,
    node: Arc<str>,
    link: Arc<Mutex<Link>>,
    into: mpsc::Sender<Result<ToNode, Status>>,
}

impl Served {
    async fn run(self, mut from: Streaming<FromNode>) {
        let cut = self.link.lock().cut.clone();
        let reason = tokio::select! {
            biased;
            () = self.service.stop.cancelled() => "stop",
            () = cut.cancelled() => "cut",
            reason = self.listen(&mut from) => reason,
            reason = self.tell() => reason,
        };
        let links = &self.service.links;
        links.leave(&self.node, &self.link);
        links.counts.links_ended.with(&[reason]).inc();
        tracing::info!(node = %self.node, reason, "link ended");
        let status = Status::unavailable(format!("link ended: {reason}"));
        drop(self.into.try_send(Err(status)));
    }

    /// What the bridge says.
    async fn listen(&self, from: &mut Streaming<FromNode>) -> &'static str {
        let links = &self.service.links;
        loop {
            let message = match from.message().await {
                Ok(Some(message)) => message.message,
                Ok(None) => return "ended",
                Err(_broken) => return "broken",
            };
            match message {
                Some(from_node::Message::Observed(said)) => {
                    if let Some(batch) =
                        links.observe(&self.node, &self.link, &said, self.service.is_sure())
                        && !self.acknowledge(batch).await
                    {
                        return "slow";
                    }
                }
                Some(from_node::Message::Applied(said)) => {
                    links.applied(&self.node, &self.link, said);
                }
                Some(from_node::Message::Lookup(asked)) => {
                    links.ask(&self.node, &self.link, &asked.addresses);
                }
                Some(from_node::Message::Hello(_)) => return "second-hello",
                // Of a newer version.
                None => {}
            }
        }
    }

    /// What the bridge is told: everything first, then what changes.
    async fn tell(&self) -> &'static str {
        let links = &self.service.links;
        let wake = Arc::clone(&self.link.lock().wake);
        let mut written = links.written.subscribe();
        loop {
            written.mark_unchanged();
            let Ok(Ok(place)) = timeout(PATIENCE, self.into.reserve()).await else { return "slow" };
            if let Some(mut update) = links.update(&self.node, &self.link) {
                update.epoch = self.service.epoch.to_string();
                let kind = if update.whole { "whole" } else { "change" };
                links.counts.updates.with(&[kind]).inc();
                let bytes = prost::Message::encoded_len(&update) as u64;
                links.counts.update_bytes.with(&[kind]).inc_by(bytes);
                place.send(Ok(ToNode { message: Some(to_node::Message::Update(update)) }));
            } else {
                drop(place);
            }
            for batch in links.due(&self.node, &self.link) {
                if !self.acknowledge(batch).await {
                    return "slow";
                }
            }
            tokio::time::sleep(PACE).await;
            tokio::select! {
                biased;
                () = wake.notified() => {}
                // The sender is ours: it is there.
                _ = written.changed() => {}
            }
        }
    }

    async fn acknowledge(&self, batch: u64) -> bool {
        let message = to_node::Message::Acknowledged(Acknowledged { batch });
        let sent = self.into.send(Ok(ToNode { message: Some(message) }));
        matches!(timeout(PATIENCE, sent).await, Ok(Ok(())))
    }
}

fn token(request: &Request<Streaming<FromNode>>) -> Option<String> {
    let said = request.metadata().get("authorization")?.to_str().ok()?;
    let token = said.strip_prefix("Bearer ")?.trim();
    (!token.is_empty() && token.len() <= MAX_TOKEN).then(|| token.to_owned())
}

#[cfg(test)]
mod tests;
