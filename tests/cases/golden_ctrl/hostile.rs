//! Inputs that the real data path was tried with: what it did, and what we do.

use anyhow::{Context, Result, bail, ensure};
use outrider_wire::{
    KeepAlive, MacStats, Reply, SessionCount, WireError,
    chunk::Assembler,
    request::{Policy, Request, Subnet, Subnets},
};
use serde_json::{Value, json};

/// Feeds one case to a data path without traffic and compares its answers.
pub(crate) fn check(case: &Value) -> Result<()> {
    let mut data_path = DataPath::default();
    for request in case["requests"].as_array().context("requests")? {
        data_path.take(&datagram(request)?)?;
    }
    if case["dp_survived"] == true {
        ensure!(json!(data_path.replies) == case["replies"], "replied {:?}", data_path.replies);
    } else {
        // The real one died: ours ignores the command, and says which member it missed.
        ensure!(data_path.replies.is_empty(), "replied {:?}", data_path.replies);
        let blamed = data_path
            .errors
            .iter()
            .any(|error| matches!(error, WireError::Missing(_)));
        ensure!(blamed, "not refused: {:?}", data_path.errors);
    }
    expect_counts(case["case"].as_str().unwrap_or_default(), &data_path)
}

/// What must have come of the cases about chunks.
fn expect_counts(case: &str, data_path: &DataPath) -> Result<()> {
    let (applied, ignored) = match case {
        "cfg_policy no start flag" | "internal_net no start" => (0, 1),
        "cfg_policy start without end, then start+end" => (1, 0),
        "cfg_policy cmd 3 delete" => (2, 0),
        "internal_net missing all" => (0, 1),
        "internal_net multi msg" => (1, 0),
        "internal_net start+end, then a continuation without start" => (2, 1),
        "internal_net multi then multi again" => (4, 0),
        _ => return Ok(()),
    };
    let missing_start = data_path
        .errors
        .iter()
        .filter(|error| **error == WireError::NoStart);
    ensure!(missing_start.count() == ignored, "{:?}", data_path.errors);
    ensure!(data_path.applied == applied, "{} applied", data_path.applied);
    Ok(())
}

fn datagram(request: &Value) -> Result<Vec<u8>> {
    if let Some(text) = request["text"].as_str() {
        return Ok(text.into());
    }
    if let Some(hex) = request["hex"].as_str() {
        return super::corpus::unhex(hex);
    }
    let length = usize::try_from(request["length"].as_u64().context("a length")?)?;
    let head = request["head"]
        .as_str()
        .context("a head")?
        .trim_end_matches('a');
    let tail = r#""}}"#;
    let filling = "a".repeat(length - head.len() - tail.len());
    Ok(format!("{head}{filling}{tail}").into())
}

/// As much of a data path as answers and assembles.
#[derive(Default)]
struct DataPath {
    replies: Vec<Value>,
    errors: Vec<WireError>,
    applied: usize,
    policies: Assembler<Policy>,
    internal: Assembler<Subnets<Subnet>>,
}

impl DataPath {
    fn take(&mut self, datagram: &[u8]) -> Result<()> {
        let commands = match Request::parse_datagram(datagram) {
            Ok(commands) => commands,
            Err(error) => {
                self.errors.push(error);
                return Ok(());
            }
        };
        for command in commands {
            match command.request {
                Ok(request) => self.run(request)?,
                Err(error) => self.errors.push(error),
            }
        }
        Ok(())
    }

    fn run(&mut self, request: Request) -> Result<()> {
        let again = Request::parse_datagram(&request.encode()?)?;
        ensure!(again[0].request == Ok(request.clone()), "{} does not round-trip", request.key());
        match request {
            Request::KeepAlive(asked) => {
                self.reply(&KeepAlive { seq_num: asked.seq_num }.into())?;
            }
            Request::CountSession => self.reply(&SessionCount::default().into())?,
            Request::StatsMacs(_) => self.reply(&MacStats::default().into())?,
            Request::CfgPolicy(chunk) => {
                let assembled = self.policies.push(chunk);
                self.assembled(assembled.map(|whole| whole.is_some()));
            }
            Request::CfgInternalNet(chunk) => {
                let assembled = self.internal.push(chunk);
                self.assembled(assembled.map(|whole| whole.is_some()));
            }
            _ => {}
        }
        Ok(())
    }

    fn assembled(&mut self, complete: Result<bool, WireError>) {
        match complete {
            Ok(complete) => self.applied += usize::from(complete),
            Err(error) => self.errors.push(error),
        }
    }

    fn reply(&mut self, reply: &Reply) -> Result<()> {
        let shown = match Reply::decode_exact(&reply.encode()?)? {
            Reply::KeepAlive(alive) => {
                json!({"kind_name": "KEEP_ALIVE", "seq_num": alive.seq_num})
            }
            Reply::SessionCount(_) => json!({"kind_name": "SESSION_COUNT"}),
            Reply::MacStats(_) => json!({"kind_name": "MAC_STATS"}),
            other => bail!("{:?} was not asked for", other.kind()),
        };
        self.replies.push(shown);
        Ok(())
    }
}
