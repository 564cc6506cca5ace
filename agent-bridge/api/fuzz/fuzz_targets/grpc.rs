//! Any message, asked of the bridge or answered by a controller: nothing panics, and what is read is
//! written and read as the same.
//!
//! The first byte picks the type, the rest is the message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outrider_api::share::{
    ClusAdmissionResponse, ClusContainerLogReq, ClusFilter, ClusKick, ClusProfilingRequest,
    ClusReportResponse, ClusSnifferDownload, ClusSnifferFilter, ClusSnifferRequest, ClusWlIdArray,
    RpcVoid,
};
use prost::Message;

fn message<T: Default + Message + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(read) = T::decode(bytes) else { return };
    let written = read.encode_to_vec();
    assert_eq!(T::decode(written.as_slice()).as_ref(), Ok(&read));
}

fuzz_target!(|input: &[u8]| {
    let Some((which, bytes)) = input.split_first() else { return };
    match which % 11 {
        0 => message::<ClusFilter>(bytes),
        1 => message::<ClusWlIdArray>(bytes),
        2 => message::<ClusSnifferRequest>(bytes),
        3 => message::<ClusSnifferFilter>(bytes),
        4 => message::<ClusSnifferDownload>(bytes),
        5 => message::<ClusKick>(bytes),
        6 => message::<ClusContainerLogReq>(bytes),
        7 => message::<ClusProfilingRequest>(bytes),
        8 => message::<ClusReportResponse>(bytes),
        9 => message::<ClusAdmissionResponse>(bytes),
        _ => message::<RpcVoid>(bytes),
    }
});
