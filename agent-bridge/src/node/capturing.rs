//! Orders to proxies to capture packets.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use outrider_wire::ext::{CaptureOrder, Instance};
use tokio::time::timeout;

use super::{Node, Refusal};
use crate::{
    captures::{Capture, Captures, Pump, Wish, open_pipe},
    mailbox::link::Command,
};

/// How long a proxy may take to begin, what it does before included.
const ANSWER_TIME: Duration = Duration::from_secs(12);

impl Node {
    /// Every capture of the node.
    pub(crate) fn captures(&self) -> &Captures {
        &self.captures
    }

    /// Has a workload's packets captured; they come out of what is returned.
    ///
    /// # Errors
    /// There is no such workload, or no room; its proxy is not connected, cannot, or does not answer.
    pub(crate) async fn start_capture(
        &self,
        workload: &str,
        wish: Wish,
        stored: bool,
    ) -> Result<Pump, Refusal> {
        let mut found = self.workloads_of(Some(workload))?;
        let Some(workload) = found.pop() else {
            return Err(Refusal::NotFound("no workload".to_owned()));
        };
        let wish = wish.checked()?;
        let id = Instance(RandomState::new().hash_one(&workload.uid));
        let order = CaptureOrder {
            id,
            filter: wish.filter.text().to_owned(),
            loopback: wish.loopback,
            snap: wish.snap,
            packets: wish.packets,
            bytes: wish.bytes,
            seconds: wish.seconds,
        };
        let (pipe, theirs) = open_pipe()
            .map_err(|error| Refusal::Busy(format!("no pipe for a capture: {error}")))?;
        let name = workload.name.clone();
        let uid = workload.uid.clone();
        let capture = self.captures.enter(id, workload, wish, stored)?;
        // From here on, whatever happens ends the capture.
        let pump = Pump::new(Arc::clone(&capture), pipe);
        match self.order(&uid, &name, order, theirs).await {
            Ok(()) => Ok(pump),
            Err(refusal) => {
                self.captures.remove(id);
                Err(refusal)
            }
        }
    }

    async fn order(
        &self,
        uid: &str,
        name: &str,
        order: CaptureOrder,
        theirs: std::os::fd::OwnedFd,
    ) -> Result<(), Refusal> {
        let ordered = Box::new((order, theirs));
        let answer = self
            .command(uid, |answer| Command::Capture(ordered, answer))
            .ok_or_else(|| Refusal::Unable(format!("the proxy of {name} is not connected")))?;
        match timeout(ANSWER_TIME, answer).await {
            Ok(Ok(reply)) if reply.error.is_empty() => Ok(()),
            Ok(Ok(reply)) => Err(Refusal::Unable(format!("{name}: {}", reply.error))),
            _ => Err(Refusal::Unable(format!(
                "the proxy of {name} did not answer, or does not know captures"
            ))),
        }
    }

    /// Has a capture end: what was seen until now still comes. Nothing happens to one that is over.
    pub(crate) fn stop_capture(&self, capture: &Capture) {
        capture.stop.cancel();
        self.tell(&capture.workload.uid, Command::StopCapture(capture.id));
    }
}
