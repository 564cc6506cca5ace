//! A client's connection and its server's, bytes passed as they come.

use std::{future::pending, io, time::Duration};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    time::{Instant, sleep_until, timeout},
};

use super::{
    Asker,
    asked::{Asked, Meaning},
    frames::Frames,
    metrics::{Outcome, Transport},
};

#[cfg(test)]
mod tests;

/// Questions of a connection that wait for an answer, as far as they are counted and teach.
pub(crate) const MAX_WAITING: usize = 256;
/// Bytes of a client that can be said again to another server.
pub(crate) const MAX_SAID: usize = 64 << 10;
/// Bytes read at once.
const CHUNK: usize = 16 << 10;
/// Longest silence of a connection.
pub(crate) const IDLE: Duration = Duration::from_secs(30);

/// One client's connection, whichever server it is passed to.
#[derive(Debug)]
pub(super) struct Passing<'a> {
    asker: &'a Asker,
    talk: Mutex<Talk>,
}

/// What was said, as far as it is remembered.
#[derive(Debug)]
struct Talk {
    questions: Frames,
    answers: Frames,
    waiting: Vec<Asked>,
    /// What the client said while no server has said anything; `None` once it cannot be said again.
    said: Option<Vec<u8>>,
    client_ended: bool,
    moved: Instant,
}

impl<'a> Passing<'a> {
    pub(super) fn new(asker: &'a Asker) -> Self {
        Self { asker, talk: Mutex::new(Talk::new()) }
    }

    /// Waits for the client's first bytes: without any, no server needs to know. `false` if it says
    /// nothing.
    pub(super) async fn first_bytes(&self, client: &mut TcpStream) -> bool {
        let mut buffer = vec![0; CHUNK];
        match timeout(IDLE, client.read(&mut buffer)).await {
            Ok(Ok(length)) if length > 0 => {
                self.hear_client(buffer.get(..length).unwrap_or_default());
                true
            }
            _ => false,
        }
    }

    /// Passes on until either side ends or both are silent. `false` if another server may be asked
    /// instead: this one said nothing, and what the client said can be said again.
    pub(super) async fn pass(&self, client: &mut TcpStream, mut server: TcpStream) -> bool {
        let (said, ended) = {
            let mut talk = self.talk.lock();
            talk.moved = Instant::now();
            (talk.said.clone().unwrap_or_default(), talk.client_ended)
        };
        if server.write_all(&said).await.is_err() {
            return false;
        }
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            _failed = self.upwards(from_client, to_server, ended) => {}
            _ended = self.downwards(from_server, to_client) => {}
            () = self.silence() => {}
        }
        self.talk.lock().said.is_none()
    }

    /// The client's bytes. The end of them is not the end of the connection: answers may be due.
    async fn upwards(
        &self,
        mut client: ReadHalf<'_>,
        mut server: WriteHalf<'_>,
        mut ended: bool,
    ) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        while !ended {
            let length = client.read(&mut buffer).await?;
            let chunk = buffer.get(..length).unwrap_or_default();
            self.hear_client(chunk);
            server.write_all(chunk).await?;
            ended = length == 0;
        }
        server.shutdown().await?;
        pending().await
    }

    /// The server's bytes; what they teach counts before the client has them.
    async fn downwards(
        &self,
        mut server: ReadHalf<'_>,
        mut client: WriteHalf<'_>,
    ) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let length = server.read(&mut buffer).await?;
            if length == 0 {
                return Ok(());
            }
            let chunk = buffer.get(..length).unwrap_or_default();
            self.hear_server(chunk);
            client.write_all(chunk).await?;
        }
    }

    /// Returns when nothing has moved for too long. A server that said nothing is given less time.
    async fn silence(&self) {
        loop {
            let (moved, silent) = {
                let talk = self.talk.lock();
                (talk.moved, talk.said.is_some() && !talk.waiting.is_empty())
            };
            let patience = if silent { self.asker.resolvers.life().min(IDLE) } else { IDLE };
            let end = moved.checked_add(patience).unwrap_or(moved);
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }

    fn hear_client(&self, chunk: &[u8]) {
        let malformed = self.talk.lock().hear_client(chunk);
        for _ in 0..malformed {
            self.asker.metrics.query(Transport::Tcp, Outcome::Malformed);
        }
    }

    fn hear_server(&self, chunk: &[u8]) {
        self.talk
            .lock()
            .hear_server(chunk, |asked, answer, meaning| {
                let outcome = match meaning {
                    Meaning::Answer => Outcome::Answered,
                    Meaning::Failure => Outcome::Failed,
                };
                self.asker.metrics.query(Transport::Tcp, outcome);
                self.asker.learn(asked, answer);
            });
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        for _left in &self.talk.lock().waiting {
            self.asker
                .metrics
                .query(Transport::Tcp, Outcome::Unanswered);
        }
    }
}

impl Talk {
    fn new() -> Self {
        Self {
            questions: Frames::default(),
            answers: Frames::default(),
            waiting: Vec::new(),
            said: Some(Vec::new()),
            client_ended: false,
            moved: Instant::now(),
        }
    }

    /// Notes questions; an empty chunk is the end. Says how many messages were none.
    fn hear_client(&mut self, chunk: &[u8]) -> usize {
        self.moved = Instant::now();
        self.client_ended |= chunk.is_empty();
        let mut malformed = 0_usize;
        let waiting = &mut self.waiting;
        self.questions
            .feed(chunk, |message| match Asked::read(message) {
                Some(asked) if waiting.len() < MAX_WAITING => waiting.push(asked),
                Some(_not_counted) => {}
                None => malformed = malformed.saturating_add(1),
            });
        if let Some(said) = &mut self.said {
            said.extend_from_slice(chunk);
            if said.len() > MAX_SAID {
                self.said = None;
            }
        }
        malformed
    }

    /// Finds what is answered.
    fn hear_server(&mut self, chunk: &[u8], mut answered: impl FnMut(&Asked, &[u8], Meaning)) {
        self.moved = Instant::now();
        self.said = None;
        let waiting = &mut self.waiting;
        self.answers.feed(chunk, |message| {
            let found = waiting.iter().enumerate().find_map(|(at, asked)| {
                asked
                    .meaning(message, asked.id())
                    .map(|meaning| (at, meaning))
            });
            if let Some((at, meaning)) = found {
                let asked = waiting.remove(at);
                answered(&asked, message, meaning);
            }
        });
    }
}
