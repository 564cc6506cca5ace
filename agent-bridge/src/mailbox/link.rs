//! The request side of one proxy: connect, keep alive, program, push what changes.
//!
//! A ticker of 2 s drives the connection. While there is none, each tick tries to make one; the
//! first thing said is a keep-alive, and what follows its answer is a hello, and then everything the
//! proxy must know.
//! While there is one, a tick without activity since the last asks for a sign of life, so an idle
//! link is asked every 4 s. One answer missed for 3 s, or a request that cannot be sent, ends the
//! connection: what the proxy has is then unknown, and the next one starts from nothing.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use outrider_model::{MacAddr, names};
use outrider_wire::{
    Meter, Reply, Session,
    ext::{CaptureOrder, CaptureReply, Instance, Refusal, Status},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, Interval, MissedTickBehavior, interval},
};

use super::{
    activity::Activity,
    channel::Channel,
    dir::MailboxDir,
    peer::Gate,
    program::{self, Desired},
    receive::BatchId,
};
use crate::{
    counts::{Counts, Dropped},
    node::Node,
};

mod policy;

/// Drives the connection.
pub const TICK: Duration = Duration::from_secs(2);
/// How long a proxy may take to answer a keep-alive.
pub const KEEP_ALIVE_TIME: Duration = Duration::from_secs(3);
/// How long it may take to answer a hello, which a proxy of ours does once what it was told is in
/// force; it is asked for a sign of life and greeted again then.
const HELLO_TIME: Duration = Duration::from_secs(3);
/// Hellos until what a proxy was told has to be in force: 250 000 rules take a busy node a while.
const MAX_HELLOS: usize = 20;
/// Idle ticks on which a proxy that has not answered a hello is greeted again.
const MAX_GREETINGS: u32 = 15;
/// How long it may take for each datagram of a list.
const LIST_TIME: Duration = Duration::from_secs(5);
/// How long it may take for a whole list.
const WHOLE_LIST_TIME: Duration = Duration::from_secs(10);
/// How long it may take to begin a capture; one that does not know how never says.
const CAPTURE_TIME: Duration = Duration::from_secs(3);
/// Sessions taken from one proxy's list; more are counted.
const MAX_LISTED: usize = 65_536;

/// What the node asks of a link.
#[derive(Debug)]
pub enum Command {
    /// This batch is stored.
    Ack(BatchId),
    /// Which flows are open? Nothing is sent back while there is no connection, or no answer.
    Sessions(oneshot::Sender<Vec<Session>>),
    /// What do the rate meters say?
    Meters(oneshot::Sender<Vec<Meter>>),
    /// Any question that one datagram answers.
    Ask(Question, oneshot::Sender<Reply>),
    /// Open flows are to end: this one, or all if it is 0. Answered once that is said.
    Clear(u32, oneshot::Sender<()>),
    /// Packets are to be captured into this pipe. Nothing is sent back by a proxy that does not know how.
    Capture(Box<(CaptureOrder, OwnedFd)>, oneshot::Sender<CaptureReply>),
    /// No longer.
    StopCapture(Instance),
    /// Nothing but the proxy is left in the pod: it is to end. Said once over each connection.
    Stop,
}

/// What one datagram answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Question {
    /// Open flows, by protocol.
    SessionCount,
    /// Counters of the data path.
    Counters,
    /// Traffic of the workload.
    WorkloadStats,
    /// Traffic of everything.
    DeviceStats,
}

impl Question {
    fn is_answered_by(self, reply: &Reply) -> bool {
        matches!(
            (self, reply),
            (Self::SessionCount, Reply::SessionCount(_))
                | (Self::Counters, Reply::DeviceCounter(_))
                | (Self::WorkloadStats, Reply::MacStats(_))
                | (Self::DeviceStats, Reply::DeviceStats(_))
        )
    }
}

