//! What became of the reports.

use outrider_telemetry::{Counter, CounterFamily, Gauge, MetricError, Registry};

use super::table::{Lost, Sum};

/// How a call ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// The controller has the rows.
    Done,
    /// It wants them again.
    Resend,
    /// It does not want them now, or they did not reach it.
    Failed,
    /// Whether it has them is not known.
    Unanswered,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Done, Self::Resend, Self::Failed, Self::Unanswered];

    fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Resend => "resend",
            Self::Failed => "failed",
            Self::Unanswered => "unanswered",
        }
    }
}

/// Handles to the families.
#[derive(Clone, Debug)]
pub(super) struct ControllerCounts {
    calls: CounterFamily,
    lost: CounterFamily,
    lost_sessions: CounterFamily,
    /// Sessions of rows that were taken in.
    pub(super) taken: Counter,
    /// Rows that the controller has.
    pub(super) sent: Counter,
    /// Their sessions.
    pub(super) sent_sessions: Counter,
    /// Rows that were sent again though the controller may have them.
    pub(super) repeated: Counter,
    /// Rows that wait.
    pub(super) waiting: Gauge,
    /// 1 while it takes reports.
    pub(super) admitted: Gauge,
}

impl ControllerCounts {
    /// Registers the families; every label is there from the start.
    ///
    /// # Errors
    /// When a name is taken.
    pub(super) fn register(registry: &Registry) -> Result<Self, MetricError> {
        let named = |name: &str| format!("outrider_neuvector_{name}");
        let counter = |name: &str, help: &str| registry.counter(&named(name), help);
        let counts = Self {
            calls: registry.counters(
                &named("calls_total"),
                "Reports to the controller, by outcome.",
                &["outcome"],
            )?,
            lost: registry.counters(
                &named("rows_lost_total"),
                "Rows that the controller never gets, by reason.",
                &["reason"],
            )?,
            lost_sessions: registry.counters(
                &named("sessions_lost_total"),
                "Sessions of such rows, by reason.",
                &["reason"],
            )?,
            taken: counter("sessions_taken_total", "Sessions to be reported to the controller.")?,
            sent: counter("rows_sent_total", "Rows that the controller confirmed.")?,
            sent_sessions: counter("sessions_sent_total", "Sessions of such rows.")?,
            repeated: counter(
                "rows_repeated_total",
                "Rows sent again because it is not known whether the controller has them.",
            )?,
            waiting: registry.gauge(&named("rows_waiting"), "Rows that wait to be reported.")?,
            admitted: registry
                .gauge(&named("admitted"), "1 while the controller takes reports.")?,
        };
        Outcome::ALL.into_iter().for_each(|how| counts.call(how, 0));
        for why in Lost::ALL {
            counts.lost.with(&[why.label()]).inc_by(0);
            counts.lost_sessions.with(&[why.label()]).inc_by(0);
        }
        Ok(counts)
    }

    pub(super) fn call(&self, how: Outcome, count: u64) {
        self.calls.with(&[how.label()]).inc_by(count);
    }

    pub(super) fn lost(&self, why: Lost, sum: &Sum) {
        self.lost.with(&[why.label()]).inc();
        self.lost_sessions.with(&[why.label()]).inc_by(sum.sessions);
    }

    /// Rows that were lost for any reason.
    pub(super) fn all_lost(&self) -> u64 {
        Lost::ALL
            .iter()
            .map(|why| self.lost.with(&[why.label()]).get())
            .fold(0, u64::saturating_add)
    }
}
