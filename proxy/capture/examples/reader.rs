//! Reads packets and counts them, nothing else: what `make bench` measures a tap and a queue with.
//!
//! `reader tap INTERFACE BYTES` counts the frames of that length, `reader queue NUMBER` accepts every
//! packet. Prints `ready` when packets are read, and its counts as a line of JSON after SIGINT.

use std::io::Write;

use outrider_capture::{Filter, Frame, Queue, QueueSettings, QueueVerdict, Tap, TapSettings};
use tokio::signal::ctrl_c;

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["tap", interface, bytes] => tap(interface.to_owned(), bytes.parse()?).await,
        ["queue", number] => queue(number.parse()?).await,
        _ => Err("usage: reader tap INTERFACE BYTES | reader queue NUMBER".into()),
    }
}

async fn tap(interface: String, bytes: usize) -> Result<(), Failure> {
    let filter = Filter::Everything;
    let settings = TapSettings { interface: Some(interface), filter, ..TapSettings::default() };
    let mut tap = Tap::open(&settings)?;
    say("ready")?;
    let mut counted = 0_u64;
    loop {
        let count = |frame: Frame<'_>| counted += u64::from(frame.wire == bytes);
        tokio::select! {
            biased;
            over = ctrl_c() => break over?,
            shown = tap.wait(count) => drop(shown?),
        }
    }
    let counters = tap.counters()?;
    let (seen, lost, shown) = (counters.seen, counters.lost, counters.shown);
    say(&format!("{{\"seen\":{seen},\"lost\":{lost},\"shown\":{shown},\"counted\":{counted}}}"))
}

async fn queue(number: u16) -> Result<(), Failure> {
    let settings = QueueSettings { number, ..QueueSettings::default() };
    let (queue, mut packets) = Queue::open(&settings)?;
    say("ready")?;
    loop {
        tokio::select! {
            biased;
            over = ctrl_c() => break over?,
            held = packets.recv() => match held {
                Some(held) => held.decide(QueueVerdict::Accept, None),
                None => return Err("the queue has ended".into()),
            },
        }
    }
    let counters = queue.counters();
    let kernel = counters.kernel.unwrap_or_default();
    let never = kernel.full + kernel.lost;
    let lost = never + counters.overflow + counters.stalled + counters.undecided;
    let (seen, shown) = (counters.received + never, counters.decided);
    say(&format!("{{\"seen\":{seen},\"lost\":{lost},\"shown\":{shown},\"counted\":{shown}}}"))
}

fn say(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
