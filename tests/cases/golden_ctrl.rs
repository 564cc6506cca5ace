//! NeuVector's own bytes, both ways: all of `golden/ctrl` (its README says how it was made).

#![cfg(test)]

#[path = "golden_ctrl/corpus.rs"]
mod corpus;
#[path = "golden_ctrl/expected.rs"]
mod expected;
#[path = "golden_ctrl/hostile.rs"]
mod hostile;
#[path = "golden_ctrl/show.rs"]
mod show;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use outrider_wire::{
    Body, Message, Notification, Reply, WireError,
    chunk::{Assembler, Chunked, split},
    request::{DelFqdn, Request},
};
use serde_json::Value;

use corpus::{Golden, report};

#[test]
fn every_message_decodes_to_its_json_and_encodes_to_its_bytes() -> Result<()> {
    let layout = corpus::json("struct-layout.json")?;
    let mut seen = 0_usize;
    for Golden { name, bytes, about } in corpus::messages()? {
        let message = Message::decode_exact(&bytes).with_context(|| name.clone())?;
        assert_eq!(show::message(&message), expected::body(&about), "{name}");
        expected::flags(&about).with_context(|| name.clone())?;
        let expected = expected::bytes(&bytes, &layout)?;
        assert_eq!(message.encode()?, expected, "{name}");
        on_its_socket(&bytes, &about["socket"], &message).with_context(|| name.clone())?;
        seen += 1;
    }
    report(seen, "messages", 67)
}

fn on_its_socket(bytes: &[u8], socket: &Value, message: &Message) -> Result<()> {
    let wrong = WireError::WrongKind(bytes[0]);
    match message {
        Message::Notification(_) => {
            ensure!(socket == "ctrl_listen", "a notification on {socket}");
            ensure!(Reply::decode_exact(bytes) == Err(wrong), "taken for a reply");
        }
        Message::Reply(_) => {
            ensure!(socket == "dp_client", "a reply on {socket}");
            ensure!(Notification::decode_exact(bytes) == Err(wrong), "taken for a notification");
        }
    }
    Ok(())
}

#[test]
fn every_message_is_refused_truncated_and_with_a_tail() -> Result<()> {
    for Golden { name, mut bytes, .. } in corpus::messages()? {
        for cut in 0..bytes.len() {
            let refused = Message::decode_exact(&bytes[..cut]);
            assert_eq!(refused, Err(WireError::Truncated), "{name} cut at {cut}");
        }
        bytes.push(0);
        let too_long = bytes.len() > outrider_wire::limits::MAX_MESSAGE;
        assert!(!too_long, "{name}");
        assert_eq!(Message::decode_exact(&bytes), Err(WireError::Trailing), "{name}");
    }
    Ok(())
}

#[test]
fn every_request_parses_and_encodes_to_its_bytes() -> Result<()> {
    let mut seen = 0_usize;
    let mut keys = std::collections::BTreeSet::new();
    for Golden { name, bytes, about } in corpus::requests()? {
        let request = only_request(&bytes).with_context(|| name.clone())?;
        assert_eq!(request.key(), about["key"], "{name}");
        let text = String::from_utf8(request.encode()?)?;
        assert_eq!(text, String::from_utf8(bytes)?, "{name}");
        keys.insert(request.key());
        seen += 1;
    }
    assert_eq!(keys.len(), 37, "every key of the protocol");
    report(seen, "requests", 89)
}

fn only_request(bytes: &[u8]) -> Result<Request> {
    let [command] = <[_; 1]>::try_from(Request::parse_datagram(bytes)?)
        .map_err(|all| anyhow::anyhow!("{} commands", all.len()))?;
    Ok(command.request?)
}

