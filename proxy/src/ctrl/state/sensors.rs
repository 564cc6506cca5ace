//! DLP and WAF: what the agent configured, put together, checked, counted and kept. Nothing looks
//! for it yet, and status and metrics say so.

use std::sync::Arc;

use outrider_model::MacAddr;
use outrider_wire::{
    chunk::Assembler,
    request::{BuildDlp, BuildDlpMac, CfgDlp, Request, SensorChoice, SensorRule},
};
use serde::Serialize;

use super::{Effect, Ignored, Outcome, assemble, endpoint::Endpoints};

/// What one workload has.
#[derive(Clone, Debug, Default)]
pub(super) struct Sensors {
    /// The rules that apply to it.
    chosen: Option<Arc<CfgDlp>>,
    /// What they look for.
    detector: Option<Arc<Detector>>,
}

/// A detector as it would be compiled.
#[derive(Debug, Default)]
struct Detector {
    rules: Vec<SensorRule>,
    /// Rules that are not among them: a number, a name or a pattern that is none.
    refused: usize,
}

/// What is kept of the workload that governs, in numbers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub(crate) struct SensorTotals {
    /// DLP rules that apply to it.
    pub dlp: usize,
    /// WAF rules that apply to it.
    pub waf: usize,
    /// Rules of its detector.
    pub rules: usize,
    /// Their patterns.
    pub patterns: usize,
    /// Rules and choices that are not what they should be, and were left out.
    pub refused: usize,
    /// Whether anything looks for them: not yet.
    pub enforced: bool,
}

impl Sensors {
    /// In numbers.
    pub(super) fn totals(&self) -> SensorTotals {
        let chosen = self.chosen.as_deref();
        let [dlp, waf] = [DLP, WAF].map(|kind| chosen.map_or((0, 0), |chosen| kind.count(chosen)));
        let detector = self.detector.as_deref();
        let rules = detector.map_or(&[][..], |detector| &detector.rules);
        let refused = detector.map_or(0, |detector| detector.refused);
        SensorTotals {
            dlp: dlp.0,
            waf: waf.0,
            rules: rules.len(),
            patterns: rules.iter().map(|rule| rule.patterns.len()).sum(),
            refused: refused.saturating_add(dlp.1).saturating_add(waf.1),
            enforced: false,
        }
    }
}

/// A kind of sensors: the list of its choices, and the numbers that its rules have.
struct Kind {
    list: fn(&CfgDlp) -> &[SensorChoice],
    ids: std::ops::RangeInclusive<u32>,
}

impl Kind {
    /// Choices that hold, and those that do not.
    fn count(&self, chosen: &CfgDlp) -> (usize, usize) {
        let all = (self.list)(chosen);
        let sound = |choice: &&SensorChoice| {
            self.ids.contains(&choice.id) && matches!(choice.action, REPORT | DROP)
        };
        let good = all.iter().filter(sound).count();
        (good, all.len().saturating_sub(good))
    }
}

/// The agent's own rules and those that it brings along.
const DLP: Kind = Kind { list: |chosen| &chosen.dlp_rule_names, ids: 20_000..=39_999 };
const WAF: Kind = Kind { list: |chosen| &chosen.waf_rule_names, ids: 40_000..=49_999 };
const REPORT: u8 = 1;
const DROP: u8 = 2;

/// Sequences of chunks that are on their way.
#[derive(Debug, Default)]
pub(super) struct Pending {
    choices: Assembler<CfgDlp>,
    builds: Assembler<BuildDlp>,
}

impl Pending {
    /// Carries out one of the four requests about sensors; another one changes nothing.
    pub(super) fn carry_out(&mut self, request: Request, endpoints: &mut Endpoints) -> Outcome {
        match request {
            Request::CfgDlp(chunk) => match assemble(&mut self.choices, chunk)? {
                Some(whole) => watched(endpoints, |endpoints| choose(whole, endpoints)),
                None => Ok(Vec::new()),
            },
            Request::CfgDlpMac(asked) => watched(endpoints, |endpoints| {
                named(&asked.delmac)?;
                change(endpoints, &asked.delmac, |sensors| sensors.chosen = None)
            }),
            Request::BuildDlp(chunk) => match assemble(&mut self.builds, chunk)? {
                Some(whole) => watched(endpoints, |endpoints| build(&whole, endpoints)),
                None => Ok(Vec::new()),
            },
            Request::BuildDlpMac(asked) => watched(endpoints, |endpoints| share(&asked, endpoints)),
            _ => Ok(Vec::new()),
        }
    }
}

