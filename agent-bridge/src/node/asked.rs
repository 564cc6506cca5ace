//! Questions to proxies: which are there to be asked, and their answers in order.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use outrider_wire::Reply;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{Node, Refusal, State};
use crate::mailbox::{
    link::{Command, Question},
    load::Average,
    program::Desired,
    watch::Workload,
};

/// How long one proxy may take, what it does before included.
const ANSWER_TIME: Duration = Duration::from_secs(12);
/// How long all proxies of a list may take together.
const LIST_TIME: Duration = Duration::from_secs(30);
/// Proxies that are asked ahead of the one whose answer is read. Each may answer with a list that
/// takes a dozen megabytes.
const AHEAD: usize = 4;

/// Answers of several proxies, in order of their workloads' uid, asked for a few at a time.
#[derive(Debug)]
pub(crate) struct Answers<T> {
    node: Arc<Node>,
    command: fn(oneshot::Sender<T>) -> Command,
    left: VecDeque<Arc<Workload>>,
    asked: VecDeque<(Arc<Workload>, oneshot::Receiver<T>)>,
    end: Instant,
}

impl<T> Answers<T> {
    /// The next proxy's; those that are not connected or do not answer are passed over.
    pub(crate) async fn next(&mut self) -> Option<(Arc<Workload>, T)> {
        loop {
            while self.asked.len() < AHEAD
                && let Some(workload) = self.left.pop_front()
            {
                if let Some(answer) = self.node.command(&workload.uid, self.command) {
                    self.asked.push_back((workload, answer));
                }
            }
            let (workload, answer) = self.asked.pop_front()?;
            match timeout_at(self.end.min(Instant::now() + ANSWER_TIME), answer).await {
                Ok(Ok(answer)) => return Some((workload, answer)),
                _ => tracing::debug!(workload = workload.name, "the proxy did not answer"),
            }
        }
    }
}

impl Node {
    /// Asks one workload's proxy, or every one.
    ///
    /// # Errors
    /// When there is no workload of that name.
    pub(crate) fn ask_each<T>(
        self: &Arc<Self>,
        workload: Option<&str>,
        command: fn(oneshot::Sender<T>) -> Command,
    ) -> Result<Answers<T>, Refusal> {
        Ok(self.ask_these(self.workloads_of(workload)?, command))
    }

    /// Asks these workloads' proxies, in order.
    pub(crate) fn ask_these<T>(
        self: &Arc<Self>,
        whom: Vec<Arc<Workload>>,
        command: fn(oneshot::Sender<T>) -> Command,
    ) -> Answers<T> {
        let end = Instant::now() + LIST_TIME;
        Answers { node: Arc::clone(self), command, left: whom.into(), asked: VecDeque::new(), end }
    }

    /// Asks several proxies at once what one datagram answers.
    pub(crate) async fn ask_all(&self, whom: &[Arc<Workload>], question: Question) -> Vec<Reply> {
        let ask = |workload: &Arc<Workload>| {
            self.command(&workload.uid, |answer| Command::Ask(question, answer))
        };
        let asked: Vec<_> = whom.iter().filter_map(ask).collect();
        let end = Instant::now() + ANSWER_TIME;
        let mut replies = Vec::with_capacity(asked.len());
        for answer in asked {
            if let Ok(Ok(reply)) = timeout_at(end, answer).await {
                replies.push(reply);
            }
        }
        replies
    }

    /// What these workloads' proxies cost in the windows of statistics, summed.
    pub(crate) fn cost(&self, whom: &[Arc<Workload>]) -> [Average; 3] {
        let state = self.state.lock();
        let links = whom.iter().filter_map(|one| state.links.get(&one.uid));
        links.fold([Average::default(); 3], |mut sum, link| {
            for (sum, one) in sum.iter_mut().zip(link.load.averages()) {
                sum.cpu += one.cpu;
                sum.memory = sum.memory.saturating_add(one.memory);
            }
            sum
        })
    }

    /// Has the flow `id` of these workloads end, or all if it is 0. Says how many proxies were told.
    pub(crate) async fn clear(&self, whom: &[Arc<Workload>], id: u32) -> usize {
        let tell =
            |workload: &Arc<Workload>| self.command(&workload.uid, |done| Command::Clear(id, done));
        let told: Vec<_> = whom.iter().filter_map(tell).collect();
        let end = Instant::now() + ANSWER_TIME;
        let mut done = 0;
        for said in told {
            done += usize::from(matches!(timeout_at(end, said).await, Ok(Ok(()))));
        }
        done
    }

    /// The workload of that uid or name, or every one, in order of uid.
    ///
    /// # Errors
    /// When there is no workload of that name, or several.
    pub(crate) fn workloads_of(&self, name: Option<&str>) -> Result<Vec<Arc<Workload>>, Refusal> {
        let state = self.state.lock();
        match name {
            Some(name) => state.workload(name).map(|found| vec![found]),
            None => Ok(state.roster.all().cloned().collect()),
        }
    }

    /// What these workloads' proxies are to have.
    pub(crate) fn desired_of(&self, whom: &[Arc<Workload>]) -> Vec<Arc<Desired>> {
        whom.iter()
            .filter_map(|workload| self.desired(&workload.uid))
            .collect()
    }

    /// Hands a command to a link; nothing if there is no connection, or it has too much to do.
    pub(super) fn command<T>(
        &self,
        uid: &str,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Option<oneshot::Receiver<T>> {
        let state = self.state.lock();
        let link = state.links.get(uid).filter(|link| link.is_connected())?;
        let (answer, answered) = oneshot::channel();
        link.commands.try_send(command(answer)).ok()?;
        Some(answered)
    }

    /// Has a proxy end; nothing happens while it is not connected, or if it was told.
    pub(crate) fn stop_proxy(&self, uid: &str) {
        self.tell(uid, Command::Stop);
    }

    /// Hands a command to a link that nobody waits for.
    pub(super) fn tell(&self, uid: &str, command: Command) {
        let state = self.state.lock();
        let link = state.links.get(uid).filter(|link| link.is_connected());
        if link.is_some_and(|link| link.commands.try_send(command).is_err()) {
            tracing::debug!(uid, "the link has too much to do");
        }
    }
}

impl State {
    fn workload(&self, name: &str) -> Result<Arc<Workload>, Refusal> {
        if let Some(found) = self.roster.get(name) {
            return Ok(Arc::clone(found));
        }
        match self.roster.named(name) {
            Ok(found) => Ok(Arc::clone(found)),
            Err(why) => Err((name, why).into()),
        }
    }
}
