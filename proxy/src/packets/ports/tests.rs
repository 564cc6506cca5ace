use super::*;
use crate::{ctrl, testing};

/// The thread's work for a proxy that nobody gave any port.
fn ports() -> (SharedContext, Ports) {
    let dir = tempfile::tempdir().unwrap();
    let (context, relay, _state) = testing::assemble(testing::settings(dir.path(), &[]));
    let ports = Ports::new(Arc::clone(&context), &relay);
    (context, ports)
}

fn tap(netns: &str) -> Port {
    ctrl::Port::Tap { netns: netns.into(), iface: "eth0".into() }
}

fn refused(context: &SharedContext, reason: &str) -> bool {
    let text = context.registry.expose().unwrap();
    text.lines().any(|line| {
        line.starts_with("outrider_ports_refused_total") && line.contains(&format!("\"{reason}\""))
    })
}

#[tokio::test]
async fn what_cannot_be_opened_is_counted_once_and_stays_wanted() {
    let (context, mut ports) = ports();
    let queue = Port::Queue { netns: "/proc/self/ns/net".into(), iface: "eth0".into() };
    let pair = Port::Pair { outer: "vex-none".into(), inner: "vin-none".into() };
    let wanted = [tap("/etc/passwd"), tap("/proc/self/ns/net"), queue, pair];
    context
        .ports
        .want(wanted.into_iter().map(|port| (port, PortUse::default())));
    ports.reconcile().await;
    ports.reconcile().await;
    assert_eq!((ports.open.len(), ports.missing.len()), (0, 4));
    assert!(refused(&context, "namespace") && refused(&context, "own"));
    let text = context.registry.expose().unwrap();
    let sum: f64 = text
        .lines()
        .filter(|line| line.starts_with("outrider_ports_refused_total{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert_eq!(sum, 4.0, "each reason is counted when it is new");
    context.ports.want(std::iter::empty());
    ports.reconcile().await;
    assert!(ports.missing.is_empty());
}

#[tokio::test]
async fn takes_the_most_ports_and_refuses_one_more() {
    let (context, mut ports) = ports();
    let names: Vec<_> = (0..=MAX_OPEN)
        .map(|n| tap(&format!("/run/netns/{n}")))
        .collect();
    context
        .ports
        .want(names.iter().cloned().map(|port| (port, PortUse::default())));
    for port in &names[..MAX_OPEN] {
        let (what, stop) = (watch::Sender::default(), CancellationToken::new());
        let stopped = stop.clone();
        let task = ports.tasks.spawn(async move { stopped.cancelled().await });
        ports
            .open
            .insert(port.clone(), Running { what, stop, task });
    }
    ports.reconcile().await;
    assert_eq!(ports.open.len(), MAX_OPEN);
    assert!(refused(&context, "full"));
    context.ports.want(std::iter::empty());
    ports.reconcile().await;
    assert!(ports.open.is_empty(), "closed, and their tasks have ended");
}
