//! The task that reports: connects, asks to be admitted, sends what waits every few seconds.

use std::{io, path::Path, sync::Arc, time::Duration};

use outrider_api::share::{
    ClusAdmissionRequest, ClusConnectionArray, ClusReportResponse, ReportRespAction, RpcVoid,
    controller_agent_service_client::ControllerAgentServiceClient,
    controller_cap_service_client::ControllerCapServiceClient,
};
use outrider_telemetry::unix_seconds;
use thiserror::Error;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, codec::CompressionEncoding, transport::Channel};

use super::{
    Shared, State,
    counts::Outcome,
    host, row,
    table::{Key, Lost, Sum},
};
use crate::{
    grpc::{
        MAX_MESSAGE,
        dial::{self, Connection},
        tls::Certificates,
    },
    node::Node,
    pause::{LONGEST, pause, random},
};

/// Time between two reports, unless the controller says another.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);
/// The longest time it may say.
const MAX_INTERVAL: Duration = Duration::from_secs(300);
/// Rows of one report at most.
const MAX_ROWS: usize = 8192;
/// How long a call may take.
const CALL_TIME: Duration = Duration::from_secs(3);
/// How long the store may take at the end.
const STORE_TIME: Duration = Duration::from_secs(2);
/// Reports at the end, if so much waits.
const LAST_REPORTS: usize = 4;
/// Largest answer.
const MAX_ANSWER: usize = 64 * 1024;
/// Letters of a reason that are kept.
const MAX_REASON: usize = 200;
/// What goes on failing is logged about this often.
const LOG_EVERY: Duration = Duration::from_secs(300);

