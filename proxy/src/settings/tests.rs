use std::{cell::RefCell, collections::BTreeMap};

use outrider_packet::MeterKind;

use super::*;

/// An environment from pairs, which remembers what it was asked for.
struct Pairs {
    pairs: BTreeMap<&'static str, &'static str>,
    asked: RefCell<Vec<String>>,
}

impl Pairs {
    fn new(pairs: &[(&'static str, &'static str)]) -> Self {
        Self { pairs: pairs.iter().copied().collect(), asked: RefCell::default() }
    }
}

impl Env for Pairs {
    fn get(&self, key: &str) -> Option<String> {
        self.asked.borrow_mut().push(key.to_owned());
        self.pairs.get(key).map(|value| (*value).to_owned())
    }

    fn keys(&self) -> Vec<String> {
        self.pairs.keys().map(|key| (*key).to_owned()).collect()
    }
}

fn read(pairs: &[(&'static str, &'static str)]) -> Result<Settings, SettingsError> {
    Settings::read(&Pairs::new(pairs))
}

#[test]
fn an_empty_environment_gives_the_documented_defaults() {
    let settings = read(&[]).unwrap();
    assert_eq!((settings.outbound_port, settings.inbound_port), (15101, 15106));
    assert_eq!((settings.admin_port, settings.health_port), (15100, 15120));
    assert_eq!(settings.ctrl_dir, PathBuf::from("/run/outrider/ctrl"));
    assert_eq!(settings.state_dir, settings.ctrl_dir);
    assert_eq!(settings.default_mode, None);
    assert_eq!(settings.flow.half_close_timeout, Duration::from_secs(90));
    assert_eq!(settings.flow.idle_timeout, None);
    assert!(settings.workers >= 1);
}

#[test]
fn reports_every_mistake_at_once() {
    let error = read(&[
        ("OUTRIDER_PROXY_WORKERS", "0"),
        ("OUTRIDER_PROXY_INBOUND_PORT", "70000"),
        ("OUTRIDER_DEFAULT_MODE", "block"),
        ("OUTRIDER_PROXY_DRAIN_GRACE", "ten"),
        ("OUTRIDER_PROXY_HOLD_BYTES", "1048577"),
        ("OUTRIDER_PROXY_THREATS_ON", "2012, 9999"),
        ("OUTRIDER_PROXY_ADMIN_PORT", "15101"),
        ("OUTRIDER_PROXY_CAPTURE", "magic"),
        ("OUTRIDER_PROXY_FIRST_POLICY", "maybe"),
        ("OUTRIDER_PROXY_DNS", "yes"),
        ("OUTRIDER_PROXY_PACKETS", "all"),
        ("OUTRIDER_PROXY_QUEUE_RULE", "ajar"),
        ("OUTRIDER_PROXY_UNCAPTURED_PORTS", "22,ssh"),
        ("OUTRIDER_PROXY_DNS_SERVERS", "10.0.0.1,ns.example"),
        ("OUTRIDER_PROXY_METER_SYN_FLOOD", "800/0"),
        ("OUTRIDER_PROXY_METER_ICMP_FLOOD", "many"),
        ("OUTRIDER_PROXY_METER_IP_SRC_SESSION", "10/1/11"),
        ("OUTRIDER_PROXY_METER_PORT_SCAN", "257"),
        ("OUTRIDER_PROXY_METER_TCP_NODATA", "1/2/1/1"),
    ])
    .unwrap_err();
    assert_eq!(error.mistakes().len(), 19, "{error}");
}

#[test]
fn an_empty_value_counts_as_not_set() {
    let settings = read(&[("OUTRIDER_PROXY_WORKERS", ""), ("OUTRIDER_MARK", "")]).unwrap();
    assert_eq!(settings.mark, None);
}

