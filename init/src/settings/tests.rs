use super::{Dns, Groups, Guard, MAX_ENTRIES, Mode, OPTIONS, Ports, RawSettings, Settings};

fn raw(values: &[(&'static str, &str)]) -> RawSettings {
    let values = values
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect();
    RawSettings { values }
}

fn mistakes(values: &[(&'static str, &str)]) -> Vec<&'static str> {
    let mistakes = raw(values).parse().expect_err("not usable");
    mistakes.iter().map(|mistake| mistake.setting).collect()
}

#[test]
fn defaults_are_what_the_table_says() {
    let written: Vec<_> = OPTIONS
        .iter()
        .filter(|option| !option.default.is_empty())
        .collect();
    let values: Vec<_> = written
        .iter()
        .map(|option| (option.name, option.default))
        .collect();
    assert_eq!(raw(&values).parse(), Ok(Settings::default()));
    assert_eq!(raw(&[]).parse(), Ok(Settings::default()));
}

#[test]
fn variables_are_named_after_flags() {
    for option in OPTIONS.iter().filter(|option| option.name != "secret-mark") {
        let name = option.name.to_uppercase().replace('-', "_");
        assert_eq!(option.variable, format!("OUTRIDER_INIT_{name}"));
    }
}

#[test]
fn reads_every_form() {
    let settings = raw(&[
        ("mode", "tproxy"),
        ("inbound-ports", "80, 8000-8100"),
        ("outbound-ports", "none"),
        ("outbound-cidrs", "10.0.0.0/8,fd00::/8,192.0.2.1"),
        ("groups", "1000,1001"),
        ("dns", "10.96.0.10,fd00::a"),
        ("guard", "all"),
        ("queue", "closed"),
        ("mark", "0x10"),
        ("exclude-interfaces", "eth1,net-1.5"),
    ])
    .parse()
    .expect("usable");
    assert_eq!(settings.mode, Mode::Tproxy);
    assert_eq!(settings.guard, Guard::All);
    assert!(!settings.guards_everything(), "the queue decides");
    assert_eq!(settings.outbound_ports, Ports::None);
    assert_eq!(settings.groups, Groups::Only(vec![1000, 1001]));
    assert_eq!(settings.mark, 16);
    assert!(matches!(settings.inbound_ports, Ports::Only(list) if list.len() == 2));
    assert!(matches!(settings.dns, Dns::Servers(list) if list.len() == 2));
}

#[test]
fn tells_every_mistake_at_once() {
    let wrong = [("mode", "both"), ("inbound-ports", "80-70"), ("proxy-uid", ""), ("guard", "yes")];
    assert_eq!(mistakes(&wrong), ["mode", "proxy-uid", "inbound-ports", "guard"]);
}

#[test]
fn names_setting_variable_and_form() {
    let mistakes = raw(&[("inbound-ports", "http")])
        .parse()
        .expect_err("not usable");
    assert_eq!(
        mistakes[0].to_string(),
        "--inbound-ports (OUTRIDER_INIT_INBOUND_PORTS) is \"http\": allowed is \"*\", \"none\", or up to 64 \
         ports and ranges like 80,8000-8100"
    );
}

#[test]
fn refuses_what_is_nearly_right() {
    for (name, value) in [
        ("inbound-port", "0"),
        ("inbound-port", "65536"),
        ("inbound-port", "+80"),
        ("exclude-inbound-ports", "80,"),
        ("exclude-outbound-cidrs", "10.0.0.1/8"),
        ("exclude-outbound-cidrs", "0.0.0.0/0"),
        ("exclude-outbound-cidrs", "*"),
        ("exclude-interfaces", "lo"),
        ("exclude-interfaces", "-j"),
        ("exclude-interfaces", "eth0 -j ACCEPT"),
        ("exclude-interfaces", "sixteencharacter"),
        ("virtual-interfaces", "a\nb"),
        ("proxy-gid", "+5"),
        ("mark", "0x"),
        ("mark", "0"),
        ("dns", "localhost"),
        ("drop-invalid", "1"),
        ("groups", ""),
    ] {
        assert_eq!(mistakes(&[(name, value)]), [name], "{value:?}");
    }
}

#[test]
fn refuses_listeners_that_share_a_port() {
    assert_eq!(mistakes(&[("inbound-port", "15101")]), ["inbound-port"]);
}

#[test]
fn refuses_marks_that_the_queue_uses() {
    let marks = [("queue", "open"), ("secret-mark", "0x1000001"), ("mark", "0x2000000")];
    assert_eq!(mistakes(&marks), ["secret-mark", "mark"]);
    assert!(raw(&marks[1..]).parse().is_ok());
}

#[test]
fn caps_every_list() {
    let ports = |count: usize| vec!["80"; count].join(",");
    assert!(
        raw(&[("exclude-inbound-ports", &ports(MAX_ENTRIES))])
            .parse()
            .is_ok()
    );
    assert_eq!(
        mistakes(&[("exclude-inbound-ports", &ports(MAX_ENTRIES + 1))]),
        ["exclude-inbound-ports"]
    );
}
