//! Connections of bridges: TLS, so many at most, of one address fewer.

use std::{collections::HashMap, io, net::IpAddr, sync::Arc, time::Duration};

use super::ca::Served;
use crate::grpc::accept::Held as Taken;
use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::task::TaskTracker;

/// Connections at once. A cluster of 5 000 nodes has as many and some that are about to end.
const MAX_CONNECTIONS: usize = 12_288;
/// Of one address. All bridges may come through one gateway, so this is no small number.
const MAX_OF_PEER: usize = 6_144;
/// How long a handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// After a failure to accept, which is most likely a lack of descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// A connection that counts among its peer's until it is dropped.
pub(super) type Held = Taken<TlsStream<TcpStream>, Place>;

/// Accepts until nobody takes connections any more.
pub(super) async fn accept(
    listener: TcpListener,
    served: Served,
    into: mpsc::Sender<io::Result<Held>>,
) {
    let open = Arc::new(Open::default());
    let handshakes = TaskTracker::new();
    while !into.is_closed() {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                sleep(PAUSE).await;
                continue;
            }
        };
        let Some(place) = open.enter(peer.ip().to_canonical()) else { continue };
        let (config, into) = (Arc::clone(&served.read()), into.clone());
        handshakes.spawn(async move {
            let shaken = TlsAcceptor::from(config).accept(stream);
            match timeout(HANDSHAKE_TIME, shaken).await {
                Ok(Ok(stream)) => drop(into.send(Ok(Taken { stream, _place: place })).await),
                Ok(Err(error)) => tracing::info!(%peer, %error, "no handshake"),
                Err(_elapsed) => tracing::info!(%peer, "no handshake in time"),
            }
        });
    }
}

#[derive(Debug, Default)]
struct Open(Mutex<(usize, HashMap<IpAddr, usize>)>);

/// A place among the connections.
#[derive(Debug)]
pub(super) struct Place(Arc<Open>, IpAddr);

impl Open {
    fn enter(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let mut open = self.0.lock();
        let mine = open.1.get(&peer).copied().unwrap_or_default();
        if open.0 >= MAX_CONNECTIONS || mine >= MAX_OF_PEER {
            return None;
        }
        open.0 += 1;
        open.1.insert(peer, mine + 1);
        Some(Place(Arc::clone(self), peer))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.0.0.lock();
        open.0 = open.0.saturating_sub(1);
        if let Some(mine) = open.1.get_mut(&self.1) {
            *mine = mine.saturating_sub(1);
            if *mine == 0 {
                open.1.remove(&self.1);
            }
        }
    }
}
