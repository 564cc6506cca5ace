//! Datagrams in numbers that a system call each would not reach.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Args;
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
use tokio::time::Instant;

use crate::cpu;

/// Datagrams that one call hands over, which the kernel then cuts apart.
const BATCH: u32 = 32;

/// What to send.
#[derive(Args)]
pub(crate) struct Flood {
    /// To whom.
    server: SocketAddr,
    /// Bytes each datagram carries.
    #[arg(long, default_value_t = 22)]
    payload: u16,
    /// How long.
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Datagrams a second at most; 0 is no limit.
    #[arg(long, default_value_t = 0)]
    rate: u32,
}

/// Sends for the time given and prints `sent`, `seconds` and `cpu_ns` as JSON.
///
/// The kernel cuts datagrams apart before the device only if the device says that it takes none larger
/// (`ip link set dev eth0 gso_max_segs 1`); otherwise they cross a veth pair in one piece.
pub(crate) fn flood(what: &Flood) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket
        .connect(what.server)
        .with_context(|| what.server.to_string())?;
    setsockopt(&socket, UdpGsoSegment, &i32::from(what.payload))?;
    let batch = vec![0x5a; usize::from(what.payload) * usize::try_from(BATCH)?];
    let begun = Instant::now();
    let end = begun + Duration::from_secs(what.seconds.into());
    let mut sent = 0_u64;
    loop {
        let now = Instant::now();
        if now >= end {
            break;
        }
        let due = begun + pause(what.rate, sent);
        if what.rate > 0 && now < due {
            std::thread::sleep(due - now);
        }
        socket.send(&batch)?;
        sent += u64::from(BATCH);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let cpu_ns = cpu::nanos(std::process::id())?;
    writeln!(std::io::stdout(), "{{\"sent\":{sent},\"seconds\":{seconds},\"cpu_ns\":{cpu_ns}}}")?;
    Ok(())
}

/// When that many datagrams should have been sent.
fn pause(rate: u32, sent: u64) -> Duration {
    Duration::from_nanos((sent * 1_000_000_000).checked_div(rate.into()).unwrap_or(0))
}

/// Binds, prints `bound`, and reads what comes, or keeps the port until the input ends.
pub(crate) fn sink(listen: SocketAddr, read: bool) -> Result<()> {
    let socket = UdpSocket::bind(listen).with_context(|| listen.to_string())?;
    socket2::SockRef::from(&socket).set_recv_buffer_size(if read { READ_BUFFER } else { 4096 })?;
    writeln!(std::io::stdout(), "bound")?;
    std::io::stdout().flush()?;
    if read {
        let mut buffer = [0; 2048];
        loop {
            socket.recv(&mut buffer)?;
        }
    }
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Room for what comes while the reader has to wait for a processor; the kernel may give less.
const READ_BUFFER: usize = 16 << 20;

/// Sends back what comes, until killed.
pub(crate) fn udp_echo(listen: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(listen).with_context(|| listen.to_string())?;
    writeln!(std::io::stdout(), "bound")?;
    std::io::stdout().flush()?;
    let mut buffer = [0; 2048];
    loop {
        let (length, client) = socket.recv_from(&mut buffer)?;
        socket.send_to(buffer.get(..length).unwrap_or_default(), client)?;
    }
}

/// Asks from a socket of its own each time; prints the median and the 99th percentile of the time until
/// the answer, in nanoseconds, and how many got none.
pub(crate) fn first(server: SocketAddr, count: u32) -> Result<()> {
    let mut times = Vec::new();
    let mut unanswered = 0_u32;
    for _ in 0..count {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(UNANSWERED))?;
        let begun = Instant::now();
        socket.send(&[7; 64])?;
        match socket.recv(&mut [0; 64]) {
            Ok(_) => times.push(begun.elapsed().as_nanos()),
            Err(_late) => unanswered += 1,
        }
    }
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or(0);
    let (median, p99) = (at(50), at(99));
    writeln!(
        std::io::stdout(),
        "{{\"median_ns\":{median},\"p99_ns\":{p99},\"unanswered\":{unanswered}}}"
    )?;
    Ok(())
}

/// An answer that takes longer is none.
const UNANSWERED: Duration = Duration::from_secs(2);
