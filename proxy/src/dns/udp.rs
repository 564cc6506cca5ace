//! Questions that come as datagrams.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use outrider_dpi::dns_message::MAX_DNS_MESSAGE;
use tokio::{net::UdpSocket, sync::OwnedSemaphorePermit};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use super::{
    Asker,
    asked::Asked,
    exchange::exchange,
    metrics::{Outcome, Transport},
};

/// Questions under way at once: each costs a socket. One more is dropped, as a network would; who
/// asked asks again.
pub(crate) const MAX_QUESTIONS: usize = 1_024;

/// Takes questions until `stop`; those under way end with the tracker's owner.
pub(crate) async fn serve(
    asker: Arc<Asker>,
    socket: UdpSocket,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; MAX_DNS_MESSAGE];
    loop {
        let received = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        match received {
            Ok((length, client)) => {
                let message = buffer.get(..length).unwrap_or_default();
                take(&asker, &socket, &tasks, message, client);
            }
            Err(error) => {
                debug!(%error, "receiving failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn take(
    asker: &Arc<Asker>,
    socket: &Arc<UdpSocket>,
    tasks: &TaskTracker,
    message: &[u8],
    client: SocketAddr,
) {
    let Some(asked) = Asked::read(message) else {
        return asker.metrics.query(Transport::Udp, Outcome::Malformed);
    };
    match Arc::clone(&asker.questions).try_acquire_owned() {
        Ok(slot) => {
            let (asker, socket) = (Arc::clone(asker), Arc::clone(socket));
            tasks.spawn(async move { answer(&asker, &socket, &asked, client, slot).await });
        }
        Err(_all_taken) => asker.metrics.query(Transport::Udp, Outcome::Overflow),
    }
}

/// Asks, learns and hands over, in this order: an address counts before anybody can use it.
async fn answer(
    asker: &Asker,
    socket: &UdpSocket,
    asked: &Asked,
    client: SocketAddr,
    _slot: OwnedSemaphorePermit,
) {
    let (answer, mut outcome) = exchange(asker, asked).await;
    if let Some(answer) = answer {
        asker.learn(asked, &answer);
        if let Err(error) = socket.send_to(&answer, client).await {
            debug!(%client, %error, "answer not delivered");
            outcome = Outcome::Undelivered;
        }
    }
    asker.metrics.query(Transport::Udp, outcome);
}

/// How long to wait after receiving failed.
const PAUSE: Duration = Duration::from_millis(10);