#[test]
fn reads_times_with_their_units() {
    for (text, millis) in
        [("500ms", 500), ("10s", 10_000), ("2m", 120_000), ("1h", 3_600_000), ("0", 0), ("off", 0)]
    {
        assert_eq!(text.parse::<Span>().map(|span| span.0.as_millis()), Ok(millis), "{text}");
    }
    for bad in ["", "10", "s", "1 s", "-1s", "99999999999s", "1d", "4294967295h5"] {
        assert!(bad.parse::<Span>().is_err(), "{bad}");
    }
}

#[test]
fn takes_detectors_by_number_and_by_name() {
    let settings = read(&[
        ("OUTRIDER_PROXY_THREATS_ON", "2012, SSL.TLS1.1"),
        ("OUTRIDER_PROXY_THREATS_OFF", "2014"),
    ])
    .unwrap();
    assert_eq!(settings.threats_on, [ThreatId::TLS_1_0, ThreatId::TLS_1_1]);
    assert_eq!(settings.threats_off, [ThreatId::SMUGGLING]);
}

#[test]
fn never_shows_the_mark() {
    let settings = read(&[("OUTRIDER_MARK", "0x1234abcd")]).unwrap();
    assert_eq!(settings.mark.map(Secret::reveal), Some(0x1234_abcd));
    assert!(!format!("{settings:?}").contains("305441741"));
    assert!(format!("{settings:?}").contains("<redacted>"));
    let error = read(&[("OUTRIDER_MARK", "0x1234abcdZ")]).unwrap_err();
    assert!(!error.to_string().contains("1234abcd"), "{error}");
}

#[test]
fn names_settings_that_do_not_exist() {
    let settings = read(&[("OUTRIDER_PROXY_WORKRES", "2"), ("OUTRIDER_MARK", "1")]).unwrap();
    assert_eq!(settings.unknown, ["OUTRIDER_PROXY_WORKRES"]);
}

#[test]
fn help_knows_exactly_the_settings_that_are_read() {
    let env = Pairs::new(&[]);
    Settings::read(&env).unwrap();
    let mut asked = env.asked.into_inner();
    asked.sort();
    asked.dedup();
    assert!(asked.iter().all(|key| help::knows(key)), "{asked:?}");
    let told = help::text()
        .lines()
        .filter(|line| line.starts_with("  OUTRIDER_"))
        .count();
    assert_eq!(told, asked.len());
}

#[test]
fn meters_have_limits_of_their_own() {
    let limit = |text, kind, by_default| {
        let settings = read(&[("OUTRIDER_PROXY_METER_SYN_FLOOD", text)]).unwrap();
        let limit = settings.meters.limit(kind, by_default)?;
        Some((limit.upper(), limit.span(), limit.lower()))
    };
    let syn = MeterKind::SynFlood;
    assert_eq!(limit("off", syn, true), None);
    assert_eq!(limit("on", syn, false), Some((800, 5, 600)));
    assert_eq!(limit("80", syn, false), Some((80, 5, 60)));
    assert_eq!(limit("80/2", syn, false), Some((80, 2, 60)));
    assert_eq!(limit("80/2/1", syn, false), Some((80, 2, 1)));
    assert_eq!(limit("80", MeterKind::NoData, false), None);
    assert_eq!(limit("80", MeterKind::IcmpFlood, true), Some((100, 1, 100)));
}

#[test]
fn name_servers_are_addresses_with_or_without_a_port() {
    let dns = |text| read(&[("OUTRIDER_PROXY_DNS", "on"), ("OUTRIDER_PROXY_DNS_SERVERS", text)]);
    let settings = dns("10.0.0.1, fd00::a,10.0.0.2:5353").unwrap();
    let servers: Vec<_> = settings
        .dns
        .servers
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(servers, ["10.0.0.1:53", "[fd00::a]:53", "10.0.0.2:5353"]);
    assert!(settings.dns.on && settings.own_ports().contains(&15153));
    assert!(dns("10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.4").is_err(), "one more than are asked");
}