/// Carries out what may change the sensors of the workload that governs, and says if it did.
pub(super) fn watched(
    endpoints: &mut Endpoints,
    how: impl FnOnce(&mut Endpoints) -> Outcome,
) -> Outcome {
    let before = endpoints.sensor_totals();
    let mut effects = how(endpoints)?;
    let after = endpoints.sensor_totals();
    effects.extend((before != after).then_some(Effect::SensorsChanged(after)));
    Ok(effects)
}

fn choose(whole: CfgDlp, endpoints: &mut Endpoints) -> Outcome {
    named(&whole.macs)?;
    let whole = Arc::new(whole);
    change(endpoints, &whole.macs, |sensors| sensors.chosen = Some(Arc::clone(&whole)))
}

/// Gives workloads a new detector; without rules they lose theirs.
fn build(whole: &BuildDlp, endpoints: &mut Endpoints) -> Outcome {
    let all = whole.dlp_rules.len();
    let mut room = MAX_DETECTOR_TEXT;
    let fits = |rule: &&SensorRule| {
        let left = room.checked_sub(length(rule)).filter(|_| is_sound(rule));
        room = left.unwrap_or(room);
        left.is_some()
    };
    let rules: Vec<_> = whole.dlp_rules.iter().filter(fits).cloned().collect();
    let refused = all.saturating_sub(rules.len());
    let detector = (all > 0).then(|| Arc::new(Detector { rules, refused }));
    change(endpoints, &whole.macs, |sensors| sensors.detector.clone_from(&detector))?;
    change(endpoints, &whole.delmac, |sensors| sensors.detector = None)
}

/// Lets workloads share the detector of one that has it.
fn share(asked: &BuildDlpMac, endpoints: &mut Endpoints) -> Outcome {
    named(&asked.oldmac)?;
    let mut from = asked.oldmac.iter();
    let shared = from.find_map(|mac| endpoints.sensors(*mac)?.detector.clone());
    if shared.is_some() {
        change(endpoints, &asked.addmac, |sensors| sensors.detector.clone_from(&shared))?;
    }
    change(endpoints, &asked.delmac, |sensors| sensors.detector = None)
}

fn named(macs: &[MacAddr]) -> Result<(), Ignored> {
    if macs.is_empty() { Err(Ignored::NoWorkload) } else { Ok(()) }
}

/// Changes what registered workloads have; others are passed over.
fn change(
    endpoints: &mut Endpoints,
    macs: &[MacAddr],
    mut how: impl FnMut(&mut Sensors),
) -> Outcome {
    for mac in macs {
        endpoints.sensors(*mac).map(&mut how);
    }
    Ok(Vec::new())
}

/// Whether the data path would compile a rule.
fn is_sound(rule: &SensorRule) -> bool {
    let known = DLP.ids.contains(&rule.id) || WAF.ids.contains(&rule.id);
    let named = !rule.name.is_empty() && !rule.name.contains(NOT_IN_NAMES);
    known
        && named
        && length(rule) < MAX_RULE_TEXT
        && !rule.patterns.is_empty()
        && rule.patterns.iter().all(|pattern| is_pattern(pattern))
}

fn length(rule: &SensorRule) -> usize {
    let patterns = rule.patterns.iter().map(String::len);
    patterns.fold(rule.name.len(), usize::saturating_add)
}

/// `[!]/expression/flags; context where`, and no semicolon before that one.
fn is_pattern(text: &str) -> bool {
    let text = text.strip_prefix('!').unwrap_or(text);
    let Some((pattern, context)) = text.split_once("; context ") else { return false };
    let Some((expression, flags)) = pattern
        .strip_prefix('/')
        .and_then(|rest| rest.rsplit_once('/'))
    else {
        return false;
    };
    !expression.is_empty()
        && !expression.contains(';')
        && flags.chars().all(|flag| FLAGS.contains(flag))
        && CONTEXTS.contains(&context)
}

const NOT_IN_NAMES: [char; 7] = ['<', '>', '(', ')', '#', '"', '\''];
const FLAGS: &str = "imsxAEG";
const CONTEXTS: [&str; 5] = ["url", "header", "body", "packet", "sql_query"];
/// The data path writes a rule into a buffer of so many bytes.
const MAX_RULE_TEXT: usize = 2048;
/// Text of all rules of a detector, in bytes.
const MAX_DETECTOR_TEXT: usize = 4 << 20;

#[cfg(test)]
mod tests;
