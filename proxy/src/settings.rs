//! Settings: read from the environment, every mistake reported at once, shown once.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use outrider_model::{Mode, ThreatId, names};

pub use meters::MeterSettings;
pub use packets::{CaptureChoice, MAX_UNCAPTURED, PacketSettings, PacketsChoice, QueueRule};
pub use probes::{AppAsk, AppProbe, Header};

pub mod help;
mod meters;
mod packets;
mod probes;
mod report;
#[cfg(test)]
mod tests;

/// Where settings come from.
pub trait Env {
    /// The value of one variable, if it is set.
    fn get(&self, key: &str) -> Option<String>;
    /// The names of all variables that are set.
    fn keys(&self) -> Vec<String>;
}

/// The environment of this process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessEnv;

impl Env for ProcessEnv {
    fn get(&self, key: &str) -> Option<String> {
        std::env::var_os(key).map(|value| value.to_string_lossy().into_owned())
    }

    fn keys(&self) -> Vec<String> {
        std::env::vars_os()
            .map(|(key, _)| key.to_string_lossy().into_owned())
            .collect()
    }
}

/// Everything that the environment decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Threads that run flows.
    pub workers: usize,
    /// Directory of the two ctrl sockets.
    pub ctrl_dir: PathBuf,
    /// Directory of the last policy.
    pub state_dir: PathBuf,
    /// Mode before the first policy; `None` if the environment does not say.
    pub default_mode: Option<Mode>,
    /// Listener for connections the workload opens.
    pub outbound_port: u16,
    /// Listener for connections that arrive.
    pub inbound_port: u16,
    /// Admin surface, loopback only.
    pub admin_port: u16,
    /// Metrics and health.
    pub health_port: u16,
    /// The DNS listener.
    pub dns: DnsSettings,
    /// Whether readiness waits for a policy, saved or received.
    pub first_policy: FirstPolicy,
    /// How traffic reaches the listeners.
    pub capture: CaptureChoice,
    /// What is done with packets.
    pub packets: PacketSettings,
    /// TCP ports of the workload whose listening the health port answers for, at most [`MAX_UNCAPTURED`].
    pub probe_ports: Vec<u16>,
    /// Other questions that it passes on to the workload.
    pub probes: Vec<AppProbe>,
    /// Limits of meters.
    pub meters: MeterSettings,
    /// Mark of connections that borrow a client's address, the same as init's.
    pub tproxy_mark: u32,
    /// Connection rows that wait for a bridge at most.
    pub report_rows: usize,
    /// How long flows may go on after a stop was asked for.
    pub drain_grace: Duration,
    /// What one flow may take.
    pub flow: FlowLimits,
    /// Detectors switched on beyond the defaults.
    pub threats_on: Vec<ThreatId>,
    /// Detectors switched off.
    pub threats_off: Vec<ThreatId>,
    /// Log filter, as `tracing` writes it.
    pub log: String,
    /// Mark of our own packets, a secret of the pod.
    pub mark: Option<Secret>,
    /// Names that begin like ours but mean nothing: likely a slip of the pen.
    pub unknown: Vec<String>,
}

/// The DNS listener and whom it asks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DnsSettings {
    /// Whether it listens.
    pub on: bool,
    /// Its port on loopback.
    pub port: u16,
    /// Name servers to ask instead of those in `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
}

/// Time and memory of one flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FlowLimits {
    /// Longest wait for the server to take a connection.
    pub connect_timeout: Duration,
    /// Most bytes held while a verdict is pending.
    pub hold_bytes: usize,
    /// Longest hold.
    pub hold_time: Duration,
    /// Longest life of a connection of which one side has ended.
    pub half_close_timeout: Duration,
    /// Longest silence, if there is a limit.
    pub idle_timeout: Option<Duration>,
}

/// What readiness asks of policy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FirstPolicy {
    /// The default in force is enough.
    Default,
    /// A policy from disk or from the bridge.
    Wait,
}

impl FromStr for FirstPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "default" => Ok(Self::Default),
            "wait" => Ok(Self::Wait),
            _ => Err("one of default, wait".to_owned()),
        }
    }
}

/// A value that no log may show.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Secret(u32);

impl Secret {
    /// The value itself.
    #[must_use]
    pub fn reveal(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl FromStr for Secret {
    type Err = String;

    /// The error never repeats the text: it may be the secret with a typing error.
    fn from_str(text: &str) -> Result<Self, String> {
        let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |hex| (hex, 16));
        u32::from_str_radix(digits, radix)
            .map(Self)
            .map_err(|_text_is_secret| "a 32-bit number, decimal or 0x...".to_owned())
    }
}

/// All that is wrong with the environment, at once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SettingsError(Vec<String>);

impl SettingsError {
    /// One line a mistake.
    #[must_use]
    pub fn mistakes(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} setting(s) wrong", self.0.len())?;
        self.0
            .iter()
            .try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl std::error::Error for SettingsError {}

impl Settings {
    /// Reads everything; an error names every mistake, not only the first.
    pub fn read(env: &dyn Env) -> Result<Self, SettingsError> {
        let mut reader = Reader { env, errors: Vec::new() };
        let settings = Self::read_all(&mut reader);
        if reader.errors.is_empty() { Ok(settings) } else { Err(SettingsError(reader.errors)) }
    }

