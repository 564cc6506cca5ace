//! Limits of meters: `off`, `on`, or `<upper>[/<span seconds>[/<lower>]]`.

use std::str::FromStr;

use outrider_packet::{MAX_TARGETS, MeterKind, MeterLimit};

use super::Reader;

/// The limits that the environment gives; of what it says nothing, the defaults hold.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MeterSettings(Vec<(MeterKind, Choice)>);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Choice {
    Off,
    Limit(MeterLimit),
}

impl MeterSettings {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let choice = |kind: MeterKind| {
            let words = reader.optional::<Words>(key(kind))?;
            match words.choose(kind) {
                Ok(choice) => Some((kind, choice)),
                Err(error) => {
                    reader.errors.push(format!("{}: {error}", key(kind)));
                    None
                }
            }
        };
        Self(MeterKind::ALL.into_iter().filter_map(choice).collect())
    }

    /// The limit of a kind, if it is counted: `by_default` says so where the environment does not.
    #[must_use]
    pub fn limit(&self, kind: MeterKind, by_default: bool) -> Option<MeterLimit> {
        match self.0.iter().find(|(known, _)| *known == kind) {
            Some((_, Choice::Limit(limit))) => Some(*limit),
            Some((_, Choice::Off)) => None,
            None => by_default.then(|| kind.default_limit()),
        }
    }
}

fn key(kind: MeterKind) -> &'static str {
    match kind {
        MeterKind::SynFlood => "OUTRIDER_PROXY_METER_SYN_FLOOD",
        MeterKind::IcmpFlood => "OUTRIDER_PROXY_METER_ICMP_FLOOD",
        MeterKind::SourceSessions => "OUTRIDER_PROXY_METER_IP_SRC_SESSION",
        MeterKind::NoData => "OUTRIDER_PROXY_METER_TCP_NODATA",
        MeterKind::PortScan => "OUTRIDER_PROXY_METER_PORT_SCAN",
    }
}

/// What one variable says.
enum Words {
    Off,
    On,
    Numbers { upper: u32, span: Option<u8>, lower: Option<u32> },
}

impl FromStr for Words {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANTED: &str = "off, on, or <upper>[/<span, 1 to 255 seconds>[/<lower>]]";
        let mut words = text.split('/').map(str::trim);
        match text {
            "off" => return Ok(Self::Off),
            "on" => return Ok(Self::On),
            _ => {}
        }
        let upper = words
            .next()
            .and_then(|word| word.parse().ok())
            .ok_or(WANTED)?;
        let span = words
            .next()
            .map(str::parse)
            .transpose()
            .map_err(|_number| WANTED)?;
        let lower = words
            .next()
            .map(str::parse)
            .transpose()
            .map_err(|_number| WANTED)?;
        if words.next().is_some() { Err(WANTED) } else { Ok(Self::Numbers { upper, span, lower }) }
    }
}

impl Words {
    /// Fills in what is left out: the span of the default, and a lower limit in its proportion.
    fn choose(self, kind: MeterKind) -> Result<Choice, String> {
        let default = kind.default_limit();
        let (upper, span, lower) = match self {
            Self::Off => return Ok(Choice::Off),
            Self::On => return Ok(Choice::Limit(default)),
            Self::Numbers { upper, span, lower } => (upper, span, lower),
        };
        if kind == MeterKind::PortScan && upper > MAX_TARGETS {
            return Err(format!("the upper limit must be {MAX_TARGETS} at most"));
        }
        let scaled = u64::from(upper) * u64::from(default.lower()) / u64::from(default.upper());
        let lower = lower.unwrap_or_else(|| u32::try_from(scaled).unwrap_or(upper));
        MeterLimit::new(upper, span.unwrap_or(default.span()), lower)
            .map(Choice::Limit)
            .map_err(str::to_owned)
    }
}
