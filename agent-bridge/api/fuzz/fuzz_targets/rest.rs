//! Any query or body: nothing panics, and what is read is written and read as the same.
//!
//! The first byte picks the type, the rest is its text. The CLI reads the answers, so they are here too.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use outrider_api::{
    CaptureRequest, Conversation, EventsQuery, ExplainQuery, Explanation, Flow, ListQuery,
    ModeReply, ModeRequest, PolicyReply, PolicyRequest, ReplayReply, ReplayRequest, Rule, Session, Status, Threat, Violation, Workload,
};
use outrider_model::{Mode, PacketFilter};
use serde::{Serialize, de::DeserializeOwned};

fn query<T: Debug + DeserializeOwned + PartialEq + Serialize>(text: &[u8]) -> Option<T> {
    let read: T = serde_urlencoded::from_bytes(text).ok()?;
    let written = serde_urlencoded::to_string(&read).expect("what was read can be written");
    assert_eq!(serde_urlencoded::from_str::<T>(&written).as_ref(), Ok(&read));
    Some(read)
}

fn body<T: Debug + DeserializeOwned + PartialEq + Serialize>(text: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(text).ok()?;
    let written = serde_json::to_vec(&read).expect("what was read can be written");
    assert_eq!(serde_json::from_slice::<T>(&written).ok().as_ref(), Some(&read));
    Some(read)
}

fuzz_target!(|input: &[u8]| {
    let Some((which, text)) = input.split_first() else { return };
    match which % 19 {
        0 => drop(query::<ListQuery>(text)),
        1 => drop(query::<EventsQuery>(text)),
        2 => drop(query::<ExplainQuery>(text)),
        3 => drop(body::<ModeRequest>(text).map(|asked| asked.mode.parse::<Mode>())),
        4 => drop(body::<CaptureRequest>(text).map(|asked| asked.filter.parse::<PacketFilter>())),
        5 => drop(body::<Status>(text)),
        6 => drop(body::<Workload>(text)),
        7 => drop(body::<Conversation>(text)),
        8 => drop(body::<Rule>(text)),
        9 => drop(body::<Violation>(text)),
        10 => drop(body::<Threat>(text)),
        11 => drop(body::<Flow>(text)),
        12 => drop(body::<Session>(text)),
        13 => drop(body::<Explanation>(text)),
        14 => drop(body::<PolicyRequest>(text)),
        15 => drop(body::<PolicyReply>(text)),
        16 => drop(body::<ReplayRequest>(text)),
        17 => drop(body::<ReplayReply>(text)),
        _ => drop(body::<ModeReply>(text)),
    }
});