/// What a link is.
#[derive(Clone, Debug, Default)]
pub struct LinkState {
    /// The proxy answered the last keep-alive and has been programmed.
    pub connected: bool,
    /// Connections made since the bridge started.
    pub connects: u64,
    /// Policies pushed over the connection that is.
    pub pushes: u64,
    /// Generation of the newest [`Desired`] that is in force; 0 if what is comes from an earlier bridge.
    pub applied: u64,
    /// The policy that the proxy was told last and refuses, if it does.
    pub refused: Option<Arc<Refused>>,
    /// What it said about itself; nothing, if it does not know the hello.
    pub proxy: Option<Arc<Status>>,
}

/// A policy that a proxy refuses: the one before it stays in force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refused {
    /// Of which [`Desired`] it is.
    pub generation: u64,
    /// Why.
    pub why: Refusal,
}

impl LinkState {
    /// Whether the proxy refuses a policy of that generation or a newer one.
    #[must_use]
    pub fn refuses(&self, generation: u64) -> bool {
        self.refused
            .as_ref()
            .is_some_and(|refused| refused.generation >= generation)
    }
}

/// The task's part of a link.
#[derive(Debug)]
pub struct Link {
    /// Told what the proxy refuses, and asked whether it is to be asked.
    pub node: Arc<Node>,
    /// The mailbox.
    pub dir: Arc<MailboxDir>,
    /// Decides whose answers are taken.
    pub gate: Gate,
    /// Marked by the receiver too.
    pub activity: Arc<Activity>,
    /// What the proxy is to have.
    pub desired: watch::Receiver<Arc<Desired>>,
    /// What the node asks.
    pub commands: mpsc::Receiver<Command>,
    /// What the node sees.
    pub state: watch::Sender<LinkState>,
    /// What was not used.
    pub counts: Counts,
    /// Number of the last keep-alive; goes on over reconnects.
    pub seq: u32,
    /// What the proxy of this connection said of itself; nothing, if it did not answer a hello.
    pub proxy: Option<Arc<Status>>,
    /// The proxy of this connection was told to end.
    pub stopped: bool,
}