#[test]
fn every_chunked_request_assembles_and_splits_as_the_agent_did() -> Result<()> {
    let mut sequences: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for Golden { name, bytes, .. } in corpus::requests()? {
        let whole = name.split('.').next().unwrap_or_default().to_owned();
        sequences.entry(whole).or_default().push(bytes);
    }
    sequences.retain(|_, chunks| chunks.len() > 1);
    for (name, chunks) in &sequences {
        let again = match only_request(&chunks[0])? {
            Request::CfgPolicy(_) => reassemble(chunks, Request::CfgPolicy)?,
            Request::CfgInternalNet(_) => reassemble(chunks, Request::CfgInternalNet)?,
            Request::CfgDlp(_) => reassemble(chunks, Request::CfgDlp)?,
            Request::BuildDlp(_) => reassemble(chunks, Request::BuildDlp)?,
            Request::CfgDelFqdn(_) => names_again(chunks)?,
            other => anyhow::bail!("{name}: {} is never split", other.key()),
        };
        assert_eq!(&again, chunks, "{name}");
    }
    report(sequences.len(), "chunk sequences", 7)
}

/// A chunked request, taken out of its variant.
trait Variant: Chunked {
    fn of(request: Request) -> Option<Self>;
}

macro_rules! variant {
    ($($type:ty: $variant:ident,)*) => {
        $(impl Variant for $type {
            fn of(request: Request) -> Option<Self> {
                match request {
                    Request::$variant(inner) => Some(inner),
                    _ => None,
                }
            }
        })*
    };
}

variant! {
    outrider_wire::request::Policy: CfgPolicy,
    outrider_wire::request::Subnets<outrider_wire::request::Subnet>: CfgInternalNet,
    outrider_wire::request::CfgDlp: CfgDlp,
    outrider_wire::request::BuildDlp: BuildDlp,
}

fn reassemble<C: Variant>(
    chunks: &[Vec<u8>],
    request: impl Fn(C) -> Request,
) -> Result<Vec<Vec<u8>>> {
    let mut assembler = Assembler::default();
    let mut whole = None;
    for chunk in chunks {
        ensure!(whole.is_none(), "complete before its end");
        whole = assembler.push(C::of(only_request(chunk)?).context("another request")?)?;
    }
    Ok(split(&whole.context("never complete")?, request)?)
}

fn names_again(chunks: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for chunk in chunks {
        if let Request::CfgDelFqdn(part) = only_request(chunk)? {
            names.extend(part.names);
        }
    }
    DelFqdn::split(&names)
        .map(|part| Ok(Request::CfgDelFqdn(part).encode()?))
        .collect()
}

#[test]
fn every_hostile_input_is_survived() -> Result<()> {
    let (mut seen, mut fatal) = (0_usize, 0_usize);
    for case in corpus::robustness()? {
        hostile::check(&case).with_context(|| case["case"].to_string())?;
        seen += 1;
        fatal += usize::from(case["dp_survived"] == false);
    }
    assert_eq!(fatal, 20, "inputs that kill the real data path");
    report(seen, "robustness inputs", 91)
}

#[test]
fn a_whole_transcript_decodes_and_encodes() -> Result<()> {
    let mut seen = 0_usize;
    for line in corpus::transcript("pod-lifecycle.jsonl")? {
        if let Some(text) = line["text"].as_str().filter(|_| line["dir"] == "agent->dp") {
            let request = only_request(text.as_bytes()).context(text.to_owned())?;
            assert_eq!(String::from_utf8(request.encode()?)?, text);
        } else if let Some(hex) = line["hex"].as_str() {
            let bytes = corpus::unhex(hex)?;
            let message = Message::decode_exact(&bytes)?;
            let expected = expected::bytes(&bytes, &corpus::json("struct-layout.json")?)?;
            assert_eq!(message.encode()?, expected);
        } else {
            continue;
        }
        seen += 1;
    }
    report(seen, "transcript datagrams", 60)
}

#[test]
fn a_kind_is_decoded_only_as_itself() -> Result<()> {
    let alive = outrider_wire::KeepAlive { seq_num: 1 }.encode()?;
    let refused = outrider_wire::SessionCount::decode_exact(&alive);
    assert_eq!(refused, Err(WireError::WrongKind(10)));
    Ok(())
}
