//! Packet captures: a file that comes as the packets do.

use std::{io, sync::Arc};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Path, State},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use outrider_api::{CAPTURE_ID, CAPTURE_TYPE, Capture, CaptureRequest, CaptureState};
use tokio::task::yield_now;

use super::{Answer, Asked};
use crate::{
    captures::{self, Pump, Wish},
    node::{Node, Refusal},
};

pub(super) async fn start(
    State(node): Asked,
    Path(name): Path<String>,
    Json(asked): Json<CaptureRequest>,
) -> Result<Response, Refusal> {
    begin(&node, &name, asked).await
}

pub(super) async fn start_full(
    State(node): Asked,
    Path((namespace, name)): Path<(String, String)>,
    Json(asked): Json<CaptureRequest>,
) -> Result<Response, Refusal> {
    begin(&node, &format!("{namespace}/{name}"), asked).await
}

async fn begin(node: &Arc<Node>, name: &str, asked: CaptureRequest) -> Result<Response, Refusal> {
    let wish = Wish {
        filter: captures::filter(&asked.filter)?,
        loopback: asked.loopback,
        snap: asked.snap_length.unwrap_or(captures::MAX_SNAP),
        packets: asked.packets.unwrap_or_default(),
        bytes: asked.bytes.unwrap_or(captures::DEFAULT_BYTES),
        seconds: asked.seconds.unwrap_or(captures::DEFAULT_SECONDS),
    };
    let pump = node.start_capture(name, wish, false).await?;
    let id = pump.capture().id.to_string();
    let blocks = stream::unfold(pump, |mut pump: Pump| async move {
        let next = pump.next().await?;
        if next.is_err() {
            // An error cuts the answer off, so that nobody takes a part for the whole. What came before it
            // is sent first, as it is whenever there is nothing to do but to wait.
            yield_now().await;
        }
        Some((next.map(Bytes::from).map_err(io::Error::other), pump))
    });
    let headers = [(CONTENT_TYPE.as_str(), CAPTURE_TYPE), (CAPTURE_ID, id.as_str())];
    Ok((headers, Body::from_stream(blocks)).into_response())
}

pub(super) async fn list(State(node): Asked) -> Json<Vec<Capture>> {
    let all = node.captures().list();
    Json(all.iter().map(|capture| shown(capture)).collect())
}

/// Ends a capture that runs, and forgets one that is over.
pub(super) async fn stop(State(node): Asked, Path(id): Path<String>) -> Answer<Capture> {
    let capture = node.captures().get(&id)?;
    if capture.progress().state == captures::State::Running {
        node.stop_capture(&capture);
    } else {
        node.captures().remove(capture.id);
    }
    Ok(Json(shown(&capture)))
}

fn shown(capture: &captures::Capture) -> Capture {
    let progress = capture.progress();
    let (state, error) = match progress.state {
        captures::State::Running => (CaptureState::Running, None),
        captures::State::Ended => (CaptureState::Ended, None),
        captures::State::Failed(why) => (CaptureState::Failed, Some(why)),
    };
    Capture {
        id: capture.id.to_string(),
        workload: capture.workload.name.clone(),
        filter: capture.wish.filter.text().to_owned(),
        state,
        error,
        started: capture.started,
        ended: (progress.ended != 0).then_some(progress.ended),
        packets: progress.packets,
        bytes: progress.bytes,
        lost: progress.lost,
        stored: capture.spool.is_some(),
    }
}
