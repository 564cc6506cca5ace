//! Whatever message is sent to whatever call, it is answered.

use std::{convert::Infallible, time::Duration};

use http_body_util::Full;
use hyper::body::Bytes;
use proptest::prelude::*;
use tokio::time::timeout;
use tonic::{body::Body, codegen::Service as _};

use super::*;
use crate::node::bare;

const LONG: Duration = Duration::from_secs(60);

const CALLS: [&str; 19] = [
    "Kick",
    "GetSessionList",
    "ClearSession",
    "GetStats",
    "GetGroupStats",
    "GetSessionCounter",
    "GetDatapathCounter",
    "GetDerivedPolicyRules",
    "GetDerivedDlpRules",
    "GetDerivedDlpRuleEntries",
    "GetDerivedDlpRuleMacs",
    "GetContainerIntercept",
    "GetMeterList",
    "ProbeSummary",
    "SnifferCmd",
    "GetSniffers",
    "GetSnifferPcap",
    "GetContainerLogs",
    "ProfilingCmd",
];

/// A number as messages have it.
fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
    bytes
}

/// The bytes of a message: of a filter, or any.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let workload = prop_oneof![Just("cache".to_owned()), any::<String>()];
    let filter = (workload, any::<[u32; 3]>()).prop_map(|(workload, numbers)| {
        let length = varint(workload.len() as u64);
        let mut bytes = [&[0x0a][..], &length, workload.as_bytes()].concat();
        for (field, number) in [0x10, 0x18, 0x20].into_iter().zip(numbers) {
            bytes.push(field);
            bytes.extend(varint(number.into()));
        }
        bytes
    });
    prop_oneof![filter, prop::collection::vec(any::<u8>(), 0..64)]
}

/// The frame around it: as it should be, or with another length or a wrong compression.
fn framed(message: &[u8], odd: u8, length: u32) -> Vec<u8> {
    let length = if odd < 8 { u32::try_from(message.len()).unwrap() } else { length };
    let compressed = if odd == 9 { 1 } else { 0 };
    [&[compressed][..], &length.to_be_bytes(), message].concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_message_is_answered(
        asked in prop::collection::vec((prop::sample::select(CALLS.to_vec()), message(), 0u8..10, any::<u32>()), 64),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let enforcer = Enforcer::new(bare(&dir), TaskTracker::new());
            let mut service = EnforcerServiceServer::new(enforcer)
                .max_decoding_message_size(MAX_QUESTION);
            for (call, message, odd, length) in &asked {
                let body = Full::new(Bytes::from(framed(message, *odd, *length)));
                let request = hyper::Request::post(format!("/share.EnforcerService/{call}"))
                    .header("content-type", "application/grpc")
                    .body(Body::new(body))
                    .unwrap();
                let answer: Result<_, Infallible> =
                    timeout(LONG, service.call(request)).await.expect("an answer");
                assert_eq!(answer.unwrap().status(), 200);
            }
        });
    }
}
