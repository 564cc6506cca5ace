//! The task that keeps the link: dials, says hello, tells what was seen and what runs, takes updates.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use outrider_api::cluster::{
    FromNode, Hello, Lookup, ToNode, cluster_client::ClusterClient, from_node, to_node,
};
use thiserror::Error;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

use super::{LinkSettings, dial, read};
use crate::{
    node::Node,
    pause::{LONGEST, pause, random},
};

/// Metadata in which a replica that does not lead says who does.
const LEADER: &str = "outrider-leader";
/// Leaders that are followed one after the other without a pause.
const MAX_REDIRECTS: u32 = 3;
/// Between two looks at what there is to tell.
const LOOK: Duration = Duration::from_millis(500);
/// The same while proxies take what the controller said last, which somebody may wait for.
const SOON: Duration = Duration::from_millis(50);
/// Between two batches of what was seen.
const BATCHES: Duration = Duration::from_secs(5);
/// Messages that wait to be sent.
const MAX_WAITING: usize = 8;
/// How long a call may take to begin.
const CALL_TIME: Duration = Duration::from_secs(15);
/// Longest message that is taken: everything about a node's peers.
const MAX_MESSAGE: usize = 64 << 20;
/// Letters of a reason that are kept.
const MAX_REASON: usize = 200;

/// Why a link ended.
#[derive(Debug, Error)]
enum End {
    /// There is no connection, or no token.
    #[error("{0}")]
    Connect(#[from] io::Error),
    /// Another replica leads.
    #[error("{0} leads")]
    Elsewhere(SocketAddr),
    /// The controller says so, or the connection.
    #[error("{:?}: {}", _0.code(), short(_0.message()))]
    Status(Box<Status>),
    /// It does not answer.
    #[error("no answer")]
    Silent,
    /// It ended the link.
    #[error("ended by the controller")]
    Over,
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        let leader = status.metadata().get(LEADER);
        let leader = leader.and_then(|value| value.to_str().ok()?.parse().ok());
        match leader {
            Some(leader) if status.code() == Code::Unavailable => Self::Elsewhere(leader),
            _ => Self::Status(Box::new(status)),
        }
    }
}

/// Keeps the link.
pub(super) struct Task {
    settings: LinkSettings,
    node: Arc<Node>,
    instance: String,
    failures: u32,
    redirects: u32,
    /// Who leads, if anybody said.
    leader: Option<SocketAddr>,
}

impl Task {
    pub(super) fn new(settings: LinkSettings, node: Arc<Node>) -> Self {
        let instance = format!("{:016x}", random());
        Self { settings, node, instance, failures: 0, redirects: 0, leader: None }
    }

    pub(super) async fn run(mut self) {
        loop {
            let target = self.leader.take().map(|leader| leader.to_string());
            let target = target.unwrap_or_else(|| self.settings.target.clone());
            let Err(end) = Box::pin(self.link(&target)).await;
            self.node.unlinked(&target, &end.to_string());
            if let End::Elsewhere(leader) = end
                && self.redirects < MAX_REDIRECTS
            {
                self.redirects += 1;
                self.leader = Some(leader);
                continue;
            }
            self.redirects = 0;
            self.failures = self.failures.saturating_add(1);
            tracing::warn!(%end, target, failures = self.failures, "no link to the controller; what it said last counts");
            sleep(pause(self.failures, LONGEST, random())).await;
        }
    }

    /// One link from its beginning to its end.
    async fn link(&mut self, target: &str) -> Result<std::convert::Infallible, End> {
        let channel = dial::connect(&self.settings, target).await?;
        let mut client = ClusterClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let (tell, told) = mpsc::channel(MAX_WAITING);
        let hello = from_node::Message::Hello(self.hello());
        say(&tell, hello).await?;
        let mut request = Request::new(ReceiverStream::new(told));
        let bearer = dial::bearer(&self.settings.token)?;
        request.metadata_mut().insert("authorization", bearer);
        let answer = timeout(CALL_TIME, client.link(request)).await;
        let updates = answer.map_err(|_elapsed| End::Silent)??.into_inner();
        tracing::info!(target, "linked to the controller");
        self.node.linked(target);
        self.serve(updates, &tell).await
    }

    fn hello(&self) -> Hello {
        let (epoch, revision) = self.node.cluster_revision();
        Hello {
            node: self.settings.node.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            instance: self.instance.clone(),
            revision,
            epoch,
            services: true,
        }
    }

    async fn serve(
        &mut self,
        mut updates: Streaming<ToNode>,
        tell: &mpsc::Sender<FromNode>,
    ) -> Result<std::convert::Infallible, End> {
        let (mut look, mut batch) = (Instant::now(), Instant::now());
        let (mut is_first, mut sent) = (true, None);
        loop {
            tokio::select! {
                biased;
                message = updates.message() => match message?.ok_or(End::Over)?.message {
                    Some(to_node::Message::Update(update)) => {
                        (self.failures, self.redirects) = (0, 0);
                        self.node.take_update(update);
                        look = look.min(Instant::now() + SOON);
                    }
                    Some(to_node::Message::Acknowledged(said)) => {
                        self.node.observed_is_safe(said.batch);
                        sent = None;
                    }
                    // Of a newer version.
                    None => {}
                },
                () = sleep_until(look) => {
                    self.look(is_first, tell).await?;
                    is_first = false;
                    if batch <= Instant::now() {
                        self.tell_seen(&mut sent, tell).await?;
                        batch = Instant::now() + BATCHES;
                    }
                    look = Instant::now() + if self.node.is_catching_up() { SOON } else { LOOK };
                }
            }
        }
    }

    /// Tells what there is to tell.
    async fn look(&self, is_first: bool, tell: &mpsc::Sender<FromNode>) -> Result<(), End> {
        let questions = self.node.questions();
        if !questions.is_empty() {
            let addresses = questions.into_iter().map(read::bytes).collect();
            say(tell, from_node::Message::Lookup(Lookup { addresses })).await?;
        }
        if let Some(applied) = self.node.applied(is_first) {
            say(tell, from_node::Message::Applied(applied)).await?;
        }
        Ok(())
    }

    /// Tells what was seen.
    async fn tell_seen(
        &self,
        sent: &mut Option<u64>,
        tell: &mpsc::Sender<FromNode>,
    ) -> Result<(), End> {
        if let Some(observed) = self.node.observed()
            // Over this link, once.
            && *sent != Some(observed.batch)
        {
            *sent = Some(observed.batch);
            say(tell, from_node::Message::Observed(observed)).await?;
        }
        Ok(())
    }
}

async fn say(tell: &mpsc::Sender<FromNode>, message: from_node::Message) -> Result<(), End> {
    let message = FromNode { message: Some(message) };
    match timeout(CALL_TIME, tell.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_nobody_sends)) => Err(End::Over),
        Err(_elapsed) => Err(End::Silent),
    }
}

/// The beginning of what the other end says, without what a terminal would act on.
fn short(text: &str) -> String {
    text.chars()
        .filter(|letter| !letter.is_control())
        .take(MAX_REASON)
        .collect()
}
