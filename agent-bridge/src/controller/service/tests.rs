//! A bridge that takes nothing.

use std::time::Duration;

use kube::client::Body;
use outrider_telemetry::Registry;
use tokio::time::{Instant, sleep};

use super::*;
use crate::controller::counts::Counts;

fn served(service: &Service) -> (Served, mpsc::Receiver<Result<ToNode, Status>>) {
    let node: Arc<str> = "n1".into();
    let (into, answers) = mpsc::channel(MAX_WAITING);
    let link = service.links.enter(&node, "1");
    (Served { service: service.clone(), node, link, into }, answers)
}

fn service() -> Service {
    let counts = Counts::register(&Registry::default()).unwrap();
    let nobody = tower::service_fn(|_request: hyper::Request<Body>| async {
        Err::<hyper::Response<String>, _>(std::io::Error::other("nobody"))
    });
    let client = kube::Client::new(nobody, "outrider");
    Service {
        links: Arc::new(Links::new(counts.clone())),
        reviewer: Arc::new(Reviewer::new(client, "bridges", "outrider", counts)),
        standing: watch::channel(Standing::Leading).1,
        epoch: "one".into(),
        ready: watch::channel(true).1,
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
    }
}

fn whole(answer: Option<Result<ToNode, Status>>) -> Option<bool> {
    match answer?.unwrap().message? {
        to_node::Message::Update(update) => Some(update.whole),
        to_node::Message::Acknowledged(_) => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_bridge_that_takes_nothing_is_cut_and_gets_everything_when_it_is_back() {
    let service = service();
    let links = &service.links;
    let (slow, mut answers) = served(&service);
    let began = Instant::now();
    let asking = async {
        // Each is answered by an update of its own; they find room as long as somebody takes them.
        for number in 0..100 {
            links.ask(&slow.node, &slow.link, &[vec![192, 0, 2, number]]);
            links.written.send_modify(|turn| *turn += 1);
            sleep(Duration::from_secs(1)).await;
        }
        panic!("nobody cut it");
    };
    let reason = tokio::select! {
        reason = slow.tell() => reason,
        () = asking => unreachable!(),
    };
    assert_eq!(reason, "slow");
    assert!(began.elapsed() >= PATIENCE);
    assert_eq!(answers.len(), MAX_WAITING, "no more waits for it");
    assert_eq!(whole(answers.recv().await), Some(true));
    assert_eq!(whole(answers.recv().await), Some(false));
    links.leave(&slow.node, &slow.link);
    let (back, mut answers) = served(&service);
    let told = tokio::select! {
        reason = back.tell() => panic!("{reason}"),
        told = answers.recv() => told,
    };
    assert_eq!(whole(told), Some(true), "everything again");
}
