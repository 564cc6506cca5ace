//! One question, asked of the pod's name servers over UDP until one of them answers.
//!
//! Each server is asked from a socket of its own, connected to it, on a port that the kernel draws,
//! under an id that we draw: who answers must be the server and know both. A server that does not
//! answer in time, or says that it cannot, is no reason for the question to fail as long as another one
//! has not been asked.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd as _,
    task::Poll,
    time::Duration,
};

use nix::sys::socket::{MsgFlags, recv};
use outrider_dpi::dns_message::MAX_DNS_MESSAGE;
use tokio::{io::Interest, net::UdpSocket, time::Instant};
use tracing::debug;

use super::{
    Asker,
    asked::{Asked, Meaning, with_id},
    metrics::{Outcome, Transport},
};

#[cfg(test)]
mod tests;

thread_local! {
    /// Where datagrams are received: none is longer.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; MAX_DNS_MESSAGE]);
}

/// One server that was asked.
struct Attempt {
    socket: UdpSocket,
    server: SocketAddr,
    id: u16,
}

/// What was heard.
enum Heard {
    Answer(Vec<u8>),
    Failure(Vec<u8>),
    /// The server is not there.
    Gone,
    /// Something that does not belong to the question.
    Stray,
    /// Nothing after all.
    Nothing,
}

/// Asks; the answer has the question's own id again. `None` if nobody answers while it matters.
pub(crate) async fn exchange(asker: &Asker, asked: &Asked) -> (Option<Vec<u8>>, Outcome) {
    let end = deadline(asker.resolvers.life());
    let mut waiting: Vec<Attempt> = Vec::new();
    let mut failure = None;
    let mut servers = asker.resolvers.order(None).into_iter().peekable();
    while let Some(server) = servers.next() {
        match Attempt::start(asker, asked, server).await {
            Ok(attempt) => waiting.push(attempt),
            Err(error) => debug!(%server, %error, "not asked"),
        }
        let last = servers.peek().is_none();
        let until = if last { end } else { deadline(asker.resolvers.patience()).min(end) };
        if let Some(answer) = hear(asker, asked, &mut waiting, &mut failure, until).await {
            return (Some(answer), Outcome::Answered);
        }
        if !last {
            asker.metrics.failover(Transport::Udp);
        }
    }
    waiting
        .iter()
        .for_each(|attempt| asker.resolvers.suspect(attempt.server));
    if waiting.is_empty() && failure.is_none() {
        return (Some(asked.failure()), Outcome::Unreachable);
    }
    let outcome = if failure.is_some() { Outcome::Failed } else { Outcome::Unanswered };
    (failure, outcome)
}

/// Listens to everybody who was asked, until one answers, all have failed or time is up. Who let the
/// time pass is suspect.
async fn hear(
    asker: &Asker,
    asked: &Asked,
    waiting: &mut Vec<Attempt>,
    failure: &mut Option<Vec<u8>>,
    until: Instant,
) -> Option<Vec<u8>> {
    while !waiting.is_empty() {
        let Ok(at) = tokio::time::timeout_at(until, first_ready(waiting)).await else {
            waiting
                .iter()
                .for_each(|attempt| asker.resolvers.suspect(attempt.server));
            return None;
        };
        let attempt = waiting.get(at)?;
        match attempt.receive(asked) {
            Heard::Answer(answer) => {
                asker.resolvers.trust(attempt.server);
                return Some(answer);
            }
            Heard::Failure(answer) => {
                failure.get_or_insert(answer);
                waiting.swap_remove(at);
            }
            Heard::Gone => {
                asker.resolvers.suspect(attempt.server);
                waiting.swap_remove(at);
            }
            Heard::Stray => asker.metrics.stray(),
            Heard::Nothing => {}
        }
    }
    None
}

/// The first of the sockets that has something to read. Cancel safe.
async fn first_ready(waiting: &[Attempt]) -> usize {
    let sockets = waiting
        .iter()
        .map(|attempt| Box::pin(attempt.socket.ready(HEARD)));
    let mut sockets: Vec<_> = sockets.collect();
    poll_fn(|context| {
        let first = sockets
            .iter_mut()
            .position(|socket| socket.as_mut().poll(context).is_ready());
        first.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

impl Attempt {
    async fn start(asker: &Asker, asked: &Asked, server: SocketAddr) -> io::Result<Self> {
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        asker.mark(&socket)?;
        socket.connect(server).await?;
        let id = asker.ids.draw();
        socket.send(&asked.under(id)).await?;
        Ok(Self { socket, server, id })
    }

    fn receive(&self, asked: &Asked) -> Heard {
        SCRATCH.with_borrow_mut(|scratch| match self.try_receive(scratch) {
            Ok(length) => {
                let message = scratch.get(..length).unwrap_or_default();
                let own = |message: &[u8]| with_id(message.to_vec(), asked.id());
                match asked.meaning(message, self.id) {
                    Some(Meaning::Answer) => Heard::Answer(own(message)),
                    Some(Meaning::Failure) => Heard::Failure(own(message)),
                    None => Heard::Stray,
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Heard::Nothing,
            Err(_refused) => Heard::Gone,
        })
    }

    /// Unlike the runtime's own call, takes an error for something to receive. One interest at a
    /// time: the runtime takes two for none here.
    fn try_receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut receive = || Ok(recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?);
        match self.socket.try_io(Interest::READABLE, &mut receive) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.socket.try_io(Interest::ERROR, receive)
            }
            received => received,
        }
    }
}

/// What a server is heard by: a datagram, or the network's word that there is no server.
const HEARD: Interest = Interest::READABLE.add(Interest::ERROR);

fn deadline(after: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(after).unwrap_or(now)
}
