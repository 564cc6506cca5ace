//! Resets the connections that it is told of, a line each: the end in its namespace, the other
//! end, both as `ip:port`. An empty
//! line ends a round; the answer to it is a line with what became of all so far, once nothing is left
//! to do. It runs in the pod's namespace with `NET_RAW` and holds none of the connections.
#![forbid(unsafe_code)]

use std::{
    io::{BufRead as _, Write as _, stdin, stdout},
    net::SocketAddr,
};

use anyhow::{Context as _, Result};
use outrider_proxy::packets::reset::Resets;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut resets = Resets::open(None)?;
        writeln!(stdout(), "ready")?;
        let mut lines = stdin().lock().lines();
        while let Some(line) = lines.next().transpose()? {
            if let Some((near, far)) = line.split_once(' ') {
                let near: SocketAddr = near.parse().context("near")?;
                resets.condemn(near, far.parse().context("far")?, None);
                continue;
            }
            while resets.pending() > 0 {
                resets.work().await?;
            }
            writeln!(stdout(), "{:?}", resets.counters())?;
        }
        Ok(())
    })
}
