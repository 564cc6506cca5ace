use super::*;

fn wanted(text: &str) -> Wanted {
    let filter: PacketFilter = text
        .parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"));
    filter
        .wanted
        .unwrap_or_else(|| panic!("{text} wants everything"))
}

fn refused(text: &str) -> String {
    text.parse::<PacketFilter>().unwrap_err().to_string()
}

fn port(first: u16, last: u16) -> Test {
    Test::Ports { end: End::Either, proto: None, first, last }
}

fn host(text: &str) -> Test {
    let address: IpAddr = text.parse().unwrap();
    Test::Net { end: End::Either, address, bits: if address.is_ipv4() { 32 } else { 128 } }
}

fn both(one: Test, other: Test) -> Wanted {
    Wanted::And(Box::new(Wanted::Test(one)), Box::new(Wanted::Test(other)))
}

#[test]
fn no_word_wants_everything() {
    for text in ["", "  \t"] {
        assert_eq!(text.parse(), Ok(PacketFilter::everything()));
    }
}

#[test]
fn reads_single_tests() {
    for (text, test) in [
        ("ip", Test::Ipv4),
        ("ip6", Test::Ipv6),
        ("arp", Test::Arp),
        ("tcp", Test::Proto(IpProto::TCP)),
        ("proto 89", Test::Proto(IpProto(89))),
        ("proto sctp", Test::Proto(IpProto::SCTP)),
        ("port 80", port(80, 80)),
        ("portrange 8000-8080", port(8000, 8080)),
        ("portrange 7", port(7, 7)),
        ("host 10.0.0.7", host("10.0.0.7")),
        ("10.0.0.7", host("10.0.0.7")),
        (
            "net fd00::/8",
            Test::Net { end: End::Either, address: "fd00::".parse().unwrap(), bits: 8 },
        ),
        ("net 0.0.0.0/0", Test::Net { end: End::Either, address: [0; 4].into(), bits: 0 }),
        ("src 10.0.0.7", Test::Net { end: End::Source, address: [10, 0, 0, 7].into(), bits: 32 }),
        (
            "udp dst port 53",
            Test::Ports { end: End::Destination, proto: Some(IpProto::UDP), first: 53, last: 53 },
        ),
    ] {
        assert_eq!(wanted(text), Wanted::Test(test), "{text}");
    }
}

#[test]
fn joins_from_the_left_and_brackets_change_that() {
    let (a, b, c) = ("ip", "arp", "port 1");
    let or = |one: Wanted, other: Wanted| Wanted::Or(Box::new(one), Box::new(other));
    let and = |one: Wanted, other: Wanted| Wanted::And(Box::new(one), Box::new(other));
    let not = |one: Wanted| Wanted::Not(Box::new(one));
    let [a, b, c] = [a, b, c].map(wanted);
    assert_eq!(wanted("ip or arp and port 1"), and(or(a.clone(), b.clone()), c.clone()));
    assert_eq!(wanted("ip||(arp&&port 1)"), or(a.clone(), and(b.clone(), c.clone())));
    assert_eq!(wanted("not ip and !arp"), and(not(a), not(b)));
    assert_eq!(wanted("!(port 1)"), not(c));
}

#[test]
fn a_bare_value_is_what_the_last_one_was() {
    let two = |one, other| Wanted::Or(Box::new(one), Box::new(other));
    assert_eq!(wanted("tcp port 80 or 443"), two(wanted("tcp port 80"), wanted("tcp port 443")));
    assert_eq!(wanted("src net 10.0.0.0/8 or 1.0.0.0/8"), {
        two(wanted("src net 10.0.0.0/8"), wanted("src net 1.0.0.0/8"))
    });
    assert_eq!(wanted("ip host 10.0.0.7"), both(Test::Ipv4, host("10.0.0.7")));
}

#[test]
fn says_what_is_wrong_and_where() {
    for (text, near) in [
        ("port", "ends where"),
        ("port http", "\"http\" is no port"),
        ("port 70000", "is no port"),
        ("portrange 9-8", "is no port"),
        ("port 8-9", "is no port"),
        ("host cache", "names are not looked up"),
        ("host 10.0.0.0/8", "write `net`"),
        ("net 10.0.0.0/33", "prefix length"),
        ("net 10.0.0.1/8", "bits set"),
        ("tcp host 10.0.0.7", "tcp and host"),
        ("icmp port 7", "has none"),
        ("ip port 7", "ip and port"),
        ("arp port 7", "has none"),
        ("proto", "number of 0 to 255"),
        ("proto 256", "no protocol"),
        ("(ip", "inside a bracket"),
        ("(ip arp)", "close a bracket"),
        ("ip)", "goes on after its end"),
        ("ip arp", "goes on after its end"),
        ("and ip", "no address"),
        ("ip and", "ends where"),
        ("80", "no address"),
    ] {
        let said = refused(text);
        assert!(said.contains(near), "{text}: {said}");
    }
}

#[test]
fn length_tests_and_nesting_are_capped() {
    let tests = |count: usize| vec!["arp"; count].join(" or ");
    assert!(tests(MAX_FILTER_TESTS).parse::<PacketFilter>().is_ok());
    assert!(refused(&tests(MAX_FILTER_TESTS + 1)).contains("more than 32"));
    let nested = |depth: usize| format!("{}ip{}", "(".repeat(depth), ")".repeat(depth));
    assert!(
        nested(MAX_FILTER_NESTING - 1)
            .parse::<PacketFilter>()
            .is_ok()
    );
    assert!(refused(&nested(MAX_FILTER_NESTING)).contains("nested"));
    assert!(refused(&format!("{}ip", "!".repeat(MAX_FILTER_NESTING))).contains("nested"));
    assert!(
        format!("{}ip", " ".repeat(MAX_FILTER_TEXT - 2))
            .parse::<PacketFilter>()
            .is_ok()
    );
    assert!(refused(&" ".repeat(MAX_FILTER_TEXT + 1)).contains("longer than"));
    assert!(refused(&"é".repeat(500)).len() < 400, "a wrong word is cut");
}
