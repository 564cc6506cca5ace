//! The stream of events, as `EventSource` reads it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::sse::{Event, KeepAlive, Sse},
};
use futures_util::{Stream, stream};
use outrider_api::{EventKind, EventsQuery, GAP};

use super::{lists::Whom, params::Params};
use crate::node::{Heard, Listener, Node, Refusal};

/// Time between two comments while nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Where a listener says what it has had.
const LAST_EVENT_ID: &str = "last-event-id";

pub(super) async fn events(
    State(node): State<Arc<Node>>,
    Params(wanted): Params<EventsQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    let kinds = kinds(wanted.kinds.as_deref())?;
    let after = match headers
        .get(LAST_EVENT_ID)
        .map(|value| value.to_str().map(str::parse))
    {
        None => None,
        Some(Ok(Ok(position))) => Some(position),
        Some(_) => {
            let wrong = "Last-Event-ID is none of ours: leave it out to start from now on";
            return Err(Refusal::Bad(wrong.into()));
        }
    };
    let Some(listener) = node.events().listen(&kinds, after) else {
        return Err(Refusal::Busy("too many listeners already: try again later".into()));
    };
    let whom = Whom { workload: wanted.workload, group: None, app: wanted.app };
    let stream = stream::unfold((listener, whom), |(mut listener, whom)| async move {
        loop {
            let heard = listener.next().await?;
            if heard.concerns(&whom) {
                return Some((Ok(written(&heard, &listener)), (listener, whom)));
            }
        }
    });
    let heartbeat = KeepAlive::new().interval(HEARTBEAT).text("still here");
    Ok(Sse::new(stream).keep_alive(heartbeat))
}

fn kinds(text: Option<&str>) -> Result<Vec<EventKind>, Refusal> {
    let Some(text) = text else { return Ok(EventKind::ALL.into()) };
    text.split(',')
        .map(|label| {
            EventKind::named(label.trim()).ok_or_else(|| {
                let all = EventKind::ALL.map(EventKind::label).join(", ");
                Refusal::Bad(format!("no kind of event {label:?}; there are {all}"))
            })
        })
        .collect()
}

fn written(heard: &Heard, listener: &Listener) -> Event {
    let event = Event::default().id(listener.position().to_string());
    let (event, written) = match heard {
        Heard::Event(kind, body) => (event.event(kind.label()), serde_json::to_string(body)),
        Heard::Gap(gap) => (event.event(GAP), serde_json::to_string(gap)),
    };
    // Types of ours always have a JSON form, and it has no line ends.
    event.data(written.unwrap_or_default())
}
