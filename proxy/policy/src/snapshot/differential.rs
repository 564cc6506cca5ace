//! The compiled snapshot against an oracle that walks the rules in order.

mod oracle;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    AddrSpec, AppKnowledge, AppRule, Name, NameTable, Network, PolicySpec, Query, RuleSpec,
    Snapshot, SpecialKind,
};
use outrider_model::{AppId, Direction, IpProto, Mode, PolicyAction, RuleId};
use proptest::prelude::*;

const NAMES: [&str; 5] =
    ["api.example.com", "*.example.com", "www.api.example.com", "*.com", "example.com"];

/// Few addresses, so that rules and flows meet; some inside the internal subnets, some special.
fn address(v4: bool, at: u8) -> IpAddr {
    match (v4, at) {
        (true, 30) => IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1)),
        (true, 31) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        (true, at) => IpAddr::V4(Ipv4Addr::new(10, 0, at / 8, at)),
        (false, 30) => IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
        (false, 31) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        (false, at) => {
            IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, u16::from(at / 8), at.into()))
        }
    }
}

fn ends(limit: u8) -> impl Strategy<Value = (u8, u8)> {
    prop_oneof![
        3 => (0..limit).prop_map(|at| (at, at)),
        1 => (0..limit, 0..limit).prop_map(|(a, b)| (a.min(b), a.max(b))),
    ]
}

fn addresses(v4: bool, external: bool) -> impl Strategy<Value = AddrSpec> {
    prop_oneof![
        5 => ends(30).prop_map(move |(low, high)| {
            AddrSpec::Range(address(v4, low), address(v4, high))
        }),
        1 => Just(AddrSpec::Any),
        1 => Just(if external { AddrSpec::External } else { AddrSpec::Any }),
    ]
}

fn settled() -> impl Strategy<Value = PolicyAction> {
    prop::sample::select(vec![
        PolicyAction::Open,
        PolicyAction::Learn,
        PolicyAction::Allow,
        PolicyAction::CheckBoundary,
        PolicyAction::Violate,
        PolicyAction::Deny,
    ])
}

fn app() -> impl Strategy<Value = AppId> {
    prop::sample::select(vec![
        AppId::ANY,
        AppId::UNIDENTIFIED,
        AppId::HTTP,
        AppId::REDIS,
        AppId::SSL,
    ])
}

fn proto() -> impl Strategy<Value = IpProto> {
    prop::sample::select(vec![
        IpProto::TCP,
        IpProto::TCP,
        IpProto::UDP,
        IpProto::ICMP,
        IpProto::ICMPV6,
        IpProto::SCTP,
    ])
}

fn apps() -> impl Strategy<Value = Vec<AppRule>> {
    let one = (app(), settled(), 0u32..9);
    prop::collection::vec(one, 0..4).prop_map(|apps| {
        apps.into_iter()
            .map(|(app, action, rule)| AppRule { app, action, rule: RuleId(rule) })
            .collect()
    })
}

fn rule() -> impl Strategy<Value = RuleSpec> {
    let sides = any::<bool>().prop_flat_map(|v4| (addresses(v4, true), addresses(v4, false)));
    let action = prop_oneof![settled(), settled(), Just(PolicyAction::CheckApp)];
    let name = prop::option::weighted(0.3, (prop::sample::select(&NAMES[..]), any::<bool>()));
    (sides, ends(6), prop::option::of(proto()), action, any::<bool>(), name, apps(), 0u32..40)
        .prop_map(|((peer, local), ports, proto, action, inbound, name, apps, id)| {
            let named = name.is_some();
            let is_wide = matches!(peer, AddrSpec::Range(low, high) if low != high);
            let peer = if named && is_wide { AddrSpec::Any } else { peer };
            RuleSpec {
                id: RuleId(id),
                client: if inbound { peer } else { local },
                server: if inbound { local } else { peer },
                ports: (ports.0.into(), ports.1.into()),
                proto,
                action,
                direction: if inbound { Direction::Inbound } else { Direction::Outbound },
                fqdn: name.map(|(name, _)| Name::new(name).unwrap()),
                vhost: name.is_some_and(|(_, vhost)| vhost),
                apps,
            }
        })
}

fn spec() -> impl Strategy<Value = PolicySpec> {
    (prop::collection::vec(rule(), 0..40), settled(), any::<bool>(), any::<bool>()).prop_map(
        |(rules, default_action, inbound, outbound)| PolicySpec {
            default_action,
            inbound,
            outbound,
            rules,
            grace: true,
        },
    )
}

fn names() -> impl Strategy<Value = NameTable> {
    let one = (prop::sample::select(&NAMES[..]), any::<bool>(), 0u8..30, prop::bool::weighted(0.2));
    prop::collection::vec(one, 0..8).prop_map(|known| {
        let mut table = NameTable::default();
        for (name, v4, at, vhost) in known {
            let name = Name::new(name).unwrap();
            table.add(&name, address(v4, at)).unwrap();
            table.set_vhost(&name, vhost).unwrap();
        }
        table
    })
}

