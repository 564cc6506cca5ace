//! Connections to the API: so many at most, and none that keeps others out for nothing.
//!
//! Whoever connects holds a place. A place is idle while no whole request is there or the answer is
//! given; when all are taken, the one that has been idle longest makes room. So connections that are
//! kept, or on which a request is sent byte by byte, keep nobody out. Only who is being answered
//! cannot be sent away, and of those there are the listeners to events, of which there are fewer
//! than places.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body, response::Response, serve::Listener};
use futures_util::FutureExt;
use hyper::{
    Request,
    body::{Bytes, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;

use super::patient::Watched;
use crate::counts::{Counts, SentAway};

/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 32 << 10;
/// Most headers of a request.
const MAX_HEADERS: usize = 64;
/// What who finds no place is told.
const NO_PLACE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\
    content-type: application/json\r\ncontent-length: 56\r\n\r\n\
    {\"error\":\"too many connections already: try again soon\"}";

/// What one listener's clients may do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections at a time.
    pub(crate) places: usize,
    /// How long the head of a request may take, the time before its first byte included.
    pub(crate) head: Duration,
    /// How long requests under way may go on once the bridge stops.
    pub(crate) leave: Duration,
}

impl Limits {
    /// For the API.
    pub(crate) const API: Self =
        Self { places: 128, head: Duration::from_secs(15), leave: Duration::from_secs(1) };
    /// For metrics and health.
    pub(crate) const HEALTH: Self = Self { places: 32, ..Self::API };
}

/// Accepts until `stop`, then lets everybody go.
pub(crate) async fn serve<L: Listener>(
    mut listener: L,
    router: Router,
    limits: Limits,
    counts: Counts,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    let places = Arc::new(Places { most: limits.places, taken: Mutex::default() });
    loop {
        let (mut io, _from) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        if let Some(place) = places.take(&counts) {
            let watched = Watched::new(io, counts.clone());
            let connection = Connection { place, router: router.clone(), limits };
            connections.spawn(connection.run(watched, counts.clone(), stop.clone()));
        } else {
            counts.sent_away(SentAway::TooManyConnections);
            // A new socket has room for this; whoever it has none for learns it by the end.
            drop(io.write_all(NO_PLACE).now_or_never());
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

struct Connection {
    place: Place,
    router: Router,
    limits: Limits,
}

impl Connection {
    async fn run<S>(self, io: Watched<S>, counts: Counts, stop: CancellationToken)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let Self { place, router, limits } = self;
        let cut = place.cut.clone();
        let place = Arc::new(place);
        let answer = service_fn(move |request: Request<Incoming>| {
            let (busy, mut router) = (Busy::new(&place), router.clone());
            async move {
                let answered: Result<Response, Infallible> =
                    router.call(request.map(Body::new)).await;
                answered.map(|answer| answer.map(|body| Body::new(Given { body, _busy: busy })))
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_buf_size(2 * MAX_HEAD)
            .max_header_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(io), answer);
        let mut connection = pin!(connection);
        tokio::select! {
            biased;
            () = cut.cancelled() => {}
            ended = connection.as_mut() => {
                if ended.is_err_and(|error| error.is_timeout()) {
                    counts.sent_away(SentAway::NoRequest);
                }
            }
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                drop(timeout(limits.leave, connection).await);
            }
        }
    }
}

/// Who is connected to one listener.
#[derive(Debug)]
struct Places {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    by: BTreeMap<u64, Holder>,
}

#[derive(Debug)]
struct Holder {
    cut: CancellationToken,
    /// Since when; nothing while it is being answered.
    idle: Option<Instant>,
}

impl Places {
    /// A place, if need be the one of who has been idle longest.
    fn take(self: &Arc<Self>, counts: &Counts) -> Option<Place> {
        let mut taken = self.taken.lock();
        if taken.by.len() >= self.most {
            let idle = taken
                .by
                .iter()
                .filter_map(|(id, holder)| Some((holder.idle?, *id)));
            let (_, longest) = idle.min()?;
            if let Some(holder) = taken.by.remove(&longest) {
                holder.cut.cancel();
                counts.sent_away(SentAway::MadeRoom);
            }
        }
        taken.next += 1;
        let (id, cut) = (taken.next, CancellationToken::new());
        taken
            .by
            .insert(id, Holder { cut: cut.clone(), idle: Some(Instant::now()) });
        Some(Place { places: Arc::clone(self), id, cut })
    }
}

/// One connection's place, until it is dropped.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    id: u64,
    cut: CancellationToken,
}

impl Place {
    fn set_idle(&self, idle: Option<Instant>) {
        if let Some(holder) = self.places.taken.lock().by.get_mut(&self.id) {
            holder.idle = idle;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.lock().by.remove(&self.id);
    }
}

/// A request is being answered, until this is dropped.
#[derive(Debug)]
struct Busy(Arc<Place>);

impl Busy {
    fn new(place: &Arc<Place>) -> Self {
        place.set_idle(None);
        Self(Arc::clone(place))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set_idle(Some(Instant::now()));
    }
}

/// An answer's body, while which somebody is being answered.
struct Given {
    body: Body,
    _busy: Busy,
}

impl hyper::body::Body for Given {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
