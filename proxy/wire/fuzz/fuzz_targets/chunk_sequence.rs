//! Any datagrams from an agent, one after the other, each behind a NUL: whatever chunks they are of,
//! what is put together stays within its caps, and each whole request splits and comes together again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outrider_wire::{
    chunk::{Assembler, Chunked, split},
    limits::SPLIT_ABOVE,
    request::{BuildDlp, CfgDlp, Policy, Request, SpecialSubnet, Subnet, Subnets},
};

#[derive(Default)]
struct Pending {
    policies: Assembler<Policy>,
    choices: Assembler<CfgDlp>,
    builds: Assembler<BuildDlp>,
    internal: Assembler<Subnets<Subnet>>,
    special: Assembler<Subnets<SpecialSubnet>>,
    addresses: Assembler<Subnets<Subnet>>,
}

fuzz_target!(|stream: &[u8]| {
    let mut pending = Pending::default();
    for datagram in stream.split(|byte| *byte == 0) {
        let Ok(commands) = Request::parse_datagram(datagram) else { continue };
        for request in commands
            .into_iter()
            .filter_map(|command| command.request.ok())
        {
            pending.take(request);
        }
    }
});

impl Pending {
    fn take(&mut self, request: Request) {
        match request {
            Request::CfgPolicy(part) => push(&mut self.policies, part, Request::CfgPolicy),
            Request::CfgDlp(part) => push(&mut self.choices, part, Request::CfgDlp),
            Request::BuildDlp(part) => push(&mut self.builds, part, Request::BuildDlp),
            Request::CfgInternalNet(part) => {
                push(&mut self.internal, part, Request::CfgInternalNet);
            }
            Request::CfgSpecialNet(part) => push(&mut self.special, part, Request::CfgSpecialNet),
            Request::CfgPolicyAddr(part) => push(&mut self.addresses, part, Request::CfgPolicyAddr),
            _ => {}
        }
    }
}

fn push<C: Chunked>(pending: &mut Assembler<C>, part: C, request: impl Fn(C) -> Request) {
    let Ok(Some(whole)) = pending.push(part) else { return };
    let end = whole.end();
    assert!(end.first + end.second <= C::CAP);
    let Ok(datagrams) = split(&whole, request) else { return };
    assert!(datagrams.iter().all(|datagram| datagram.len() <= SPLIT_ABOVE));
}
