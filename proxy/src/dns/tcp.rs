//! Questions that come by a connection: one upstream connection for each, bytes as they came.
//!
//! Ids need no change here: nobody else shares the connection. Everything the server says goes on, be it
//! the hundredth message of a zone transfer; only what answers a question of this connection teaches.

use std::{net::IpAddr, sync::Arc, time::Duration};

use nix::sys::socket::{
    getsockopt,
    sockopt::{Ip6tOriginalDst, OriginalDst},
};
use outrider_relay::{Delivery, dial};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use super::{Asker, metrics::Transport, pass::Passing};
use crate::settings::Secret;

/// Connections at once; one more is reset.
pub(crate) const MAX_CONNECTIONS: usize = 128;
/// How long to wait after accepting failed.
const PAUSE: Duration = Duration::from_millis(10);

/// Takes connections until `stop`; those open end with the tracker's owner.
pub(crate) async fn serve(
    asker: Arc<Asker>,
    listener: TcpListener,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((client, _peer)) => take(&asker, &tasks, client),
            Err(error) => {
                debug!(%error, "accept failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn take(asker: &Arc<Asker>, tasks: &TaskTracker, client: TcpStream) {
    match Arc::clone(&asker.connections).try_acquire_owned() {
        Ok(slot) => {
            let asker = Arc::clone(asker);
            tasks.spawn(async move {
                relay(&asker, client).await;
                drop(slot);
            });
        }
        Err(_all_taken) => {
            asker.metrics.connection_refused();
            let _closed_anyway = client.set_zero_linger();
        }
    }
}

/// Passes a connection on to the first server that says anything.
async fn relay(asker: &Asker, mut client: TcpStream) {
    let _without_it_slower = client.set_nodelay(true);
    let passing = Passing::new(asker);
    if !passing.first_bytes(&mut client).await {
        return;
    }
    for server in asker.resolvers.order(meant(&client)) {
        let mark = asker.mark.map(Secret::reveal);
        let delivery = Delivery { mark, ..Delivery::to(server) };
        match dial(delivery, asker.resolvers.patience(), &asker.legs).await {
            Ok(upstream) => {
                if passing.pass(&mut client, upstream).await {
                    return asker.resolvers.trust(server);
                }
            }
            Err(error) => debug!(%server, %error, "not connected"),
        }
        asker.resolvers.suspect(server);
        asker.metrics.failover(Transport::Tcp);
    }
}

/// Whom the client meant, if a rule brought it here.
fn meant(client: &TcpStream) -> Option<IpAddr> {
    let local = client.local_addr().ok()?.ip();
    let meant: IpAddr = match local {
        IpAddr::V4(_) => {
            let found = getsockopt(client, OriginalDst).ok()?;
            u32::from_be(found.sin_addr.s_addr).to_be_bytes().into()
        }
        IpAddr::V6(_) => getsockopt(client, Ip6tOriginalDst)
            .ok()?
            .sin6_addr
            .s6_addr
            .into(),
    };
    (meant != local).then_some(meant)
}
