//! A server that says one line, and a client that expects it from some and to be refused by others: what shows in a
//! cluster that policy lets through and stops.

use std::{
    io::{Write as _, stdout},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use clap::{Args, Subcommand};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::client::Failure;

/// What the server says to everybody. It speaks first, and so needs nothing of the client.
const LINE: &[u8] = b"outrider probe\n";
/// An answer that takes longer is none.
const ANSWER: Duration = Duration::from_secs(5);
/// Between two rounds.
const PAUSE: Duration = Duration::from_secs(1);

/// One side of it.
#[derive(Debug, Subcommand)]
pub(crate) enum Probe {
    /// Answer everybody who connects, until stopped
    Serve {
        /// Ports to listen on
        #[arg(required = true, num_args = 1..=16)]
        ports: Vec<u16>,
    },
    /// Connect until all is as it should be
    Expect(Expected),
}

/// What should be.
#[derive(Args, Debug)]
pub(crate) struct Expected {
    /// Must answer
    #[arg(long, value_name = "HOST:PORT")]
    open: Vec<String>,
    /// Must not: refused, cut or silent
    #[arg(long, value_name = "HOST:PORT")]
    refused: Vec<String>,
    /// Seconds until all must be so at once
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    within: u64,
}

/// Runs it.
pub(crate) async fn run(probe: &Probe) -> Result<(), Failure> {
    match probe {
        Probe::Serve { ports } => serve(ports).await,
        Probe::Expect(expected) => {
            expect(expected).await?;
            let (open, refused) = (expected.open.join(" "), expected.refused.join(" "));
            Ok(writeln!(stdout(), "open: {open}; refused: {refused}")?)
        }
    }
}

async fn serve(ports: &[u16]) -> Result<(), Failure> {
    let mut listeners = JoinSet::new();
    for port in ports {
        let all: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
        let all = all.map(|address| SocketAddr::new(address, *port)); // the second where there is no IPv6
        let listener = TcpListener::bind(&all[..]).await;
        let listener =
            listener.map_err(|error| Failure::Refused(format!("port {port}: {error}")))?;
        listeners.spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((mut peer, _)) => drop(timeout(ANSWER, peer.write_all(LINE)).await),
                    Err(_too_many) => sleep(PAUSE).await,
                }
            }
        });
    }
    while listeners.join_next().await.is_some() {}
    Ok(())
}

async fn expect(expected: &Expected) -> Result<(), Failure> {
    let until = Instant::now() + Duration::from_secs(expected.within);
    loop {
        let mut wrong = Vec::new();
        for (targets, open) in [(&expected.open, true), (&expected.refused, false)] {
            for target in targets {
                let answers = answers(target, until).await;
                if answers != open {
                    let what = if answers { "answers" } else { "does not answer" };
                    wrong.push(format!("{target} {what}"));
                }
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(Failure::Refused(wrong.join("; ")));
        }
        sleep(PAUSE).await;
    }
}

/// Whether the whole line comes.
async fn answers(target: &str, until: Instant) -> bool {
    let deadline = until
        .min(Instant::now() + ANSWER)
        .max(Instant::now() + PAUSE);
    let ask = async {
        let mut line = [0; LINE.len()];
        let mut server = TcpStream::connect(target).await?;
        server.read_exact(&mut line).await?;
        Ok::<_, std::io::Error>(line == LINE)
    };
    matches!(timeout_at(deadline, ask).await, Ok(Ok(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(open: &[String], refused: &[String], within: u64) -> Expected {
        Expected { open: open.to_vec(), refused: refused.to_vec(), within }
    }

    #[tokio::test]
    async fn is_content_when_one_answers_and_the_other_does_not() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let open = [format!("127.0.0.1:{port}")];
        // Closes whoever comes, as a proxy does that denies.
        let cutting = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refused = [cutting.local_addr().unwrap().to_string()];
        let cut = async {
            while let Ok((peer, _)) = cutting.accept().await {
                drop(peer);
            }
        };
        let both = async {
            expect(&expected(&open, &refused, 20)).await.unwrap();
            expect(&expected(&refused, &open, 1)).await.unwrap_err()
        };
        let failure = tokio::select! {
            () = cut => unreachable!(),
            served = serve(std::slice::from_ref(&port)) => panic!("{served:?}"),
            failure = both => failure.to_string(),
        };
        assert_eq!(failure, format!("{} does not answer; {} answers", refused[0], open[0]));
    }
}