fn network() -> impl Strategy<Value = Network> {
    let kind = prop::sample::select(vec![
        SpecialKind::Tunnel,
        SpecialKind::Service,
        SpecialKind::Host,
        SpecialKind::Device,
        SpecialKind::Unmanaged,
        SpecialKind::ServiceExternal,
    ]);
    let special = prop::collection::vec((any::<bool>(), 0u8..30, kind), 0..6);
    let internal = prop::collection::vec((any::<bool>(), 0u8..4), 0..3);
    (special, internal, names(), any::<[bool; 5]>()).prop_map(
        |(special, internal, names, flags)| {
            let net = |v4: bool, text: String| {
                format!("{}{text}", if v4 { "10.0." } else { "fd00::" })
                    .parse()
                    .unwrap()
            };
            Network {
                internal: internal
                    .into_iter()
                    .map(|(v4, at)| {
                        net(v4, if v4 { format!("{at}.0/24") } else { format!("{at}:0/112") })
                    })
                    .collect(),
                special: special
                    .into_iter()
                    .map(|(v4, at, kind)| (crate::IpNet::from(address(v4, at)), kind))
                    .collect(),
                names,
                detect_unmanaged: flags[0],
                icmp_policy: flags[1],
                ip_policy: flags[4],
                strict: flags[2],
                boundary: flags[3],
                ..Network::default()
            }
        },
    )
}

#[derive(Clone, Debug)]
struct Flow {
    v4: bool,
    client: u8,
    server: u8,
    port: u16,
    proto: IpProto,
    inbound: bool,
    app: AppKnowledge,
    host: Option<&'static str>,
    mode: Mode,
}

fn flow() -> impl Strategy<Value = Flow> {
    let app = prop_oneof![
        Just(AppKnowledge::Pending),
        Just(AppKnowledge::Unidentified),
        app().prop_map(AppKnowledge::Known),
    ];
    let host = prop::option::of(prop::sample::select(vec![
        "api.example.com",
        "API.Example.com.",
        "a.b.example.com",
        "example.com",
        "other.org",
    ]));
    let mode = prop::sample::select(vec![Mode::Discover, Mode::Monitor, Mode::Protect]);
    (any::<(bool, bool)>(), 0u8..32, 0u8..32, 0u16..7, proto(), app, host, mode).prop_map(
        |((v4, inbound), client, server, port, proto, app, host, mode)| Flow {
            v4,
            client,
            server,
            port,
            proto,
            inbound,
            app,
            host,
            mode,
        },
    )
}

impl Flow {
    fn query(&self) -> Query<'static> {
        Query {
            client: address(self.v4, self.client),
            server: address(self.v4, self.server),
            port: self.port,
            proto: self.proto,
            direction: if self.inbound { Direction::Inbound } else { Direction::Outbound },
            app: self.app,
            host: self.host,
            mode: self.mode,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn decides_as_a_walk_over_the_rules_does(
        spec in spec(),
        network in network(),
        flows in prop::collection::vec(flow(), 1..60),
    ) {
        let snapshot = Snapshot::compile(Some(&spec), &network).unwrap();
        for flow in flows {
            let query = flow.query();
            prop_assert_eq!(
                snapshot.decide(&query),
                oracle::decide(&spec, &network, &query),
                "{:?}", flow
            );
        }
    }

    #[test]
    fn what_may_not_be_denied_never_is(
        spec in spec(),
        network in network(),
        flow in flow(),
        apps in prop::collection::vec(app(), 1..8),
        host in prop::option::of(prop::sample::select(vec!["api.example.com", "x.example.com", "no.org"])),
    ) {
        let snapshot = Snapshot::compile(Some(&spec), &network).unwrap();
        let query = Query { app: AppKnowledge::Pending, ..flow.query() };
        if snapshot.decide(&query).action.undecided() && !snapshot.may_deny(&query) {
            for app in apps {
                let host = query.host.or(host);
                let later = Query { app: AppKnowledge::Known(app), host, ..query };
                prop_assert_ne!(snapshot.decide(&later).action, PolicyAction::Deny);
            }
        }
    }

    #[test]
    fn new_names_decide_as_a_new_compilation_does(
        spec in spec(),
        network in network(),
        table in names(),
        flows in prop::collection::vec(flow(), 1..30),
    ) {
        let renamed = Snapshot::compile(Some(&spec), &network).unwrap().with_names(&table);
        let compiled = Snapshot::compile(Some(&spec), &Network { names: table, ..network }).unwrap();
        for flow in flows {
            prop_assert_eq!(renamed.decide(&flow.query()), compiled.decide(&flow.query()));
        }
    }
}
