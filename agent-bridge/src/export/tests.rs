//! Each sink against a receiver that misbehaves.

#[path = "../../tests/apiserver/port.rs"]
mod port;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Duration,
};

use tokio::time::{Instant, timeout};

use self::port::free_port;
use super::{
    event::example,
    rfc5424::tests::parse,
    settings::{ExportSettings, SyslogTarget},
    sink::{self, Failure},
    spool::Entry,
    syslog::Syslog,
    webhook::{self, Webhook},
    *,
};
use crate::settings::Settings;

/// Longest wait for anything.
const LONG: Duration = Duration::from_secs(30);

fn settings(pairs: &[(&str, &str)]) -> ExportSettings {
    let find = |key: &str| pairs.iter().find(|(name, _)| *name == key);
    Settings::read(|key| find(key).map(|(_, text)| (*text).to_owned()))
        .unwrap()
        .export
}

/// An export with these settings, and `count` events that are stored already.
fn filled(settings: &ExportSettings, count: usize) -> Export {
    let export = Export::new(settings, &Registry::default()).unwrap();
    export.restored();
    for _ in 0..count {
        export.shared.spool.lock().push(example());
    }
    export.stored(u64::MAX);
    export
}

/// What a receiver does with one request after reading it.
#[derive(Clone, Copy)]
enum Manner {
    Answer(u16),
    CloseInTheMiddle,
    Stall,
    Flood,
}

/// An HTTP receiver: behaves as told, one connection after the other, and passes bodies on.
fn receiver(
    manners: impl Iterator<Item = Manner> + Send + 'static,
) -> (SocketAddr, Receiver<Heard>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (heard, hear) = mpsc::channel();
    thread::spawn(move || {
        for (stream, manner) in listener.incoming().zip(manners) {
            let heard = heard.clone();
            thread::spawn(move || serve(stream.unwrap(), manner, &heard));
        }
    });
    (address, hear)
}

struct Heard {
    head: String,
    body: String,
}

fn serve(mut stream: TcpStream, manner: Manner, heard: &Sender<Heard>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or_default() == 0 {
            return;
        }
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    if let Manner::CloseInTheMiddle = manner {
        let mut half = vec![0; length / 2];
        reader.read_exact(&mut half).unwrap();
        return;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body = String::from_utf8(body).unwrap();
    let answer = |status: u16| format!("HTTP/1.1 {status} x\r\nlocation: http://127.0.0.1:1/\r\n");
    match manner {
        Manner::Answer(status) => {
            heard.send(Heard { head, body }).unwrap();
            let answer = answer(status) + "content-length: 2\r\n\r\nok";
            drop(stream.write_all(answer.as_bytes()));
        }
        Manner::Flood => {
            heard.send(Heard { head, body }).unwrap();
            drop(stream.write_all((answer(200) + "\r\n").as_bytes()));
            while stream.write_all(&[b'x'; 4096]).is_ok() {}
        }
        Manner::Stall | Manner::CloseInTheMiddle => {
            // Until the other side gives up.
            drop(stream.read(&mut [0]));
        }
    }
}

fn entries(count: u64) -> Vec<Entry> {
    let entry = |number| {
        let event = Event { id: format!("test-{number}"), ..example() };
        Entry { number, time: 0, json: serde_json::to_string(&event).unwrap().into() }
    };
    (1..=count).map(entry).collect()
}

fn webhook(address: SocketAddr, secret: Option<std::path::PathBuf>) -> Webhook {
    Webhook::new(format!("http://{address}/in?x=1").parse().unwrap(), secret, None)
}

#[tokio::test]
async fn a_batch_is_one_signed_post() {
    let (address, hear) = receiver(std::iter::repeat(Manner::Answer(204)));
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "hunter2\n").unwrap();
    webhook(address, Some(secret))
        .deliver(&entries(3))
        .await
        .unwrap();
    let Heard { head, body } = hear.recv_timeout(LONG).unwrap();
    assert!(head.starts_with("POST /in?x=1 HTTP/1.1\r\n"), "{head}");
    let header = |name: &str| {
        let find = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned());
        head.lines().find_map(find).unwrap()
    };
    assert_eq!(header("outrider-batch"), "test-1-3");
    assert_eq!(header("content-type"), "application/json");
    let time = header("outrider-time");
    assert_eq!(header("outrider-signature"), webhook::signature(b"hunter2", &time, &body));
    let events: Vec<Event> = serde_json::from_str(&body).unwrap();
    assert_eq!(events.len(), 3);
    assert_eq!(events[2].id, "test-3");
}