    fn read_all(reader: &mut Reader<'_>) -> Self {
        let ctrl_dir = reader.or("OUTRIDER_CTRL_DIR", PathBuf::from(names::CTRL_DIR));
        let state_dir = reader.or("OUTRIDER_STATE_DIR", ctrl_dir.clone());
        let settings = Self {
            workers: reader.workers(),
            state_dir,
            ctrl_dir,
            default_mode: reader.optional("OUTRIDER_DEFAULT_MODE"),
            outbound_port: reader.or("OUTRIDER_PROXY_OUTBOUND_PORT", names::OUTBOUND_PORT),
            inbound_port: reader.or("OUTRIDER_PROXY_INBOUND_PORT", names::INBOUND_PORT),
            admin_port: reader.or("OUTRIDER_PROXY_ADMIN_PORT", names::ADMIN_PORT),
            health_port: reader.or("OUTRIDER_PROXY_HEALTH_PORT", names::HEALTH_PORT),
            dns: DnsSettings::read(reader),
            first_policy: reader.or("OUTRIDER_PROXY_FIRST_POLICY", FirstPolicy::Default),
            capture: reader.or("OUTRIDER_PROXY_CAPTURE", CaptureChoice::Auto),
            packets: PacketSettings::read(reader),
            probe_ports: packets::ports(reader, "OUTRIDER_PROXY_PROBE_PORTS"),
            probes: reader
                .secret::<probes::Probes>("OUTRIDER_PROXY_PROBES")
                .unwrap_or_default()
                .0,
            meters: MeterSettings::read(reader),
            tproxy_mark: reader.mark("OUTRIDER_PROXY_TPROXY_MARK", names::FWMARK),
            report_rows: reader
                .or("OUTRIDER_PROXY_REPORT_ROWS", report::ReportRows::default())
                .0,
            drain_grace: reader.span("OUTRIDER_PROXY_DRAIN_GRACE", DRAIN_GRACE),
            flow: FlowLimits::read(reader),
            threats_on: reader.threats("OUTRIDER_PROXY_THREATS_ON"),
            threats_off: reader.threats("OUTRIDER_PROXY_THREATS_OFF"),
            log: reader.or("OUTRIDER_PROXY_LOG", "info".to_owned()),
            mark: reader.secret("OUTRIDER_MARK"),
            unknown: reader.unknown(),
        };
        reader.distinct_ports(&settings);
        settings
    }
}

impl DnsSettings {
    fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            on: reader
                .optional::<Switch>("OUTRIDER_PROXY_DNS")
                .is_some_and(|switch| switch.0),
            port: reader.or("OUTRIDER_PROXY_DNS_PORT", names::DNS_PORT),
            servers: reader
                .optional::<NameServers>("OUTRIDER_PROXY_DNS_SERVERS")
                .map_or_else(Vec::new, |servers| servers.0),
        }
    }
}

impl FlowLimits {
    fn read(reader: &mut Reader<'_>) -> Self {
        let idle = reader.span("OUTRIDER_PROXY_IDLE_TIMEOUT", Duration::ZERO);
        Self {
            connect_timeout: reader.span("OUTRIDER_PROXY_CONNECT_TIMEOUT", CONNECT_TIMEOUT),
            hold_bytes: reader.hold_bytes(),
            hold_time: reader.span("OUTRIDER_PROXY_HOLD_TIME", HOLD_TIME),
            half_close_timeout: reader.span("OUTRIDER_PROXY_HALF_CLOSE_TIMEOUT", HALF_CLOSE),
            idle_timeout: (!idle.is_zero()).then_some(idle),
        }
    }
}

/// Reads variables and gathers what is wrong with them.
struct Reader<'a> {
    env: &'a dyn Env,
    errors: Vec<String>,
}