impl Link {
    /// Runs until it is dropped.
    pub async fn run(mut self) {
        let mut ticker = interval(TICK);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.absent(&mut ticker).await;
            let was = self.state.borrow().connects;
            let Err(error) = self.connection(&mut ticker).await;
            let made = self.state.borrow().connects > was;
            self.state.send_modify(|state| state.connected = false);
            if made {
                tracing::warn!(%error, "the proxy is gone; trying again");
            } else {
                tracing::debug!(%error, "no proxy yet");
            }
        }
    }

    /// Waits for the next tick; whoever asks something meanwhile learns that nobody is there.
    async fn absent(&mut self, ticker: &mut Interval) {
        loop {
            tokio::select! {
                biased;
                _ = ticker.tick() => return,
                Some(command) = self.commands.recv() => drop(command),
            }
        }
    }

    async fn connection(&mut self, ticker: &mut Interval) -> io::Result<Never> {
        let channel = Channel::open(Arc::clone(&self.dir), self.gate.clone(), names::DP_LISTEN)?;
        (self.proxy, self.stopped) = (None, false);
        self.keep_alive(&channel).await?;
        self.greet(&channel).await?;
        let mut greetings = MAX_GREETINGS;
        let mut applied = self.program(&channel).await?;
        loop {
            tokio::select! {
                biased;
                Some(command) = self.commands.recv() => self.obey(&channel, command).await?,
                Ok(()) = self.desired.changed() => self.push(&channel, &mut applied).await?,
                _ = ticker.tick() => {
                    if !self.activity.take() {
                        self.sign_of_life(&channel, &mut greetings).await?;
                    }
                }
            }
        }
    }

    async fn obey(&mut self, channel: &Channel, command: Command) -> io::Result<()> {
        match command {
            Command::Ack(batch) => self.send(channel, &program::ack(batch)?).await,
            Command::Sessions(answer) => {
                let asked = program::list_sessions()?;
                let found = self.list(channel, &asked, sessions).await?;
                answered(answer, found.map(|all| self.own(all, |session| session.epmac)));
                Ok(())
            }
            Command::Meters(answer) => {
                let asked = program::list_meters()?;
                let found = self.list(channel, &asked, meters).await?;
                answered(answer, found.map(|all| self.own(all, |meter| meter.epmac)));
                Ok(())
            }
            Command::Ask(question, answer) => {
                channel.drain();
                let mac = self.desired.borrow().workload.mac;
                self.send(channel, &program::ask(question, mac)?).await?;
                let end = Instant::now() + LIST_TIME;
                let wanted = |datagram: &[u8]| {
                    let reply = Reply::decode_exact(datagram).ok()?;
                    question.is_answered_by(&reply).then_some(reply)
                };
                answered(answer, channel.receive(LIST_TIME, end, wanted).await);
                Ok(())
            }
            Command::Capture(ordered, answer) => {
                // The pipe is none of a proxy's business that does not know what to do with it.
                if self.state.borrow().proxy.is_some() {
                    self.capture(channel, &ordered.0, &ordered.1, answer)
                        .await?;
                }
                Ok(())
            }
            Command::StopCapture(id) => self.send(channel, &program::stop_capture(id)?).await,
            Command::Stop => self.stop(channel).await,
            Command::Clear(id, done) => {
                self.send(channel, &program::clear_session(id)?).await?;
                answered(done, Ok(()));
                Ok(())
            }
        }
    }

    async fn stop(&mut self, channel: &Channel) -> io::Result<()> {
        let Some(proxy) = self.proxy.as_ref().filter(|_| !self.stopped) else { return Ok(()) };
        self.stopped = true;
        if proxy.stops {
            tracing::info!("everything else in the pod has ended: the proxy is told to end too");
            self.send(channel, &program::stop(proxy.instance)?).await
        } else {
            tracing::warn!("the pod waits for its proxy, which is too old to be told to end");
            Ok(())
        }
    }

    /// Leaves what concerns this pod.
    fn own<T>(&self, mut all: Vec<T>, of: impl Fn(&T) -> MacAddr) -> Vec<T> {
        let (mac, told) = (self.desired.borrow().workload.mac, all.len());
        all.retain(|one| of(one) == mac);
        let foreign = told.saturating_sub(all.len());
        self.counts.dropped(Dropped::ForeignMac, foreign as u64);
        all
    }

    async fn capture(
        &self,
        channel: &Channel,
        order: &CaptureOrder,
        pipe: &OwnedFd,
        answer: oneshot::Sender<CaptureReply>,
    ) -> io::Result<()> {
        channel.drain();
        channel.send_with(&program::capture(order)?, pipe).await?;
        self.activity.note();
        let wanted = |datagram: &[u8]| match Reply::decode_exact(datagram) {
            Ok(Reply::Capture(reply)) if reply.id == order.id => Some(reply),
            _ => None,
        };
        let end = Instant::now() + CAPTURE_TIME;
        answered(answer, channel.receive(CAPTURE_TIME, end, wanted).await);
        Ok(())
    }

    /// Asks for a list and reads it to its closing datagram. The outer error ends the connection.
    async fn list<T>(
        &self,
        channel: &Channel,
        asked: &[u8],
        part: impl Fn(Reply) -> Option<(Vec<T>, bool)>,
    ) -> io::Result<io::Result<Vec<T>>> {
        channel.drain();
        self.send(channel, asked).await?;
        let end = Instant::now() + WHOLE_LIST_TIME;
        let (mut all, mut left_out) = (Vec::new(), 0);
        loop {
            let wanted = |datagram: &[u8]| part(Reply::decode_exact(datagram).ok()?);
            match channel.receive(LIST_TIME, end, wanted).await {
                Ok((found, more)) => {
                    let room = MAX_LISTED.saturating_sub(all.len());
                    left_out += found.len().saturating_sub(room) as u64;
                    all.extend(found.into_iter().take(room));
                    if !more {
                        if left_out > 0 {
                            tracing::warn!(left_out, "a list is cut: it is longer than any may be");
                            self.counts.dropped(Dropped::ListTooLong, left_out);
                        }
                        return Ok(Ok(all));
                    }
                }
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// Asks for a sign of life. A status that comes before it, late or not, says that the proxy is
    /// ours; nothing else is an answer here, so nothing has to be thrown away first.
    async fn keep_alive(&mut self, channel: &Channel) -> io::Result<()> {
        self.seq = self.seq.wrapping_add(1);
        let seq = self.seq;
        self.send(channel, &program::keep_alive(seq)?).await?;
        let end = Instant::now() + KEEP_ALIVE_TIME;
        let mut status = None;
        let answer = |datagram: &[u8]| match Reply::decode_exact(datagram) {
            Ok(Reply::KeepAlive(found)) if found.seq_num == seq => Some(()),
            Ok(Reply::Status(found)) => {
                status = Some(found);
                None
            }
            _ => None,
        };
        channel.receive(KEEP_ALIVE_TIME, end, answer).await?;
        if let Some(status) = status {
            self.is_ours(status);
        }
        Ok(())
    }

    /// Says who we are. A data path that does not know our extensions never answers, and is not
    /// waited for: requests are taken in order, so a proxy of ours that has nothing to do has
    /// answered before the keep-alive behind the hello. One that is busy is heard later.
    async fn greet(&mut self, channel: &Channel) -> io::Result<()> {
        self.send(channel, &program::hello()?).await?;
        self.keep_alive(channel).await
    }

    async fn sign_of_life(&mut self, channel: &Channel, greetings: &mut u32) -> io::Result<()> {
        if self.proxy.is_some() || *greetings == 0 {
            return self.keep_alive(channel).await;
        }
        *greetings -= 1;
        self.greet(channel).await
    }

    /// Waits until what was said is in force: a proxy of ours answers a hello only then, and stays
    /// alive meanwhile. Of another one it is only known that it was heard: requests are taken in
    /// order, so the answer to a keep-alive behind them says so.
    async fn settle(&mut self, channel: &Channel) -> io::Result<()> {
        if self.proxy.is_none() {
            return self.keep_alive(channel).await;
        }
        for _ in 0..MAX_HELLOS {
            let status = self.hello(channel).await?;
            self.keep_alive(channel).await?;
            if let Some(status) = status {
                self.is_ours(status);
                return Ok(());
            }
        }
        Err(io::Error::other("the policy did not come into force in time"))
    }

    fn is_ours(&mut self, status: Status) {
        let status = Arc::new(status);
        self.proxy = Some(Arc::clone(&status));
        self.state.send_modify(|state| {
            if state.connected {
                state.proxy = Some(status);
            }
        });
    }

    async fn hello(&mut self, channel: &Channel) -> io::Result<Option<Status>> {
        channel.drain();
        self.send(channel, &program::hello()?).await?;
        let answer = |datagram: &[u8]| match Reply::decode_exact(datagram) {
            Ok(Reply::Status(status)) => Some(status),
            _ => None,
        };
        let end = Instant::now() + HELLO_TIME;
        match channel.receive(HELLO_TIME, end, answer).await {
            Ok(status) => Ok(Some(status)),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn send(&self, channel: &Channel, request: &[u8]) -> io::Result<()> {
        channel.send(request).await?;
        self.activity.note();
        Ok(())
    }
}

/// There is no such value: a connection only ends with an error.
#[derive(Debug)]
enum Never {}

fn sessions(reply: Reply) -> Option<(Vec<Session>, bool)> {
    match reply {
        Reply::SessionList(list) => Some((list.sessions, list.more)),
        _ => None,
    }
}

fn meters(reply: Reply) -> Option<(Vec<Meter>, bool)> {
    match reply {
        Reply::MeterList(list) => Some((list.meters, list.more)),
        _ => None,
    }
}

/// Hands an answer on, if there is one and somebody still waits.
fn answered<T>(to: oneshot::Sender<T>, answer: io::Result<T>) {
    match answer {
        Ok(answer) => drop(to.send(answer)),
        Err(error) => tracing::warn!(%error, "the proxy did not answer a question"),
    }
}

/// Asks a proxy whose pod is gone to let go of it, without waiting for anything.
pub async fn farewell(dir: Arc<MailboxDir>, gate: Gate, desired: &Desired) -> io::Result<()> {
    let channel = Channel::open(dir, gate, names::DP_LISTEN)?;
    for request in program::farewell(desired)? {
        channel.send(&request).await?;
    }
    Ok(())
}