#[tokio::test]
async fn only_what_was_answered_with_success_is_delivered() {
    let manners = [
        Manner::Answer(500),
        Manner::Answer(307),
        Manner::Answer(400),
        Manner::CloseInTheMiddle,
        Manner::Flood,
        Manner::Stall,
    ];
    let (address, _hear) = receiver(manners.into_iter());
    let webhook = webhook(address, None);
    let batch = entries(2);
    assert!(matches!(webhook.deliver(&batch).await, Err(Failure::Status(500))));
    assert!(matches!(webhook.deliver(&batch).await, Err(Failure::Status(307))), "no redirects");
    assert!(matches!(webhook.deliver(&batch).await, Err(Failure::Refused(400))));
    assert!(matches!(webhook.deliver(&batch).await, Err(Failure::Http(_) | Failure::Io(_))));
    webhook.deliver(&batch).await.unwrap();
    let stalled = timeout(Duration::from_millis(300), webhook.deliver(&batch)).await;
    assert!(stalled.is_err(), "a stalled receiver is left to the caller's patience");
}

#[tokio::test]
async fn a_failing_sink_gets_everything_in_the_end_and_holds_no_other_up() {
    let manners = [Manner::Answer(500), Manner::CloseInTheMiddle, Manner::Answer(503)];
    let (address, hear) = receiver(
        manners
            .into_iter()
            .chain(std::iter::repeat(Manner::Answer(200))),
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events").display().to_string();
    let url = format!("http://{address}/");
    let settings = settings(&[("OUTRIDER_EXPORT_FILE", &file), ("OUTRIDER_EXPORT_WEBHOOK", &url)]);
    let export = filled(&settings, 700);
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    export.start(&settings, &tasks, &stop);
    let mut ids = std::collections::BTreeSet::new();
    let read = tokio::task::spawn_blocking(move || {
        let mut batches = Vec::new();
        while ids.len() < 700 {
            let Heard { head, body } = hear.recv_timeout(LONG).unwrap();
            let events: Vec<Event> = serde_json::from_str(&body).unwrap();
            ids.extend(events.into_iter().map(|event| event.id));
            batches.push(head);
        }
        batches
    });
    let batches = read.await.unwrap();
    assert!(batches.len() >= 4, "two failed, two passed");
    let id = |head: &String| {
        head.lines()
            .find(|line| line.starts_with("outrider-batch"))
            .map(str::to_owned)
    };
    assert_eq!(id(&batches[0]), id(&batches[1]), "a batch that is sent again has the same id");
    let counts = export.shared.counts.clone();
    let all_sent = async {
        while counts.all_sent(Name::Webhook) < 700 || counts.all_sent(Name::File) < 700 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, all_sent).await.unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 700);
    stop.cancel();
    tasks.close();
    timeout(LONG, tasks.wait()).await.unwrap();
}

#[tokio::test]
async fn the_one_event_that_a_receiver_refuses_is_dropped_and_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (heard, _hear) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let mut peeked = [0; 65_536];
            // The whole request is there at once, or the next look sees more of it.
            let poison = loop {
                let Ok(length @ 1..) = stream.peek(&mut peeked) else { break false };
                let text = String::from_utf8_lossy(&peeked[..length]).into_owned();
                if text.ends_with(']') {
                    break text.contains("-3\",");
                }
                thread::yield_now();
            };
            serve(stream, Manner::Answer(if poison { 422 } else { 200 }), &heard);
        }
    });
    let settings = settings(&[("OUTRIDER_EXPORT_WEBHOOK", &url)]);
    let export = filled(&settings, 4);
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    export.start(&settings, &tasks, &stop);
    let counts = export.shared.counts.clone();
    let done = async {
        while counts.all_sent(Name::Webhook) < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, done).await.unwrap();
    assert_eq!(counts.lost_by(Name::Webhook, counts::Lost::Refused), 1);
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}

/// Reads frames as RFC 6587 has them until `count` are there, or the connection ends.
fn frames(stream: impl Read, count: usize) -> Vec<String> {
    let mut reader = BufReader::new(stream);
    let mut frames = Vec::new();
    while frames.len() < count {
        let mut length = Vec::new();
        if reader.read_until(b' ', &mut length).unwrap() == 0 {
            break;
        }
        let length = String::from_utf8(length).unwrap();
        let mut frame = vec![0; length.trim_end().parse().unwrap()];
        if reader.read_exact(&mut frame).is_err() {
            break;
        }
        frames.push(String::from_utf8(frame).unwrap());
    }
    frames
}

fn target(address: SocketAddr) -> SyslogTarget {
    format!("tcp://{address}").parse().unwrap()
}

#[tokio::test]
async fn syslog_over_tcp_is_framed_and_a_receiver_that_goes_away_gets_it_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (first, _) = listener.accept().unwrap();
        drop(frames(first, 1));
        let (second, _) = listener.accept().unwrap();
        let got = frames(&second, 3);
        (got, second)
    });
    let mut syslog = Syslog::new(target(address), None);
    let batch = entries(3);
    let first = syslog.deliver(&batch).await;
    assert!(matches!(first, Err(Failure::Closed | Failure::Io(_))), "{first:?}");
    syslog.deliver(&batch).await.unwrap();
    let (got, _second) = server.join().unwrap();
    let read = parse(&got[1]).unwrap();
    assert_eq!((read.priority, read.text.as_str()), (16 * 8 + 3, "two lengths"));
    assert!(read.params.contains(&("id".into(), "test-2".into())));
    assert_eq!(read.header[4], "threat");
}

