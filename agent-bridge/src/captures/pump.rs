//! What takes a capture out of its pipe, looks at it, and hands it on. Where nobody takes what it
//! hands on, it takes no more out of the pipe either: then the pod's kernel drops packets, and says so
//! in the file.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::pipe2,
};
use outrider_wire::pcapng::Checker;
use tokio::{
    net::unix::pipe,
    time::{Instant, sleep_until},
};

use super::{Capture, GRACE, State};

/// Bytes that are taken out of a pipe at once.
const CHUNK: usize = 64 * 1024;
/// What a pipe is to hold: a quarter of a proxy's ring.
const PIPE_BYTES: i32 = 1 << 20;

/// A capture on its way. Dropped, it ends the capture.
#[derive(Debug)]
pub(crate) struct Pump {
    capture: Arc<Capture>,
    pipe: pipe::Receiver,
    checker: Checker,
    buffer: Vec<u8>,
    deadline: Instant,
    stopping: bool,
}

/// Makes a pipe, the end that is written to for somebody else.
///
/// # Errors
/// What the system says.
pub(crate) fn open() -> io::Result<(pipe::Receiver, OwnedFd)> {
    // Both ends: whoever writes must never wait.
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    if let Err(error) = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)) {
        tracing::debug!(%error, "a capture's pipe stays small");
    }
    Ok((pipe::Receiver::from_owned_fd(reader)?, writer))
}

impl Pump {
    /// Begins to take out what comes.
    pub(crate) fn new(capture: Arc<Capture>, pipe: pipe::Receiver) -> Self {
        let time = Duration::from_secs(capture.wish.seconds.into());
        Self {
            capture,
            pipe,
            checker: Checker::default(),
            buffer: vec![0; CHUNK],
            deadline: Instant::now() + time + GRACE,
            stopping: false,
        }
    }

    /// Whose it is.
    pub(crate) fn capture(&self) -> &Capture {
        &self.capture
    }

    /// The next whole blocks; nothing at an orderly end. Nothing comes behind an error.
    pub(crate) async fn next(&mut self) -> Option<Result<Vec<u8>, String>> {
        if !self.capture.is_running() {
            return None;
        }
        match self.take().await {
            Ok(Some(bytes)) => Some(Ok(bytes)),
            Ok(None) => None,
            Err(why) => {
                self.fail(why.clone());
                Some(Err(why))
            }
        }
    }

    /// It breaks off.
    pub(crate) fn fail(&mut self, why: String) {
        self.capture.end(State::Failed(why), 0);
    }

    async fn take(&mut self) -> Result<Option<Vec<u8>>, String> {
        loop {
            tokio::select! {
                biased;
                () = self.capture.stop.cancelled(), if !self.stopping => {
                    self.stopping = true;
                    self.deadline = self.deadline.min(Instant::now() + GRACE);
                    if !self.capture.is_running() {
                        return Err("it was removed".to_owned());
                    }
                    continue;
                }
                () = sleep_until(self.deadline) => {
                    return Err("the proxy did not end it in time".to_owned());
                }
                ready = self.pipe.readable() => ready.map_err(|error| error.to_string())?,
            }
            match self.pipe.try_read(&mut self.buffer) {
                Ok(0) => return self.at_end().map(|()| None),
                Ok(length) => {
                    let out = self.check(length)?;
                    if !out.is_empty() {
                        return Ok(Some(out));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn check(&mut self, length: usize) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        let bytes = self.buffer.get(..length).unwrap_or_default();
        self.checker
            .feed(bytes, &mut out)
            .map_err(|error| format!("what the proxy sends is no capture: {error}"))?;
        self.capture.advance(out.len(), self.checker.packets());
        let (progress, wish) = (self.capture.progress(), &self.capture.wish);
        let too_many = wish.packets != 0 && progress.packets > wish.packets;
        if too_many || progress.bytes > wish.bytes {
            return Err("the proxy sends more than it was asked for".to_owned());
        }
        Ok(out)
    }

    fn at_end(&self) -> Result<(), String> {
        match self.checker.totals() {
            Some(totals) => {
                self.capture.end(State::Ended, totals.lost);
                Ok(())
            }
            None => Err("the proxy is gone, or broke off".to_owned()),
        }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.capture
            .end(State::Failed("who asked for it went away".to_owned()), 0);
    }
}
