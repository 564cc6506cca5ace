//! NeuVector's services over the unix socket, asked by a client made from the same tables.

use std::{collections::BTreeMap, io::Read, time::Duration};

use flate2::read::GzDecoder;
use outrider_api::share::{
    ClusFilter, ClusSession, ClusWlIdArray, RpcVoid,
    enforcer_cap_service_client::EnforcerCapServiceClient,
    enforcer_service_client::EnforcerServiceClient,
};
use outrider_wire::{EtherType, Session, SessionFlags, request::Request};
use tonic::{
    Code,
    codec::CompressionEncoding,
    transport::{Channel, Endpoint},
};

use crate::{
    proxy::{Manner, Proxy},
    world::{World, mac},
};

/// A client of the bridge's socket.
async fn channel(world: &World) -> Channel {
    let path = world.path().join("grpc.sock");
    Endpoint::try_from(format!("unix://{}", path.display()))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

pub(crate) async fn client(world: &World) -> EnforcerServiceClient<Channel> {
    EnforcerServiceClient::new(channel(world).await)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(32 * 1024 * 1024)
}

pub(crate) fn sessions(number: u8, count: u32) -> Vec<Session> {
    (1..=count)
        .map(|id| Session {
            id,
            epmac: mac(number),
            client_ip: std::net::Ipv4Addr::new(10, 0, 0, 9).into(),
            server_ip: std::net::Ipv4Addr::new(10, 0, 0, number).into(),
            client_port: 40_000,
            server_port: 6379,
            age: 12,
            flags: SessionFlags::INGRESS,
            ..Session::default()
        })
        .collect()
}

async fn list(client: &mut EnforcerServiceClient<Channel>, filter: ClusFilter) -> Vec<ClusSession> {
    let mut stream = client.get_session_list(filter).await.unwrap().into_inner();
    let mut all = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        all.extend(message.sessions);
    }
    all
}

fn of(workload: &str) -> ClusFilter {
    ClusFilter { workload: workload.into(), ..ClusFilter::default() }
}

#[tokio::test]
async fn a_session_has_every_field_that_the_proxy_gave() {
    let world = World::new();
    world.pod("cache", 2);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    let mut v6 = Session { id: 2, ether_type: EtherType::IPV6, ..sessions(2, 1).remove(0) };
    v6.client_ip = "fd00::9".parse::<std::net::IpAddr>().unwrap().into();
    proxy.carries(vec![sessions(2, 1).remove(0), v6]);
    let mut client = client(&world).await;
    for name in ["", "cache", "default/cache"] {
        let found = list(&mut client, of(name)).await;
        assert_eq!(found.len(), 2, "{name:?}");
        assert_eq!(found[0].workload, "cache", "the uid");
        assert_eq!(
            (found[0].client_ip.as_slice(), found[0].server_port),
            (&[10, 0, 0, 9][..], 6379)
        );
        assert_eq!((found[1].client_ip.len(), found[1].ether_type), (16, 0x86dd));
        assert!(found[0].ingress && !found[0].tap && found[0].age == 12);
    }
    let one = list(&mut client, ClusFilter { id: 2, ..of("cache") }).await;
    assert_eq!(one.iter().map(|found| found.id).collect::<Vec<_>>(), [2]);
    let unknown = client.get_session_list(of("ghost")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound, "{unknown}");
    bridge.stop().await;
}

#[tokio::test]
async fn a_hundred_thousand_sessions_page_without_gaps_or_repeats() {
    const EACH: u32 = 50_000;
    const PAGE: u32 = 30_000;
    let world = World::new();
    let proxies = ["a", "b"].map(|name| {
        world.pod(name, name.as_bytes()[0]);
        Proxy::start(&world.mailbox(name))
    });
    let bridge = world.start().await;
    for (name, proxy) in ["a", "b"].iter().zip(&proxies) {
        bridge.proxy_is(name, "connected").await;
        proxy.carries(sessions(name.as_bytes()[0], EACH));
    }
    let mut client = client(&world).await;
    let whole: Vec<_> = list(&mut client, of("")).await;
    let key = |found: &ClusSession| (found.workload.clone(), found.id);
    let whole: Vec<_> = whole.iter().map(key).collect();
    assert_eq!(whole.len(), 2 * EACH as usize);
    let mut paged = Vec::new();
    for start in (0..2 * EACH).step_by(PAGE as usize) {
        let page = list(&mut client, ClusFilter { start, limit: PAGE, ..of("") }).await;
        let expected = PAGE.min(2 * EACH - start);
        assert_eq!(page.len(), expected as usize, "from {start}");
        paged.extend(page.iter().map(key));
    }
    assert_eq!(paged, whole);
    assert!(
        list(&mut client, ClusFilter { start: 2 * EACH, ..of("") })
            .await
            .is_empty()
    );
    bridge.stop().await;
}

