//! Told to end by its bridge, and by nobody else.

use super::{
    super::ending::{LAST_WORDS, LAST_WORDS_ALONE},
    reports::{batch, batch_rows, sums, traffic},
    *,
};

const OURS: Instance = Instance(0x1234);

impl Client {
    async fn stop(&self, instance: Instance) {
        self.send(&format!(r#"{{"ctrl_outrider_stop":{{"instance":"{instance}"}}}}"#))
            .await;
        self.is_alive(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn only_its_bridge_tells_a_proxy_to_end_and_only_this_life() {
    let rig = Rig::start(&[]).await;
    let (bridge, other) = (rig.client("bridge"), rig.client("other"));
    bridge.stop(OURS).await;
    assert!(!rig.context.alone.is_cancelled(), "who has not said hello is nobody's bridge");
    assert!(bridge.hello().await.stops, "announced");
    other.stop(OURS).await;
    bridge.stop(Instance(0x1233)).await;
    assert!(!rig.context.alone.is_cancelled());
    let text = rig.context.registry.expose().unwrap();
    let counted = r#"outrider_ctrl_errors_total{reason="foreign-stop"} 3"#;
    assert!(text.contains(counted), "{text}");
    bridge.stop(OURS).await;
    assert!(rig.context.alone.is_cancelled());
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_is_alone_waits_for_a_bridge_that_restarts_to_store_what_it_tells() {
    let rig = Rig::start(&[]).await;
    let (socket, bridge) = (rig.listen(), rig.client("bridge-1"));
    bridge.hello().await;
    bridge.add_mac().await;
    bridge.stop(OURS).await;
    traffic(&rig, 3, 10);
    rig.stop.cancel();
    let (seq, told) = batch(&socket).await;
    assert_eq!(sums(&batch_rows(&told)), (3, 30));
    drop((socket, bridge));
    let (socket, bridge) = (rig.listen(), rig.client("bridge-2"));
    bridge.hello().await;
    assert_eq!(batch(&socket).await, (seq, told));
    bridge.ack(OURS, seq).await;
    let ended = Instant::now();
    rig.stop().await;
    assert!(ended.elapsed() < LAST_WORDS, "nothing is left to be said");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_is_alone_ends_without_a_bridge_after_a_while() {
    let rig = Rig::start(&[]).await;
    let (socket, bridge) = (rig.listen(), rig.client("bridge"));
    bridge.hello().await;
    bridge.add_mac().await;
    bridge.stop(OURS).await;
    drop((socket, bridge));
    traffic(&rig, 3, 10);
    let began = Instant::now();
    rig.stop().await;
    assert!((LAST_WORDS_ALONE..LAST_WORDS_ALONE * 2).contains(&began.elapsed()));
}
