//! What the corpus asks for, from its own offsets and nothing of ours.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Members that describe bytes without a meaning, or repeat others.
const UNSPECIFIED: [&str; 14] = [
    "padding",
    "pad",
    "pad_byte",
    "reserved",
    "flag_names",
    "_byte_order",
    "peer_ip_raw",
    "ip_tail_hex",
    "ip_tail_zero",
    "name_field_tail_zero",
    "packet_rest_all_zero",
    "dlp_name_hash_raw",
    "interval_be",
    "interval_le",
];

/// The decoded body, without what has no meaning.
pub(crate) fn body(about: &Value) -> Value {
    let mut body = about["body"].clone();
    if let (Some(be), Some(le)) = (body["interval_be"].as_u64(), body["interval_le"].as_u64()) {
        body["interval"] = json!(be.min(le)); // one of the two readings is 5, the other absurd
    }
    strip(&mut body);
    body
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, _| !UNSPECIFIED.contains(&name.as_str()));
            if members.contains_key("tail_hex") {
                *value = members["ip"].take();
                return;
            }
            members.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

/// Names of flags, by kind, lowest bit first.
const FLAGS: [(u64, &[&str]); 4] = [
    (
        2,
        &[
            "INGRESS",
            "TAP",
            "MID",
            "EXTERNAL",
            "XFF",
            "SVC_EXTIP",
            "MESH_TO_SVR",
            "LINK_LOCAL",
            "TMP_OPEN",
            "UWLIP",
            "CHK_NBE",
            "NBE_SNS",
        ],
    ),
    (5, &["IPV4", "TAP"]),
    (6, &["PKT_INGRESS", "SESS_INGRESS", "TAP"]),
    (
        7,
        &[
            "INGRESS",
            "EXTERNAL",
            "XFF",
            "SVC_EXTIP",
            "MESH_TO_SVR",
            "LINK_LOCAL",
            "TMP_OPEN",
            "UWLIP",
            "CHK_NBE",
            "NBE_SNS",
        ],
    ),
];

/// Checks that the names of flags agree with their numbers.
pub(crate) fn flags(about: &Value) -> Result<()> {
    let kind = about["kind"].as_u64().context("a kind")?;
    let Some((_, names)) = FLAGS.iter().find(|(of, _)| *of == kind) else { return Ok(()) };
    let single = std::slice::from_ref(&about["body"]);
    for entry in about["body"]["list"]
        .as_array()
        .map_or(single, Vec::as_slice)
    {
        let bits = entry["flags"].as_u64().context("flags")?;
        let named: Vec<_> = (0..names.len())
            .filter(|bit| bits >> bit & 1 == 1)
            .collect();
        let named: Vec<_> = named.into_iter().map(|bit| names[bit]).collect();
        ensure!(entry["flag_names"] == json!(named), "{named:?}");
    }
    Ok(())
}

/// The bytes that we are to write: those of the real data path, unspecified ones as zero, all
/// numbers in network order.
pub(crate) fn bytes(golden: &[u8], layout: &Value) -> Result<Vec<u8>> {
    let mut bytes = golden.to_vec();
    let kind = golden[0];
    if matches!(kind, 1 | 6 | 7 | 11 | 12 | 13) {
        bytes[1] = 0;
    }
    match kind {
        1 => zero_each(&mut bytes, 12, 10, 9..10),
        2 => network_order(&mut bytes, layout)?,
        5 => meters(&mut bytes),
        7 => bytes[6..8].fill(0),
        8 if bytes[4..8] == [5, 0, 0, 0] => bytes[4..8].reverse(),
        11 => fqdn(&mut bytes),
        12 => {
            bytes[8..20].fill(0);
            zero_behind_nul(&mut bytes[20..276]);
        }
        13 => bytes[8..20].fill(0),
        _ => {}
    }
    Ok(bytes)
}

fn zero_each(bytes: &mut [u8], start: usize, size: usize, range: std::ops::Range<usize>) {
    bytes[start..]
        .chunks_mut(size)
        .for_each(|entry| entry[range.clone()].fill(0));
}

fn zero_behind_nul(field: &mut [u8]) {
    let end = field
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(field.len());
    field[end..].fill(0);
}

fn meters(bytes: &mut [u8]) {
    bytes[6..8].fill(0);
    zero_each(bytes, 8, 44, 35..36);
    for meter in bytes[8..].chunks_mut(44).filter(|meter| meter[33] & 1 == 1) {
        meter[20..32].fill(0);
    }
}

fn fqdn(bytes: &mut [u8]) {
    zero_behind_nul(&mut bytes[4..260]);
    bytes[262..264].fill(0);
    bytes[265] = 0;
    zero_each(bytes, 266, 16, 4..16);
}

/// Turns the numbers of IPv6 sessions around, field by field as the C compiler laid them out.
fn network_order(bytes: &mut [u8], layout: &Value) -> Result<()> {
    bytes[6..8].fill(0);
    let fields = layout["structs"]["DPMsgSession"]["fields"]
        .as_array()
        .context("a layout")?;
    for session in bytes[8..]
        .chunks_mut(140)
        .filter(|session| session[10..12] == [0xdd, 0x86])
    {
        for field in fields {
            let name = field[0].as_str().unwrap_or_default();
            let at = usize::try_from(field[1].as_u64().context("an offset")?)?;
            let size = usize::try_from(field[2].as_u64().context("a size")?)?;
            if !name.ends_with("MAC") && !name.ends_with("IP") {
                session[at..at + size].reverse();
            }
        }
    }
    Ok(())
}
