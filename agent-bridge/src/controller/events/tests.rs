use std::collections::BTreeMap;

use outrider_api::cluster::{Applied, Conversation, Observed, WorkloadState};
use outrider_telemetry::Registry;

use super::*;
use crate::controller::{
    counts::Counts,
    plan::{Labels, Plan},
    published::Change,
};

fn pod(name: &str, managed: bool, asked: Option<&str>) -> Arc<Pod> {
    let labels = asked.map(|asked| ("outrider.dev/inject".to_owned(), asked.to_owned()));
    Arc::new(Pod {
        uid: format!("u-{name}").into(),
        namespace: "shop".into(),
        name: name.into(),
        service: name.split('-').next().unwrap().into(),
        node: "n1".into(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        labels: Arc::new(labels.into_iter().collect()),
        managed,
    })
}

fn change(pods: &[Arc<Pod>]) -> Change {
    let pods = pods
        .iter()
        .map(|pod| (Arc::clone(&pod.uid), Some(Arc::clone(pod))));
    Change { pods: pods.collect(), ..Change::default() }
}

fn published(pods: &[Arc<Pod>]) -> Published {
    let mut published = Published::default();
    published.take(change(pods), &Plan::default());
    published
}

fn links(pods: &[Arc<Pod>]) -> Links {
    let links = Links::new(Counts::register(&Registry::default()).unwrap());
    links.publish(true, change(pods), &Plan::default());
    links
}

fn state(name: &str, mode: &str, refused: &str) -> Applied {
    let state = WorkloadState {
        uid: format!("u-{name}"),
        mode: mode.into(),
        refused: refused.into(),
        ..WorkloadState::default()
    };
    Applied { workloads: vec![state], ..Applied::default() }
}

fn happened(links: &Links) -> Vec<Due> {
    let now = links.published.read();
    let happened = links.happened.lock().take();
    happened.iter().filter_map(|one| one.due(&now)).collect()
}

#[tokio::test]
async fn a_mode_that_a_proxy_confirms_anew_is_said_and_the_first_one_is_not() {
    let links = links(&[pod("web-0", true, None)]);
    let node: Arc<str> = "n1".into();
    let link = links.enter(&node, "1");
    links.applied(&node, &link, state("web-0", "discover", ""));
    links.applied(&node, &link, state("web-0", "discover", ""));
    assert!(happened(&links).is_empty());
    links.applied(&node, &link, state("web-0", "protect", ""));
    let due = happened(&links).pop().unwrap();
    assert_eq!((&*due.pod.name, due.saying.reason), ("web-0", "ModeChanged"));
    assert_eq!(due.saying.message, "the mode was discover and is protect");
    assert!(due.saying.is_normal);
    // Of other nodes' pods a bridge may not speak.
    let other: Arc<str> = "n2".into();
    let foreign = links.enter(&other, "1");
    for mode in ["discover", "protect"] {
        links.applied(&other, &foreign, state("web-0", mode, ""));
    }
    assert!(happened(&links).is_empty());
}

#[tokio::test]
async fn a_policy_that_is_refused_is_said_with_the_reason() {
    let links = links(&[pod("web-0", true, None)]);
    let node: Arc<str> = "n1".into();
    let link = links.enter(&node, "1");
    links.applied(&node, &link, state("web-0", "protect", "too many rules"));
    let now = links.published.read();
    let due = refused(&links, &now);
    assert_eq!((due.len(), due[0].saying.reason), (1, "PolicyRefused"));
    assert!(due[0].saying.message.ends_with("too many rules"), "{due:?}");
}

fn violation(from: &str, to: &str, side: i32) -> Conversation {
    Conversation {
        from: from.into(),
        to: to.into(),
        proto: 6,
        port: 5432,
        side,
        sessions: 3,
        violations: 3,
        ..Conversation::default()
    }
}

#[tokio::test]
async fn violations_are_said_at_the_end_that_saw_them() {
    let links = links(&[pod("web-0", true, None)]);
    let node: Arc<str> = "n1".into();
    let link = links.enter(&node, "1");
    links.applied(&node, &link, state("web-0", "protect", ""));
    let (web, other) = ("nv.web.shop", "nv.intruder.other");
    let conversations = vec![
        violation(other, web, 2),
        violation(web, other, 1),
        // It is no end of its own, or nothing was against policy.
        violation(other, "nv.db.shop", 2),
        Conversation { violations: 0, ..violation(other, web, 2) },
    ];
    links.observe(&node, &link, &Observed { batch: 1, conversations }, true);
    let due = happened(&links);
    let texts: Vec<_> = due.iter().map(|due| &*due.saying.message).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[0].contains("3 connections from nv.intruder.other, tcp/5432: stopped"));
    assert!(texts[1].contains("3 connections to nv.intruder.other, tcp/5432: stopped"));
    assert_ne!(due[0].same, due[1].same);
    assert!(due.iter().all(|due| due.saying.reason == "PolicyViolated"));
}

#[tokio::test]
async fn who_is_contacted_by_everybody_says_a_few_times_so_and_what_waits_is_bounded() {
    let links = links(&[pod("web-0", true, None)]);
    let node: Arc<str> = "n1".into();
    let link = links.enter(&node, "1");
    let mut same = std::collections::BTreeSet::new();
    for batch in 1..=100 {
        let from = |at: u64| format!("Workload:10.{batch}.0.{at}");
        let conversations = (0..100).map(|at| violation(&from(at), "nv.web.shop", 2));
        let observed = Observed { batch, conversations: conversations.collect() };
        links.observe(&node, &link, &observed, true);
        same.extend(happened(&links).into_iter().map(|due| due.same));
    }
    assert_eq!(same.len(), 8, "{same:?}");
    for batch in 101..=200 {
        let conversations = vec![violation("a", "nv.web.shop", 2); 8];
        links.observe(&node, &link, &Observed { batch, conversations }, true);
    }
    assert_eq!(happened(&links).len(), 256);
    assert_eq!(links.counts.told.with(&["too-many"]).get(), 800 - 256);
}

#[test]
fn pods_without_a_proxy_are_said_where_labels_ask_for_one() {
    let all = [
        pod("covered-0", true, None),
        pod("bare-0", false, None),
        pod("bare-1", false, None),
        pod("out-0", false, Some("false")),
        pod("in-0", false, Some("true")),
        Arc::new(Pod { addresses: Vec::new(), ..(*pod("host-0", false, None)).clone() }),
    ];
    let now = published(&all);
    let said = |label: Option<&str>, own: &str| {
        let label = label.map(|label| ("outrider.dev/injection".to_owned(), label.to_owned()));
        let labels: Labels = label.into_iter().collect();
        let namespaces = BTreeMap::from([("shop".to_owned(), Arc::new(labels))]);
        let due = uncovered::look(&now, &namespaces, own);
        assert!(
            due.iter()
                .all(|due| due.saying.reason == "NotInjected" && due.quiet == SELDOM)
        );
        let mut names: Vec<_> = due.iter().map(|due| due.pod.service.to_string()).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(said(Some("enforced"), "outrider"), "bare in out");
    assert_eq!(said(Some("enabled"), "outrider"), "bare in");
    assert_eq!(said(Some("opt-in"), "outrider"), "in");
    assert_eq!(said(None, "outrider"), "in");
    for label in ["disabled", "sometimes"] {
        assert_eq!(said(Some(label), "outrider"), "");
    }
    assert_eq!(said(Some("enforced"), "shop"), "", "our own namespace");
    assert!(uncovered::look(&now, &BTreeMap::new(), "outrider").is_empty(), "not known yet");
}
