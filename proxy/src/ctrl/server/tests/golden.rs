//! What the real agent sent, and what the real data path was given to choke on.

use std::fs;

use serde_json::Value;

use super::*;
use crate::testing::golden;

#[tokio::test(start_paused = true)]
async fn a_pod_lifecycle_gets_the_replies_of_the_data_path() {
    let rig = Rig::start(&[]).await;
    let _notifications = rig.listen();
    let client = rig.client("client");
    let text = fs::read_to_string(golden("transcripts/pod-lifecycle.jsonl")).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (mut asked, mut answered) = (0, 0);
    for line in &lines {
        if line["dir"] == "agent->dp" {
            client.send(line["text"].as_str().unwrap()).await;
            asked += 1;
        } else if line["socket"] == "dp_client" && !is_list_part(line) {
            // The lists differ with the traffic; all else has one reply of its kind.
            let kind = next_outside_lists(&client).await;
            assert_eq!(u64::from(kind.0), line["kind"].as_u64().unwrap(), "{line}");
            answered += 1;
        }
    }
    assert!(asked > 30 && answered > 3, "{asked} asked, {answered} answered");
    rig.stop().await;
}

/// A datagram of a list that says "more follow": our lists are empty.
fn is_list_part(line: &Value) -> bool {
    let header = line["hex"].as_str().unwrap();
    matches!(line["kind"].as_u64(), Some(2 | 5)) && &header[2..4] == "01"
}

async fn next_outside_lists(client: &Client) -> Kind {
    client.reply().await.kind()
}

#[tokio::test(start_paused = true)]
async fn survives_every_input_that_was_tried_on_the_data_path() {
    let text = fs::read_to_string(golden("robustness.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    let rig = Rig::start(&[]).await;
    let _notifications = rig.listen();
    let client = rig.client("client");
    for (seq, case) in cases.iter().enumerate() {
        let name = case["case"].as_str().unwrap();
        for request in case["requests"].as_array().unwrap() {
            client.0.send(&bytes(request)).await.unwrap();
        }
        let seq = 1_000_000 + u32::try_from(seq).unwrap();
        client
            .send(&format!(r#"{{"ctrl_keep_alive":{{"seq_num":{seq}}}}}"#))
            .await;
        let mut kinds = Vec::new();
        loop {
            match client.reply().await {
                Reply::KeepAlive(alive) if alive.seq_num == seq => break,
                other => kinds.push(other.kind()),
            }
        }
        if case["dp_survived"] == true {
            let documented = case["replies"].as_array().unwrap().len();
            assert!(kinds.len() >= documented, "{name}: {kinds:?}");
        }
    }
    assert_eq!(cases.len(), 91);
    rig.stop().await;
}

/// The bytes of one input. Of a long one only length and beginning are kept: the rest is letters
/// and the end.
fn bytes(request: &Value) -> Vec<u8> {
    if let Some(text) = request["text"].as_str() {
        return text.as_bytes().to_vec();
    }
    if let Some(hex) = request["hex"].as_str() {
        let pairs = (0..hex.len()).step_by(2);
        return pairs
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect();
    }
    let end = br#""}}"#;
    let length = usize::try_from(request["length"].as_u64().unwrap()).unwrap();
    let mut long = request["head"].as_str().unwrap().as_bytes().to_vec();
    long.resize(length - end.len(), b'a');
    long.extend(end);
    long
}