#[tokio::test]
async fn a_list_that_is_too_long_is_cut_and_that_is_counted() {
    const MOST: u32 = 65_536;
    let world = World::new();
    world.pod("cache", 2);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    proxy.carries(sessions(2, MOST + 3));
    let mut client = client(&world).await;
    assert_eq!(list(&mut client, of("")).await.len(), MOST as usize);
    let status = bridge.get("/v1/status").await;
    assert_eq!(status["dropped"]["list-too-long"], 3, "{status}");
    bridge.stop().await;
}

#[tokio::test]
async fn statistics_say_what_a_proxy_costs_if_its_process_is_seen() {
    let world = World::new();
    world.pod("cache", 2);
    world.pod("quiet", 3);
    let proxies = ["cache", "quiet"].map(|name| Proxy::start(&world.mailbox(name)));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    bridge.proxy_is("quiet", "connected").await;
    // Whoever tells something is this process.
    let rows = vec![crate::reports::row(1, outrider_model::PolicyAction::Learn)];
    proxies[0]
        .tell(&crate::reports::encode(outrider_wire::Connections { rows }))
        .await;
    let mut client = client(&world).await;
    let seen = async {
        loop {
            let stats = client.get_stats(of("cache")).await.unwrap().into_inner();
            let last = stats.span1.unwrap();
            if last.memory > 1 << 20 {
                return (last, stats.span60.unwrap(), stats.total.unwrap());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let (last, five_minutes, total) = tokio::time::timeout(Duration::from_secs(60), seen)
        .await
        .unwrap();
    assert!((0.0..=1.0).contains(&last.cpu) && five_minutes.memory > 0, "{last:?}");
    assert_eq!((total.cpu, total.memory), (0.0, 0));
    bridge.stop().await;
}

#[tokio::test]
async fn counts_and_statistics_are_summed_over_workloads() {
    let world = World::new();
    let proxies = [("cache", 2), ("web", 3)].map(|(name, number)| {
        world.pod(name, number);
        Proxy::start(&world.mailbox(name))
    });
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    bridge.proxy_is("web", "connected").await;
    let mut client = client(&world).await;
    let count = client
        .get_session_counter(RpcVoid {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!((count.cur_sessions, count.cur_tcp_sessions, count.cur_udp_sessions), (14, 8, 6));
    let counters = client
        .get_datapath_counter(RpcVoid {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!((counters.rx_packets, counters.policy_type1_rules), (22, 10));
    assert_eq!(counters.parser_sessions, vec![2; 20]);
    assert_eq!(counters.lsof, b"lsof disabled");

    let all = client.get_stats(of("")).await.unwrap().into_inner();
    let total = all.total.unwrap();
    assert_eq!((all.interval, total.session_cur_in, total.byte_in), (5, 4, 10_000_000_000));
    assert_eq!(all.span12.unwrap().byte_in, 0);
    let one = client.get_stats(of("web")).await.unwrap().into_inner();
    assert_eq!(one.span1.unwrap().session_in, 3);
    let wl_id = ["web", "cache", "web", "of another node"]
        .map(Into::into)
        .to_vec();
    let group = client
        .get_group_stats(ClusWlIdArray { wl_id })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(group.total.unwrap().session_in, 6, "each once, unknown ones passed over");

    let mut meters = client
        .get_meter_list(of("cache"))
        .await
        .unwrap()
        .into_inner();
    let found = meters.message().await.unwrap().unwrap().meters;
    assert_eq!((found.len(), found[0].count, found[0].workload.as_str()), (1, 9, "cache"));

    proxies
        .iter()
        .for_each(|proxy| proxy.behave(Manner::Silent));
    bridge.proxy_is("cache", "down").await;
    bridge.proxy_is("web", "down").await;
    let nobody = client.get_stats(of("")).await.unwrap_err();
    assert_eq!(nobody.code(), Code::Unavailable, "{nobody}");
    bridge.stop().await;
}

#[tokio::test]
async fn a_number_is_cleared_where_it_is_said_whose_it_is() {
    let world = World::new();
    let [cache, web] = [("cache", 2), ("web", 3)].map(|(name, number)| {
        world.pod(name, number);
        Proxy::start(&world.mailbox(name))
    });
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    bridge.proxy_is("web", "connected").await;
    let mut client = client(&world).await;
    let number = ClusFilter { id: 7, ..of("") };
    let nobody = client.clear_session(number.clone()).await.unwrap_err();
    assert_eq!(nobody.code(), Code::NotFound, "{nobody}");
    cache.carries(sessions(2, 7));
    web.carries(sessions(3, 7));
    let whose = client.clear_session(number.clone()).await.unwrap_err();
    assert_eq!(whose.code(), Code::InvalidArgument, "{whose}");
    assert!(whose.message().contains("default/cache, default/web"), "{whose}");
    web.carries(sessions(3, 6));
    client.clear_session(number).await.unwrap();
    let cleared = |request: &Request| match request {
        Request::ClearSession(clear) => Some(clear.filter_id),
        _ => None,
    };
    assert_eq!(cache.hears(cleared).await, 7, "the only one that has it");
    cache.forget_heard();
    client
        .clear_session(ClusFilter { id: 7, ..of("cache") })
        .await
        .unwrap();
    assert_eq!(cache.hears(cleared).await, 7);
    assert!(!web.heard().iter().any(|request| cleared(request).is_some()));
    client.clear_session(of("")).await.unwrap();
    assert_eq!(web.hears(cleared).await, 0);
    bridge.stop().await;
}

#[tokio::test]
async fn rules_in_force_are_compressed_json_by_workload() {
    let world = World::new();
    world.pod("cache", 2);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    proxy
        .tell(&crate::reports::encode(outrider_wire::Connections {
            rows: vec![crate::reports::row(4, outrider_model::PolicyAction::Learn)],
        }))
        .await;
    bridge
        .until("/v1/workloads", |all| all[0]["rules"] != 0)
        .await;
    bridge
        .ask("PUT", "/v1/workloads/cache/mode", r#"{"mode":"protect"}"#)
        .await;
    let mut client = client(&world).await;
    let map = client
        .get_derived_policy_rules(of("cache"))
        .await
        .unwrap()
        .into_inner();
    assert!(map.rule_map.is_empty(), "not used");
    let mut text = String::new();
    GzDecoder::new(map.rule_byte.as_slice())
        .read_to_string(&mut text)
        .unwrap();
    let rules: BTreeMap<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    let rule = &rules["cache"]["Rules"][0];
    assert_eq!(rule["SrcIP"], "CgAAAw==", "10.0.0.3: {text}");
    assert!(rule["ID"].is_u64() && rule["Ingress"] == true, "{text}");

    let intercept = client
        .get_container_intercept(of("cache"))
        .await
        .unwrap()
        .into_inner();
    assert!(intercept.inline && !intercept.quarantine);
    assert_eq!(
        (intercept.id.as_str(), intercept.ports[0].mac.as_slice()),
        ("cache", &mac(2).0[..])
    );
    assert!(
        client
            .get_derived_dlp_rules(of(""))
            .await
            .unwrap()
            .into_inner()
            .dlp_rule_map
            .is_empty()
    );
    bridge.stop().await;
}

#[tokio::test]
async fn what_is_not_about_the_network_is_unimplemented() {
    let world = World::new();
    let bridge = world.start().await;
    let mut client = client(&world).await;
    for status in [
        client.get_process(of("")).await.unwrap_err(),
        client.run_docker_bench(RpcVoid {}).await.unwrap_err(),
        client.get_file_monitor_file(of("")).await.unwrap_err(),
    ] {
        assert_eq!(status.code(), Code::Unimplemented, "{status}");
        assert!(!status.message().is_empty());
    }
    client.probe_summary(RpcVoid {}).await.unwrap();
    let mut capabilities = EnforcerCapServiceClient::new(channel(&world).await);
    assert!(
        capabilities
            .is_grpc_compressed(RpcVoid {})
            .await
            .unwrap()
            .into_inner()
            .value
    );
    bridge.stop().await;
}

#[tokio::test]
async fn a_silent_proxy_delays_a_list_but_not_for_ever() {
    let world = World::new();
    let [silent, proper] = [("a", 2), ("b", 3)].map(|(name, number)| {
        world.pod(name, number);
        Proxy::start(&world.mailbox(name))
    });
    let bridge = world.start().await;
    bridge.proxy_is("a", "connected").await;
    bridge.proxy_is("b", "connected").await;
    proper.carries(sessions(3, 5));
    silent.behave(Manner::Silent);
    let mut client = client(&world).await;
    let found = tokio::time::timeout(Duration::from_secs(20), list(&mut client, of(""))).await;
    assert_eq!(found.unwrap().len(), 5);
    bridge.stop().await;
}
