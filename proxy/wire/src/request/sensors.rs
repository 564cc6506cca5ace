//! DLP and WAF: which sensors a workload has, and what they look for.

use outrider_model::MacAddr;
use serde::Serialize;

use super::{fields::Fields, go};
use crate::{
    ChunkFlags, Directions, List, WireError,
    error::within,
    limits::{MAX_PATTERN, MAX_PATTERNS, MAX_RULE_NAME},
};

/// `ctrl_cfg_dlp`: the sensors of workloads, or a chunk of them.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct CfgDlp {
    /// Which chunk this is.
    #[serde(rename = "flag")]
    pub chunk: ChunkFlags,
    /// The workloads; none: ignore the request.
    #[serde(rename = "mac", serialize_with = "go::macs")]
    pub macs: List<MacAddr>,
    /// DLP rules to apply.
    pub dlp_rule_names: List<SensorChoice>,
    /// WAF rules to apply.
    pub waf_rule_names: List<SensorChoice>,
    /// Policy rules that `ruletype` speaks of.
    pub rule_ids: List<u32>,
    /// Policy rules that `wafruletype` speaks of.
    pub waf_rule_ids: List<u32>,
    /// `inside`, `outside` or nothing.
    pub ruletype: String,
    /// `wafinside`, `wafoutside` or nothing.
    pub wafruletype: String,
}

/// A rule to apply.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct SensorChoice {
    /// Which.
    pub id: u32,
    /// 1 to report, 2 to drop.
    pub action: u8,
}

impl CfgDlp {
    pub(super) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        Ok(Self {
            chunk: ChunkFlags(fields.u32("flag")),
            macs: fields.macs("mac")?,
            dlp_rule_names: SensorChoice::list(fields, "dlp_rule_names")?,
            waf_rule_names: SensorChoice::list(fields, "waf_rule_names")?,
            rule_ids: fields.numbers("rule_ids")?,
            waf_rule_ids: fields.numbers("waf_rule_ids")?,
            ruletype: fields.text("ruletype")?.to_owned(),
            wafruletype: fields.text("wafruletype")?.to_owned(),
        })
    }
}

impl SensorChoice {
    fn list(fields: Fields<'_>, name: &str) -> Result<List<Self>, WireError> {
        fields.list(name, |choice| {
            let choice = Fields::of(choice);
            Ok(Self { id: choice.u32("id"), action: choice.u8("action") })
        })
    }
}

/// `ctrl_cfg_dlpmac`: workloads without sensors.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct CfgDlpMac {
    /// The workloads; none: ignore the request.
    #[serde(serialize_with = "go::macs")]
    pub delmac: List<MacAddr>,
}

impl CfgDlpMac {
    pub(super) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        Ok(Self { delmac: fields.macs("delmac")? })
    }
}

/// `ctrl_bld_dlp`: compile a detector, or a chunk of its rules.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct BuildDlp {
    /// Which chunk this is.
    #[serde(rename = "flag")]
    pub chunk: ChunkFlags,
    /// Where policy applies.
    #[serde(rename = "dir")]
    pub directions: Directions,
    /// What to look for; none at the end: the workloads lose their detector.
    pub dlp_rules: List<SensorRule>,
    /// Workloads that use the new detector.
    #[serde(rename = "mac", serialize_with = "go::macs")]
    pub macs: List<MacAddr>,
    /// Workloads that lose theirs.
    #[serde(serialize_with = "go::macs")]
    pub delmac: List<MacAddr>,
}

/// What a sensor looks for.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct SensorRule {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u32,
    /// Its patterns, all of which must hold.
    pub patterns: List<String>,
}

impl BuildDlp {
    pub(super) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        Ok(Self {
            chunk: ChunkFlags(fields.u32("flag")),
            directions: Directions(fields.u32("dir")),
            dlp_rules: fields.list("dlp_rules", |rule| SensorRule::parse(Fields::of(rule)))?,
            macs: fields.macs("mac")?,
            delmac: fields.macs("delmac")?,
        })
    }
}

impl SensorRule {
    fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        let patterns = fields.texts("patterns")?;
        within("patterns", patterns.len(), MAX_PATTERNS)?;
        let longest = patterns.iter().map(String::len).max().unwrap_or_default();
        within("pattern bytes", longest, MAX_PATTERN)?;
        let name = fields.short_text("name", MAX_RULE_NAME)?;
        Ok(Self { name, id: fields.u32("id"), patterns })
    }
}

/// `ctrl_bld_dlpmac`: workloads that share, or lose, an existing detector.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct BuildDlpMac {
    /// A workload that has the detector; none: ignore the request.
    #[serde(serialize_with = "go::macs")]
    pub oldmac: List<MacAddr>,
    /// Workloads that use it as well.
    #[serde(serialize_with = "go::macs")]
    pub addmac: List<MacAddr>,
    /// Workloads that lose theirs.
    #[serde(serialize_with = "go::macs")]
    pub delmac: List<MacAddr>,
}

impl BuildDlpMac {
    pub(super) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        Ok(Self {
            oldmac: fields.macs("oldmac")?,
            addmac: fields.macs("addmac")?,
            delmac: fields.macs("delmac")?,
        })
    }
}
