//! Load tools and the reference proxy, so that every machine measures with the same ones.

mod udp;

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::Builder,
    time::Instant,
};
use tokio_util::task::TaskTracker;

pub(crate) use udp::{Flood, first, flood, sink, udp_echo};

/// Bytes of one exchange.
const EXCHANGE: usize = 64;
/// Connections waiting to be accepted.
const BACKLOG: u32 = 4096;

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(work)
}

fn listen(at: SocketAddr) -> Result<TcpListener> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    socket.listen(BACKLOG).context("listen")
}

/// Accepts and sends back what comes, until killed.
pub(crate) fn echo(at: SocketAddr) -> Result<()> {
    block_on(async move {
        let (listener, tasks) = (listen(at)?, TaskTracker::new());
        loop {
            let (mut stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tasks.spawn(async move {
                let (mut reader, mut writer) = stream.split();
                tokio::io::copy(&mut reader, &mut writer).await.ok();
            });
        }
    })
}

/// Copies redirected connections to where they were meant to go, until killed.
pub(crate) fn reference(port: u16) -> Result<()> {
    block_on(async move {
        let listener = listen((Ipv4Addr::UNSPECIFIED, port).into())?;
        let tasks = TaskTracker::new();
        loop {
            let (mut downstream, _) = listener.accept().await?;
            tasks.spawn(async move {
                if let Ok(mut upstream) = dial_original(&downstream).await {
                    copy_bidirectional(&mut downstream, &mut upstream)
                        .await
                        .ok();
                }
            });
        }
    })
}

async fn dial_original(downstream: &TcpStream) -> Result<TcpStream> {
    downstream.set_nodelay(true)?;
    let original = SockRef::from(downstream).original_dst_v4()?;
    let target = original
        .as_socket()
        .context("no IPv4 original destination")?;
    let upstream = TcpStream::connect(target).await?;
    upstream.set_nodelay(true)?;
    Ok(upstream)
}

async fn exchange(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut buffer = [7_u8; EXCHANGE];
    stream.write_all(&buffer).await?;
    stream.read_exact(&mut buffer).await?;
    Ok(())
}

async fn connect(server: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Runs one task a connection for the time given and prints the count; a failed exchange fails the measurement.
fn count<F>(
    connections: u32,
    seconds: u32,
    task: impl Fn(Instant, Arc<AtomicU64>) -> F,
) -> Result<()>
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    block_on(async {
        let done = Arc::new(AtomicU64::new(0));
        let end = Instant::now() + Duration::from_secs(seconds.into());
        let tasks = TaskTracker::new();
        let running: Vec<_> = (0..connections)
            .map(|_| tasks.spawn(task(end, Arc::clone(&done))))
            .collect();
        for task in running {
            task.await??;
        }
        writeln!(std::io::stdout(), "{}", done.load(Relaxed))?;
        Ok(())
    })
}

/// 64 bytes there and back on connections that stay.
pub(crate) fn ping_pong(server: SocketAddr, connections: u32, seconds: u32) -> Result<()> {
    count(connections, seconds, |end, done| async move {
        let mut stream = connect(server).await?;
        while Instant::now() < end {
            exchange(&mut stream).await?;
            done.fetch_add(1, Relaxed);
        }
        Ok(())
    })
}

/// 64 bytes there and back, each on a connection of its own.
pub(crate) fn short(server: SocketAddr, connections: u32, seconds: u32) -> Result<()> {
    count(connections, seconds, |end, done| async move {
        while Instant::now() < end {
            exchange(&mut connect(server).await?).await?;
            done.fetch_add(1, Relaxed);
        }
        Ok(())
    })
}

/// Connections that stay open, one exchange on each.
pub(crate) fn hold(server: SocketAddr, connections: u32) -> Result<()> {
    let held = block_on(async {
        let mut held = Vec::new();
        for _ in 0..connections {
            let mut stream = connect(server).await?;
            exchange(&mut stream).await?;
            held.push(stream);
        }
        writeln!(std::io::stdout(), "held")?;
        std::io::stdout().flush()?;
        std::io::stdin().read_to_end(&mut Vec::new())?;
        Ok(held)
    })?;
    drop(held);
    Ok(())
}
