//! What a pod's hooks run in the proxy's container where the proxy is one container among others: the next
//! one is held back until the proxy is ready, and the proxy goes on while the others end.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpStream},
    thread::sleep,
    time::Duration,
};

use tokio::time::Instant;

/// Returns when the proxy of this pod is ready.
///
/// # Errors
/// When it is not within ten minutes.
pub fn wait_until_ready(health_port: u16) -> io::Result<()> {
    let began = Instant::now();
    while began.elapsed() < LONGEST_START {
        if ask(health_port, "/healthz/ready").is_ok() {
            return Ok(());
        }
        sleep(LOOK);
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Returns when the others have ended as far as connections tell: none has been open for a second, and clients
/// have had five to hear that the pod is going. After fifteen it returns in any case.
pub fn linger(health_port: u16) {
    let began = Instant::now();
    let mut quiet_since = None;
    while began.elapsed() < LONGEST_LINGER {
        match ask(health_port, "/metrics") {
            // Whoever is gone need not be waited for.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return,
            Ok(text) if open_flows(&text) == Some(0) => {
                let since = *quiet_since.get_or_insert_with(Instant::now);
                if began.elapsed() >= SHORTEST_LINGER && since.elapsed() >= QUIET {
                    return;
                }
            }
            _ => quiet_since = None,
        }
        sleep(LOOK);
    }
}

/// The body of a 200.
fn ask(port: u16, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let question = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(io::Error::other("not a 200")),
    }
}

fn open_flows(metrics: &str) -> Option<u64> {
    let lines = metrics
        .lines()
        .filter(|line| line.starts_with("outrider_flows_open{"));
    lines
        .map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

const LOOK: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(2);
const QUIET: Duration = Duration::from_secs(1);
const SHORTEST_LINGER: Duration = Duration::from_secs(5);
const LONGEST_LINGER: Duration = Duration::from_secs(15);
const LONGEST_START: Duration = Duration::from_secs(600);
/// Most bytes of an answer.
const MAX_ANSWER: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// A health port that answers so many questions, one after the other.
    fn health(answers: &'static [&'static str]) -> (u16, std::thread::JoinHandle<()>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    head.extend(byte);
                }
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        (port, served)
    }

    #[test]
    fn waits_until_it_is_ready() {
        let (port, served) = health(&[
            "HTTP/1.1 503 Service Unavailable\r\n\r\nnot ready",
            "HTTP/1.1 200 OK\r\n\r\nready",
        ]);
        wait_until_ready(port).unwrap();
        served.join().unwrap();
    }

    #[test]
    fn lingers_for_connections_and_not_for_a_proxy_that_is_gone() {
        let (port, served) = health(&[
            "HTTP/1.1 200 OK\r\n\r\noutrider_flows_open{direction=\"inbound\"} 1\n",
            "HTTP/1.1 200 OK\r\n\r\noutrider_flows_open{direction=\"inbound\"} 0\n",
        ]);
        linger(port);
        served.join().unwrap();
    }

    #[test]
    fn open_flows_are_those_of_both_directions() {
        let text = "# HELP\noutrider_flows_open{direction=\"inbound\"} 3\n\
                    outrider_flows_open{direction=\"outbound\"} 4\noutrider_flows_opened_total 9\n";
        assert_eq!(open_flows(text), Some(7));
        assert_eq!(open_flows("outrider_flows_open{} x"), None);
    }
}