/// Why a connection is given up.
#[derive(Debug, Error)]
enum End {
    /// There is none.
    #[error("no connection: {0}")]
    Connect(#[from] io::Error),
    /// A call failed.
    #[error("{call}: {}: {}", status.code(), status.message())]
    Call {
        /// Which.
        call: &'static str,
        /// What the controller says, or the library.
        status: Box<Status>,
    },
    /// A call was not answered.
    #[error("{0}: no answer within {time} s", time = CALL_TIME.as_secs())]
    Silent(&'static str),
    /// The controller does not want us.
    #[error("not admitted: {0}")]
    Refused(String),
    /// It takes no reports.
    #[error("it takes no reports: most likely it is not the leader")]
    NotLeader,
    /// Our certificates are new.
    #[error("the certificates were renewed")]
    Renewed,
    /// The bridge stops.
    #[error("the bridge stops")]
    Stopped,
}

/// Rows under way, with the names that they have in the controller's log. As long as it is not
/// known what became of them, they are sent again as they were.
#[derive(Debug)]
struct Flight {
    rows: Vec<(Key, Sum)>,
    log_uids: Vec<String>,
    /// The controller may have them.
    is_doubtful: bool,
}

/// An admitted connection.
#[derive(Debug)]
struct Link {
    connection: Connection,
    client: ControllerAgentServiceClient<Channel>,
}

/// Everything that reporting needs.
#[derive(Debug)]
pub(super) struct Courier {
    shared: Arc<Shared>,
    node: Arc<Node>,
    certificates: Arc<Certificates>,
    stop: CancellationToken,
    flight: Option<Flight>,
    interval: Duration,
    due: Instant,
    /// Which of several addresses is tried first.
    turn: usize,
    failures: u32,
    logged: Option<Instant>,
}

impl Courier {
    pub(super) fn new(
        shared: Arc<Shared>,
        node: Arc<Node>,
        certificates: Arc<Certificates>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            shared,
            node,
            certificates,
            stop,
            flight: None,
            interval: INTERVAL,
            due: Instant::now() + INTERVAL,
            turn: 0,
            failures: 0,
            logged: None,
        }
    }

    /// Runs until `stop`; what cannot be reported then is counted.
    pub(super) async fn run(mut self) {
        tracing::info!(controller = self.shared.settings.target, "connections are reported");
        let stop = self.stop.clone();
        while !stop.is_cancelled() {
            let connected = stop.run_until_cancelled(Box::pin(self.connect())).await;
            let end = match connected.unwrap_or(Err(End::Stopped)) {
                Ok(link) => self.serve(link).await.unwrap_or_else(|end| end),
                Err(end) => end,
            };
            stop.run_until_cancelled(self.recover(end)).await;
        }
        self.leave();
    }

    /// Connects, finds out what is understood there, and asks to be admitted.
    async fn connect(&self) -> Result<Link, End> {
        let target = &self.shared.settings.target;
        let connection = dial::connect(target, self.turn, &self.certificates).await?;
        let mut client = ControllerAgentServiceClient::new(connection.channel.clone())
            .max_decoding_message_size(MAX_ANSWER)
            .max_encoding_message_size(MAX_MESSAGE);
        let mut capabilities = ControllerCapServiceClient::new(connection.channel.clone())
            .max_decoding_message_size(MAX_ANSWER);
        let asked = capabilities.is_grpc_compressed(within(RpcVoid {}));
        match answered("IsGRPCCompressed", asked).await {
            Ok(answer) if answer.value => {
                client = client
                    .send_compressed(CompressionEncoding::Gzip)
                    .accept_compressed(CompressionEncoding::Gzip);
            }
            // It has no such service: then it is not understood.
            Err(End::Call { status, .. }) if status.code() == Code::Unimplemented => {}
            Ok(_no) => {}
            Err(end) => return Err(end),
        }
        let us = &self.shared.settings;
        let (host_cp_us, host_memory) = host::size(Path::new("/proc"));
        let request = ClusAdmissionRequest {
            id: us.agent_id.clone(),
            host_id: us.host_id.clone(),
            host_cp_us,
            host_memory,
        };
        let asked = client.request_admission(within(request));
        let answer = answered("RequestAdmission", asked).await?;
        if !answer.allowed {
            return Err(End::Refused(answer.reason));
        }
        tracing::info!(controller = target, "the controller takes reports");
        self.shared.tell(State::Admitted, None);
        Ok(Link { connection, client })
    }

    /// Reports whenever it is time; the value says why that ended, as an error does.
    async fn serve(&mut self, mut link: Link) -> Result<End, End> {
        let stop = self.stop.clone();
        loop {
            if stop
                .run_until_cancelled(sleep_until(self.due))
                .await
                .is_none()
            {
                self.say_the_rest(&mut link).await?;
                return Ok(End::Stopped);
            }
            if link.connection.is_outdated(&self.certificates) {
                return Ok(End::Renewed);
            }
            self.due = (self.due + self.interval).max(Instant::now());
            if self.load()
                && stop
                    .run_until_cancelled(self.node.all_stored())
                    .await
                    .is_some()
            {
                self.send(&mut link).await?;
            }
        }
    }

    /// Has a report ready, if there is something to report: the last one that was not answered, or
    /// rows that wait.
    fn load(&mut self) -> bool {
        if self.flight.is_none() {
            let rows = self.shared.table.lock().take(MAX_ROWS);
            if !rows.is_empty() {
                let log_uids = rows.iter().map(|_| log_uid()).collect();
                self.flight = Some(Flight { rows, log_uids, is_doubtful: false });
            }
        }
        self.flight.is_some()
    }

    /// Sends the report that is ready. It is stored then: no proxy tells it again for want of an
    /// acknowledgement. An error ends the connection.
    async fn send(&mut self, link: &mut Link) -> Result<(), End> {
        const CALL: &str = "ReportConnections";
        let Some(flight) = &mut self.flight else { return Ok(()) };
        let counts = &self.shared.counts;
        if flight.is_doubtful {
            counts.repeated.inc_by(flight.rows.len() as u64);
        }
        let request = within(flight.message(&self.shared));
        let asked = link.client.report_connections(request);
        match answered(CALL, asked).await {
            Ok(answer) => self.settle(&answer),
            Err(end) if link.connection.is_over() || end.is_no() => {
                counts.call(Outcome::Failed, 1);
                self.take_back();
                Err(end)
            }
            Err(end) => {
                counts.call(Outcome::Unanswered, 1);
                flight.is_doubtful = true;
                Err(end)
            }
        }
    }

    /// Does as the controller says.
    fn settle(&mut self, answer: &ClusReportResponse) -> Result<(), End> {
        let counts = &self.shared.counts;
        if answer.report_interval != 0 {
            let asked = Duration::from_secs(answer.report_interval.into());
            self.interval = asked.min(MAX_INTERVAL);
            self.shared.told.lock().interval = self.interval.as_secs();
        }
        if answer.action == i32::from(ReportRespAction::Resend) {
            counts.call(Outcome::Resend, 1);
            self.take_back();
            // One that has too much to do says when to come again; one that does not lead does not.
            return if answer.report_interval == 0 { Err(End::NotLeader) } else { Ok(()) };
        }
        counts.call(Outcome::Done, 1);
        if let Some(flight) = self.flight.take() {
            let sessions = flight.rows.iter().map(|(_, sum)| sum.sessions);
            counts
                .sent_sessions
                .inc_by(sessions.fold(0, u64::saturating_add));
            counts.sent.inc_by(flight.rows.len() as u64);
            self.shared.table.lock().done_with(flight.rows.len());
        }
        self.shared.told.lock().last_report = Some(unix_seconds());
        if self.failures > 0 {
            tracing::info!(failures = self.failures, "the controller takes reports again");
        }
        (self.failures, self.logged) = (0, None);
        Ok(())
    }

    fn take_back(&mut self) {
        if let Some(flight) = self.flight.take() {
            self.shared.table.lock().take_back(flight.rows);
        }
    }

    /// The last reports.
    async fn say_the_rest(&mut self, link: &mut Link) -> Result<(), End> {
        for _ in 0..LAST_REPORTS {
            if !self.load() || timeout(STORE_TIME, self.node.all_stored()).await.is_err() {
                break;
            }
            self.send(link).await?;
        }
        Ok(())
    }

    /// Says why there is no connection, and waits until it may be tried again.
    async fn recover(&mut self, end: End) {
        let state = match end {
            End::Stopped => return,
            End::Renewed => {
                tracing::info!("the certificates are new: connecting to the controller again");
                return self.shared.tell(State::Connecting, None);
            }
            End::Refused(_) => State::Refused,
            _ => State::Failing,
        };
        let reason: String = end.to_string().chars().take(MAX_REASON).collect();
        self.failures = self.failures.saturating_add(1);
        self.turn = self.turn.wrapping_add(1);
        let now = Instant::now();
        if self
            .logged
            .is_none_or(|at| now.duration_since(at) >= LOG_EVERY)
        {
            self.logged = Some(now);
            tracing::warn!(
                reason,
                failures = self.failures,
                "the controller takes no reports; they wait and are tried again"
            );
        }
        self.shared.tell(state, Some(reason));
        sleep(pause(self.failures, LONGEST, random())).await;
    }

    /// Counts what was not reported.
    fn leave(&mut self) {
        self.take_back();
        let rows = self.shared.table.lock().take(usize::MAX);
        for (_, sum) in &rows {
            self.shared.counts.lost(Lost::Stopped, sum);
        }
        if !rows.is_empty() {
            tracing::warn!(rows = rows.len(), "the controller was not told everything");
        }
    }
}

impl Flight {
    fn message(&self, shared: &Shared) -> ClusConnectionArray {
        let rows = self.rows.iter().zip(&self.log_uids);
        let connections = rows
            .map(|((key, sum), log_uid)| row::message(key, sum, &shared.settings, log_uid))
            .collect();
        ClusConnectionArray { connections }
    }
}

impl End {
    /// Whether the controller said that it did not do what it was asked.
    fn is_no(&self) -> bool {
        let Self::Call { status, .. } = self else { return false };
        matches!(
            status.code(),
            Code::InvalidArgument
                | Code::NotFound
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::ResourceExhausted
                | Code::FailedPrecondition
                | Code::OutOfRange
                | Code::Unimplemented
        )
    }
}

/// A question that says how long there is to answer it.
fn within<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIME);
    request
}

/// The answer, if it comes in time.
async fn answered<T>(
    call: &'static str,
    asked: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, End> {
    match timeout(CALL_TIME, asked).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(End::Call { call, status: Box::new(status) }),
        Err(_late) => Err(End::Silent(call)),
    }
}

/// A name that nothing else has: a random UUID.
fn log_uid() -> String {
    let mut bytes = [0; 16];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        bytes = (u128::from(random()) << 64 | u128::from(random())).to_be_bytes();
    }
    let number = u128::from_be_bytes(bytes);
    let number = number & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{number:032x}");
    let mut text = String::with_capacity(36);
    for (at, digit) in hex.chars().enumerate() {
        if matches!(at, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_log_are_random_uuids() {
        let one = log_uid();
        let parts: Vec<_> = one.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12], "{one}");
        assert!(one[14..].starts_with('4') && "89ab".contains(&one[19..20]), "{one}");
        assert_ne!(one, log_uid());
    }
}
