//! Neighbours from hell: what a hostile or broken proxy may do with its own mailbox.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Result;
use outrider_model::names;
use outrider_wire::{
    Body as _, Connections,
    ext::{Batch, Instance},
};
use tokio::{
    net::UnixDatagram,
    sync::watch,
    task::{JoinSet, yield_now},
};

use super::{
    Phase,
    member::{Answering, Manner, Tally, connect},
    traffic::{Shape, Traffic},
};

/// Longest datagram that is sent; the protocol has 8192.
const OVERSIZE: usize = 60_000;
/// Rows of a whole datagram.
const ROWS: u32 = 85;

/// One way to do harm, as fast as the socket takes it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mischief {
    /// Takes requests into its socket and never reads one.
    Stalled,
    /// Reads requests and answers none.
    Mute,
    /// Sends noise: random bytes, cut messages, unknown kinds.
    Garbage,
    /// Sends good rows without end, each of a new conversation, and waits for nothing.
    Flood,
    /// Sends the largest batches that there may be, and waits for nothing.
    Batches,
    /// Announces batches and never ends one.
    Halves,
    /// Sends datagrams that are longer than any may be.
    Oversize,
    /// Sends rows of another pod.
    Foreign,
}

impl Mischief {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Stalled,
        Self::Mute,
        Self::Garbage,
        Self::Flood,
        Self::Batches,
        Self::Halves,
        Self::Oversize,
        Self::Foreign,
    ];

    /// Whether it answers requests as it should.
    #[must_use]
    pub fn answers(self) -> bool {
        !matches!(self, Self::Stalled | Self::Mute)
    }

    /// Starts its tasks.
    pub(super) fn join(
        self,
        all: &mut JoinSet<()>,
        (number, mailbox): (u32, &Path),
        phase: watch::Receiver<Phase>,
        sent: Arc<AtomicU64>,
    ) -> Result<()> {
        let socket = UnixDatagram::bind(mailbox.join(names::DP_LISTEN))?;
        match self {
            Self::Stalled => drop(all.spawn(async move {
                let _held = socket;
                std::future::pending().await
            })),
            Self::Mute => drop(all.spawn(read_on(socket))),
            _ => {
                let (acked, _) = watch::channel(0);
                let tally = Arc::new(Tally::default());
                all.spawn(Answering { socket, manner: Manner::Ours, tally, acked }.run());
                let harm = Harm { mischief: self, number, wave: 0, phase, sent };
                let mailbox = mailbox.to_owned();
                all.spawn(async move {
                    if let Err(error) = harm.run(&mailbox).await {
                        eprintln!("mischief {number}: {error}");
                    }
                });
            }
        }
        Ok(())
    }
}

async fn read_on(socket: UnixDatagram) {
    let mut buffer = [0; 64];
    while socket.recv(&mut buffer).await.is_ok() {}
}

/// One that does harm by what it sends.
#[derive(Debug)]
struct Harm {
    mischief: Mischief,
    number: u32,
    wave: u64,
    phase: watch::Receiver<Phase>,
    sent: Arc<AtomicU64>,
}

impl Harm {
    async fn run(mut self, mailbox: &Path) -> io::Result<()> {
        let socket = connect(mailbox).await?;
        while self
            .phase
            .wait_for(|phase| *phase == Phase::Report)
            .await
            .is_ok()
        {
            for datagram in self.volley().map_err(io::Error::other)? {
                match socket.send(&datagram).await {
                    Ok(_) => self.sent.fetch_add(1, Ordering::Relaxed),
                    // Longer than our own socket takes; the bridge never sees it.
                    Err(error) if error.raw_os_error() == Some(nix::libc::EMSGSIZE) => 0,
                    Err(error) => return Err(error),
                };
            }
            yield_now().await;
        }
        Ok(())
    }

    /// The next datagrams.
    fn volley(&mut self) -> Result<Vec<Vec<u8>>, outrider_wire::WireError> {
        self.wave += 1;
        let whole = Traffic { peers: 250, rows: ROWS, shape: Shape::Fresh };
        let rows = |of| Connections { rows: whole.wave(of, self.wave, 1) }.encode();
        let batch =
            |datagrams| Batch { instance: Instance(u64::MAX), seq: self.wave, datagrams }.encode();
        Ok(match self.mischief {
            Mischief::Stalled | Mischief::Mute => Vec::new(),
            Mischief::Garbage => noise(self.wave),
            Mischief::Flood => vec![rows(self.number)?],
            Mischief::Batches => {
                let mut all = vec![batch(1024)?];
                all.resize(1025, rows(self.number)?);
                all
            }
            Mischief::Halves => vec![batch(1024)?, rows(self.number)?],
            Mischief::Oversize => {
                let mut long = rows(self.number)?;
                long.resize(OVERSIZE, 0);
                vec![long, batch(u16::MAX)?]
            }
            Mischief::Foreign => vec![rows(self.number.wrapping_sub(100))?],
        })
    }
}

/// Datagrams of no meaning: random ones, and good ones spoilt.
fn noise(seed: u64) -> Vec<Vec<u8>> {
    let mut state = seed | 1;
    let mut next = move || {
        // Xorshift (Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let length = usize::from(next()[0]) * 16;
    let random: Vec<u8> = std::iter::repeat_with(&mut next)
        .flatten()
        .take(length)
        .collect();
    let good =
        Connections { rows: Traffic { peers: 9, rows: 3, shape: Shape::Fresh }.wave(0, seed, 1) };
    let good = good.encode().unwrap_or_default();
    let cut = good.get(..good.len() / 2).unwrap_or_default().to_vec();
    let mut kind = good;
    kind.iter_mut()
        .take(1)
        .for_each(|byte| *byte = next()[1] | 0x80);
    vec![random, cut, kind, Vec::new()]
}
