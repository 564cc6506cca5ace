//! The sniffer calls: captures that the bridge keeps until they are removed.

use std::sync::Arc;

use outrider_api::share::{
    ClusSniffer, ClusSnifferArray, ClusSnifferDownload, ClusSnifferFilter, ClusSnifferPcap,
    ClusSnifferRequest, ClusSnifferResponse, SnifferCmd, SnifferStatus,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, codegen::BoxStream};

use crate::{
    captures::{self, Capture, State, Wish},
    node::Node,
};

/// Bytes of a download that come in one message.
const MESSAGE_BYTES: usize = 256 * 1024;
/// Messages of a download that wait for a client that reads slowly.
const MESSAGES_AHEAD: usize = 2;
/// Bytes of a file as they are counted in an order.
const MEGABYTE: u64 = 1 << 20;
/// Of an order that says no size.
const DEFAULT_MEGABYTES: u64 = 10;
/// Files that one capture may have; they are one here, as long as all of them.
const MAX_FILES: u32 = 256;

/// Starts, stops or removes one.
pub(super) async fn command(
    node: &Arc<Node>,
    asked: ClusSnifferRequest,
) -> Result<ClusSnifferResponse, Status> {
    match SnifferCmd::try_from(asked.cmd) {
        Ok(SnifferCmd::StartSniffer) => start(node, &asked).await,
        Ok(SnifferCmd::StopSniffer) => {
            let capture = node.captures().get(&asked.id)?;
            node.stop_capture(&capture);
            Ok(ClusSnifferResponse::default())
        }
        Ok(SnifferCmd::RemoveSniffer) => {
            let capture = node.captures().get(&asked.id)?;
            if capture.progress().state == State::Running {
                node.stop_capture(&capture);
            }
            node.captures().remove(capture.id);
            Ok(ClusSnifferResponse::default())
        }
        Err(_unknown) => Err(Status::invalid_argument("no such command")),
    }
}

async fn start(
    node: &Arc<Node>,
    asked: &ClusSnifferRequest,
) -> Result<ClusSnifferResponse, Status> {
    if asked.workload_id.is_empty() {
        return Err(Status::invalid_argument("which workload?"));
    }
    let files = u64::from(asked.file_number.clamp(1, MAX_FILES));
    let megabytes = match asked.file_size_in_mb {
        0 => DEFAULT_MEGABYTES,
        size => files.saturating_mul(size.into()),
    };
    let seconds = match asked.duration_in_second {
        0 => captures::MAX_SECONDS,
        seconds => seconds.min(captures::MAX_SECONDS),
    };
    let wish = Wish {
        filter: captures::filter(&asked.filter)?,
        loopback: false,
        snap: captures::MAX_SNAP,
        packets: 0,
        bytes: megabytes
            .saturating_mul(MEGABYTE)
            .min(captures::MAX_STORED_CAPTURE),
        seconds,
    };
    let pump = node.start_capture(&asked.workload_id, wish, true).await?;
    let id = pump.capture().id.to_string();
    node.captures().store(pump);
    Ok(ClusSnifferResponse { id })
}

/// One, those of a workload, or all.
pub(super) fn list(node: &Node, asked: &ClusSnifferFilter) -> Result<ClusSnifferArray, Status> {
    let named = (!asked.workload.is_empty()).then_some(asked.workload.as_str());
    let whom = node.workloads_of(named)?;
    let is_asked = |capture: &Arc<Capture>| {
        capture.spool.is_some()
            && (asked.id.is_empty() || capture.id.to_string() == asked.id)
            && (named.is_none() || whom.iter().any(|one| one.uid == capture.workload.uid))
    };
    let all = node.captures().list();
    let sniffers = all.iter().filter(|one| is_asked(one)).map(shown).collect();
    Ok(ClusSnifferArray { sniffers })
}

fn shown(capture: &Arc<Capture>) -> ClusSniffer {
    let progress = capture.progress();
    let status = match progress.state {
        State::Running => SnifferStatus::Running,
        State::Ended => SnifferStatus::Stopped,
        State::Failed(_) => SnifferStatus::Failed,
    };
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    ClusSniffer {
        id: capture.id.to_string(),
        agent_id: String::new(),
        workload_id: capture.workload.uid.clone(),
        status: status.into(),
        args: capture.wish.filter.text().to_owned(),
        file_number: 1,
        size: signed(progress.bytes),
        start_time: signed(capture.started),
        stop_time: signed(progress.ended),
    }
}

/// The file, as far as it is there.
pub(super) fn download(
    node: &Node,
    asked: &ClusSnifferDownload,
) -> Result<BoxStream<ClusSnifferPcap>, Status> {
    let capture = node.captures().get(&asked.id)?;
    let spool = capture.spool.clone().ok_or_else(|| {
        Status::failed_precondition("that capture is not kept: it went to who asked")
    })?;
    let (into, messages) = mpsc::channel(MESSAGES_AHEAD);
    node.captures().tasks().spawn(async move {
        let mut at = 0;
        loop {
            let read = spool.read(at, MESSAGE_BYTES).await;
            let message = match read {
                Ok(pcap) if pcap.is_empty() => return,
                Ok(pcap) => {
                    at += pcap.len() as u64;
                    Ok(ClusSnifferPcap { pcap })
                }
                Err(error) => Err(Status::internal(error.to_string())),
            };
            if into.send(message).await.is_err() {
                return;
            }
        }
    });
    Ok(Box::pin(ReceiverStream::new(messages)))
}