impl Reader<'_> {
    fn or<T: FromStr<Err: fmt::Display>>(&mut self, key: &str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// An empty value counts as not set, so that a template can leave a variable empty.
    fn optional<T: FromStr<Err: fmt::Display>>(&mut self, key: &str) -> Option<T> {
        let text = self.env.get(key).filter(|text| !text.is_empty())?;
        text.parse()
            .map_err(|error| self.errors.push(format!("{key}={text:?}: {error}")))
            .ok()
    }

    /// The error does not repeat the text.
    fn secret<T: FromStr<Err: fmt::Display>>(&mut self, key: &str) -> Option<T> {
        let text = self.env.get(key).filter(|text| !text.is_empty())?;
        text.parse()
            .map_err(|error| self.errors.push(format!("{key}: {error}")))
            .ok()
    }

    fn mark(&mut self, key: &str, default: u32) -> u32 {
        self.optional::<Secret>(key).map_or(default, Secret::reveal)
    }

    fn span(&mut self, key: &str, default: Duration) -> Duration {
        self.optional::<Span>(key).map_or(default, |span| span.0)
    }

    fn workers(&mut self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = self.or("OUTRIDER_PROXY_WORKERS", cores.min(MAX_WORKERS));
        if (1..=MAX_WORKERS).contains(&workers) {
            return workers;
        }
        self.errors
            .push(format!("OUTRIDER_PROXY_WORKERS={workers}: between 1 and {MAX_WORKERS}"));
        1
    }

    fn hold_bytes(&mut self) -> usize {
        let bytes = self.or("OUTRIDER_PROXY_HOLD_BYTES", HOLD_BYTES);
        if bytes > MAX_HOLD_BYTES {
            self.errors
                .push(format!("OUTRIDER_PROXY_HOLD_BYTES={bytes}: at most {MAX_HOLD_BYTES}"));
        }
        bytes
    }

    fn threats(&mut self, key: &str) -> Vec<ThreatId> {
        let text = self.env.get(key).unwrap_or_default();
        let mut found = Vec::new();
        for word in text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
        {
            match ThreatId::all().find(|id| word.parse() == Ok(id.0) || id.name() == Some(word)) {
                Some(id) => found.push(id),
                None => self
                    .errors
                    .push(format!("{key}: {word:?} is no built-in threat")),
            }
        }
        found
    }

    fn unknown(&self) -> Vec<String> {
        let mut unknown = self.env.keys();
        unknown.retain(|key| key.starts_with("OUTRIDER_PROXY_") && !help::knows(key));
        unknown.sort();
        unknown
    }

    fn distinct_ports(&mut self, settings: &Settings) {
        let mut ports = settings.own_ports();
        ports.retain(|port| *port != 0);
        let all = ports.len();
        ports.sort_unstable();
        ports.dedup();
        if ports.len() < all {
            self.errors
                .push("OUTRIDER_PROXY_*_PORT: two listeners have the same port".to_owned());
        }
    }
}

impl Settings {
    /// The ports of this process, in no order.
    #[must_use]
    pub fn own_ports(&self) -> Vec<u16> {
        let dns = self.dns.port;
        vec![self.outbound_port, self.inbound_port, self.admin_port, self.health_port, dns]
    }
}

/// `on` or `off`.
struct Switch(bool);

impl FromStr for Switch {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "on" => Ok(Self(true)),
            "off" => Ok(Self(false)),
            _ => Err("one of on, off"),
        }
    }
}

/// Addresses joined by commas, each with a port if it is not 53.
struct NameServers(Vec<SocketAddr>);

impl FromStr for NameServers {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANTED: &str = "up to 3 addresses like 10.96.0.10,fd00::a or 10.96.0.10:5353";
        let words = text.split(',').map(str::trim);
        let servers: Vec<_> = words
            .map(|word| {
                let bare = word.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS));
                bare.or_else(|_with_port| word.parse())
                    .map_err(|_address| WANTED)
            })
            .collect::<Result<_, _>>()?;
        if servers.len() <= MAX_NAME_SERVERS { Ok(Self(servers)) } else { Err(WANTED) }
    }
}

/// A time with its unit: `500ms`, `10s`, `2m`, `1h`; bare `0` and `off` are zero.
struct Span(Duration);

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANTED: &str = "a time with its unit, such as 500ms, 10s, 2m, 1h";
        if matches!(text, "0" | "off") {
            return Ok(Self(Duration::ZERO));
        }
        let at = text.find(|c: char| !c.is_ascii_digit()).ok_or(WANTED)?;
        let (digits, unit) = text.split_at(at);
        let number: u32 = digits.parse().map_err(|_number| WANTED)?;
        let unit = match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return Err(WANTED),
        };
        unit.checked_mul(number).map(Self).ok_or(WANTED)
    }
}

/// More threads than this never helped a sidecar.
pub const MAX_WORKERS: usize = 64;
/// Name servers that are asked, as many as the C libraries ask.
pub const MAX_NAME_SERVERS: usize = 3;
/// Where name servers listen.
const DNS: u16 = 53;
/// Most bytes one flow may hold back.
pub const MAX_HOLD_BYTES: usize = 1 << 20;
const HOLD_BYTES: usize = 16 << 10;
const HOLD_TIME: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const HALF_CLOSE: Duration = Duration::from_secs(90);
const DRAIN_GRACE: Duration = Duration::from_secs(10);
