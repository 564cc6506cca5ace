//! Any bytes from an agent: parsing never panics, what parses encodes to one form that parses to the
//! same, and whatever order chunks come in, assembling them stays within its caps.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outrider_wire::{
    chunk::{Assembler, Chunked, split},
    request::Request,
};

fuzz_target!(|datagram: &[u8]| {
    let Ok(commands) = Request::parse_datagram(datagram) else { return };
    for request in commands
        .into_iter()
        .filter_map(|command| command.request.ok())
    {
        round_trip(&request);
        reassemble(request);
    }
});

fn round_trip(request: &Request) {
    let Ok(bytes) = request.encode() else { return }; // escapes may make it longer than it came
    let mut again = Request::parse_datagram(&bytes).expect("what encodes parses");
    let again = again.remove(0).request.expect("what encodes is valid");
    assert_eq!(&again, request);
    assert_eq!(again.encode().expect("it did before"), bytes);
}

fn reassemble(request: Request) {
    match request {
        Request::CfgPolicy(chunk) => through(chunk, Request::CfgPolicy),
        Request::CfgInternalNet(chunk) => through(chunk, Request::CfgInternalNet),
        Request::CfgSpecialNet(chunk) => through(chunk, Request::CfgSpecialNet),
        Request::CfgDlp(chunk) => through(chunk, Request::CfgDlp),
        Request::BuildDlp(chunk) => through(chunk, Request::BuildDlp),
        _ => {}
    }
}

/// Splits it, as if it were whole, and counts what comes out.
fn through<C: Chunked + Clone>(chunk: C, request: impl Fn(C) -> Request) {
    let mut assembler = Assembler::default();
    if let Ok(Some(whole)) = assembler.push(chunk.clone()) {
        assert_eq!(whole.end(), chunk.end());
    }
    let Ok(datagrams) = split(&chunk, request) else { return };
    for datagram in datagrams {
        assert!(datagram.len() <= outrider_wire::limits::SPLIT_ABOVE);
        assert!(
            Request::parse_datagram(&datagram).expect("ours")[0]
                .request
                .is_ok()
        );
    }
}