/// `openssl s_server`, which prints what it receives.
struct TlsServer {
    running: Running,
    dir: tempfile::TempDir,
    address: SocketAddr,
}

impl TlsServer {
    fn start(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let openssl = |args: &str| {
            let mut command = Command::new("openssl");
            command.args(args.split(' ')).current_dir(dir.path());
            command.stderr(Stdio::null());
            command
        };
        let made = openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key -out cert \
             -days 2 -subj /CN=t -addext subjectAltName={name} -addext basicConstraints=CA:FALSE"
        ))
        .status()
        .unwrap();
        assert!(made.success());
        let serve = format!("s_server -accept {address} -key key -cert cert -quiet");
        let child = openssl(&serve)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let running = Running(child);
        let deadline = Instant::now() + LONG;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "openssl does not listen");
            thread::yield_now();
        }
        Self { running, dir, address }
    }

    fn syslog(&self, ca: bool) -> Syslog {
        let target = SyslogTarget { tls: true, ..target(self.address) };
        let own = self.dir.path().join("cert");
        let foreign = self.dir.path().join("foreign");
        let status = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-nodes", "-subj", "/CN=other", "-keyout", "/dev/null", "-out"])
            .arg(&foreign)
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        Syslog::new(target, Some(if ca { own } else { foreign }))
    }
}

#[tokio::test]
async fn syslog_over_tls_is_delivered_to_who_can_prove_its_name_and_to_nobody_else() {
    let mut server = TlsServer::start("IP:127.0.0.1");
    let refused = server.syslog(false).deliver(&entries(1)).await;
    assert!(matches!(refused, Err(Failure::Io(_))), "an authority we do not know: {refused:?}");
    let mut syslog = server.syslog(true);
    syslog.deliver(&entries(2)).await.unwrap();
    let output = server.running.0.stdout.take().unwrap();
    let got = frames(output, 2);
    assert!(
        parse(&got[1])
            .unwrap()
            .params
            .contains(&("id".into(), "test-2".into()))
    );

    let other = TlsServer::start("DNS:other.example");
    let refused = other.syslog(true).deliver(&entries(1)).await;
    assert!(matches!(refused, Err(Failure::Io(_))), "another name: {refused:?}");
}

#[tokio::test]
async fn rsyslog_reads_what_we_send() {
    let dir = tempfile::tempdir().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (log, config) = (dir.path().join("log"), dir.path().join("config"));
    let text = format!(
        "module(load=\"imptcp\")\ninput(type=\"imptcp\" address=\"127.0.0.1\" port=\"{}\")\n\
         template(name=\"t\" type=\"string\" \
         string=\"%pri%|%hostname%|%app-name%|%msgid%|%structured-data%|%msg%\\n\")\n\
         action(type=\"omfile\" file=\"{}\" template=\"t\")\n",
        address.port(),
        log.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new("rsyslogd");
    command
        .args(["-n", "-iNONE", "-f"])
        .arg(&config)
        .stderr(Stdio::null());
    let Ok(child) = command.spawn() else {
        eprintln!("SKIPPED: there is no rsyslogd here");
        return;
    };
    let _running = Running(child);
    let up = async {
        while TcpStream::connect(address).is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, up).await.unwrap();
    let event = Event { app: "a]\"\\b".into(), message: "two\nlines".into(), ..example() };
    let json = serde_json::to_string(&event).unwrap().into();
    let batch = [Entry { number: 1, time: 0, json }];
    Syslog::new(target(address), None)
        .deliver(&batch)
        .await
        .unwrap();
    let written = async {
        loop {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if let Some(line) = text.lines().find(|line| line.starts_with("131|")) {
                return line.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let line = timeout(LONG, written).await.unwrap();
    assert!(line.starts_with("131|node1|outrider|threat|[outrider@32473 id="), "{line}");
    assert!(line.contains(r#"app="a\]\"\\b""#), "{line}");
    assert!(line.ends_with("two<U+000A>lines"), "{line}");
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_batch_has_no_more_events_than_its_cap() {
    let settings = settings(&[("OUTRIDER_EXPORT_FILE", "-")]);
    let export = filled(&settings, sink::MAX_BATCH + 1);
    let spool = export.shared.spool.lock();
    assert_eq!(
        spool
            .next(Name::File, u64::MAX, sink::MAX_BATCH, 1 << 30)
            .len(),
        sink::MAX_BATCH
    );
}
