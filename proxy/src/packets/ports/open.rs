//! A port's sockets, in whichever namespace they belong.

use outrider_capture::{
    CaptureError, Held, Namespace, Pair, Queue, QueueSettings, Tap, TapSettings,
};
use tokio::sync::mpsc;

use crate::{
    ctrl::{Port, PortUse},
    identity::Identity,
    packets::watch::Pod,
};

/// What was opened.
#[derive(Debug)]
pub(super) enum Opened {
    Tap(Box<Tap>, Identity),
    Queue(Queue, mpsc::Receiver<Held>, Identity),
    Pair(Box<Pair>),
}

/// Why nothing was.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The kernel, or the path.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The namespace is the proxy's own, where its own tap and queue see everything already.
    #[error("the proxy is in that network namespace itself")]
    Own,
    /// Its interfaces could not be read.
    #[error("interfaces of that network namespace: {0}")]
    Identity(#[source] std::io::Error),
    /// No queue has such a number.
    #[error("no queue has the number {0}")]
    Number(u32),
}

impl Refusal {
    /// The closed label of logs and metrics.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Capture(error) => error.reason(),
            Self::Own => "own",
            Self::Identity(_) => "identity",
            Self::Number(_) => "number",
        }
    }
}

impl Opened {
    /// Whose traffic it is.
    pub(super) fn pod(&self) -> Pod {
        match self {
            Self::Tap(_, pod) | Self::Queue(_, _, pod) => Pod::Other(Box::new(pod.clone())),
            Self::Pair(_) => Pod::Beyond,
        }
    }
}

/// Opens a port. Must be called inside a tokio runtime; blocks for as long as a thread takes to enter
/// a namespace.
pub(super) fn open(port: &Port, what: PortUse) -> Result<Opened, Refusal> {
    match port {
        Port::Tap { netns, iface } => inside(netns, || {
            let settings = TapSettings { interface: Some(iface.clone()), ..TapSettings::default() };
            let tap = Tap::open(&settings)?;
            Ok(Opened::Tap(Box::new(tap), Identity::read().map_err(Refusal::Identity)?))
        }),
        Port::Queue { netns, .. } => inside(netns, || {
            let number =
                u16::try_from(what.queue).map_err(|_too_large| Refusal::Number(what.queue))?;
            let settings = QueueSettings {
                number,
                open: true,
                waiting: WAITING,
                copy: WHOLE,
                ..QueueSettings::default()
            };
            let (queue, packets) = Queue::open(&settings)?;
            Ok(Opened::Queue(queue, packets, Identity::read().map_err(Refusal::Identity)?))
        }),
        Port::Pair { outer, inner } => Ok(Opened::Pair(Box::new(Pair::open(outer, inner)?))),
    }
}

fn inside(
    netns: &str,
    work: impl FnOnce() -> Result<Opened, Refusal> + Send,
) -> Result<Opened, Refusal> {
    let namespace = Namespace::open(netns)?;
    if namespace.is_own() {
        return Err(Refusal::Own);
    }
    namespace.enter(work)?
}

/// A queue's packets come whole: they may carry TCP, which is read here.
const WHOLE: u32 = 65_531;
/// Packets of a queue that may wait for us.
const WAITING: usize = 1000;
