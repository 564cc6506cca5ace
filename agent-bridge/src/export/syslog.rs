//! Syslog over TCP or TLS, with octet counting.
//!
//! The protocol has no acknowledgement. A batch counts as delivered when it was written whole and
//! the connection then neither failed nor was closed for a while: what the receiver's system did
//! not take would have made it fail.

use std::{path::PathBuf, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    event::Event,
    rfc5424::{frame, message},
    settings::SyslogTarget,
    sink::Failure,
    spool::Entry,
};
use crate::connect::{Peer, Stream};

/// How long the receiver's system may take to confirm bytes.
const LOST_AFTER: Duration = Duration::from_millis(1500);
/// How long a connection must live on after a batch: longer, so that lost bytes are noticed.
const SETTLED_AFTER: Duration = Duration::from_secs(3);

/// A receiver and the connection to it.
#[derive(Debug)]
pub(super) struct Syslog {
    peer: Peer,
    facility: u8,
    stream: Option<Box<dyn Stream>>,
}

impl Syslog {
    /// Connects when there is something to say.
    pub(super) fn new(target: SyslogTarget, ca: Option<PathBuf>) -> Self {
        let SyslogTarget { host, port, tls, facility } = target;
        Self {
            peer: Peer { host, port, tls, ca, lost_after: Some(LOST_AFTER) },
            facility,
            stream: None,
        }
    }

    /// Writes the batch and waits until it is settled. The connection is kept only if it is.
    pub(super) async fn deliver(&mut self, batch: &[Entry]) -> Result<(), Failure> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.peer.connect().await?,
        };
        let mut frames = String::new();
        for entry in batch {
            if let Ok(event) = serde_json::from_str::<Event>(&entry.json) {
                frames.push_str(&frame(&message(&event, self.facility)));
            }
        }
        stream.write_all(frames.as_bytes()).await?;
        stream.flush().await?;
        settle(&mut stream).await?;
        self.stream = Some(stream);
        Ok(())
    }
}

/// Watches the connection; what the receiver says is not ours to read.
async fn settle(stream: &mut Box<dyn Stream>) -> Result<(), Failure> {
    let mut said = [0; 256];
    let watched = async {
        loop {
            match stream.read(&mut said).await {
                Ok(0) => return Failure::Closed,
                Ok(_) => {}
                Err(error) => return error.into(),
            }
        }
    };
    match timeout(SETTLED_AFTER, watched).await {
        Ok(failure) => Err(failure),
        Err(_quiet) => Ok(()),
    }
}
