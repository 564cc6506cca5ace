use std::net::SocketAddr;

use axum::routing::get;
use outrider_telemetry::Registry;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};

use super::*;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);
const LIMITS: Limits =
    Limits { places: 4, head: Duration::from_secs(3600), leave: Duration::from_millis(100) };

struct Served {
    at: SocketAddr,
    counts: Counts,
    stop: CancellationToken,
    task: JoinHandle<()>,
    /// Ends the answers of `/wait`.
    go: Arc<Notify>,
}

impl Served {
    async fn start(limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let counts = Counts::register(&Registry::default()).unwrap();
        let (stop, go) = (CancellationToken::new(), Arc::new(Notify::new()));
        let wait = Arc::clone(&go);
        let router = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/wait", get(move || async move { wait.notified().await }));
        let serving = serve(listener, router, limits, counts.clone(), stop.clone());
        #[expect(clippy::disallowed_methods, reason = "the test waits for it itself")]
        let task = tokio::spawn(serving);
        Self { at, counts, stop, task, go }
    }

    async fn connect(&self, said: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.at).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        stream
    }

    async fn is_counted(&self, reason: &str, count: u64) {
        let counted = async {
            while self.counts.all_sent_away().get(reason) != Some(&count) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let seen = timeout(PATIENCE, counted).await;
        assert!(seen.is_ok(), "{reason}: {:?}", self.counts.all_sent_away());
    }
}

async fn all(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let read = stream.read_to_end(&mut text);
    drop(timeout(PATIENCE, read).await.expect("never ended"));
    String::from_utf8(text).unwrap()
}

const ASK: &str = "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
const KEEP: &str = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";
const WAIT: &str = "GET /wait HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn a_head_that_never_ends_is_not_waited_for() {
    // Longer than a busy machine takes to read a head that is there.
    let limits = Limits { head: Duration::from_secs(2), ..LIMITS };
    let served = Served::start(limits).await;
    let mut silent = served.connect("").await;
    let mut slow = served.connect("GET / HT").await;
    let mut kept = served.connect(KEEP).await;
    assert_eq!(all(&mut silent).await, "");
    assert!(!all(&mut slow).await.contains("200 OK"));
    let answer = all(&mut kept).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello"), "{answer}");
    served.is_counted("no-request", 3).await;
}

#[tokio::test]
async fn who_asks_nothing_makes_room_and_the_longest_idle_first() {
    let served = Served::start(LIMITS).await;
    let mut held = Vec::new();
    for _ in 0..50 {
        held.push(served.connect("GET / HTTP/1.1\r\nhost").await);
    }
    let answer = all(&mut served.connect(ASK).await).await;
    assert!(answer.ends_with("hello"), "{answer}");
    assert!(answer.contains("content-length: 5\r\n"), "{answer}");
    served.is_counted("made-room", 47).await;
    assert_eq!(all(&mut held[0]).await, "");
    // The last ones are still there.
    held[49]
        .write_all(b": h\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    assert!(all(&mut held[49]).await.ends_with("hello"));
}

#[tokio::test]
async fn who_is_being_answered_keeps_its_place_and_more_are_told_to_come_back() {
    let served = Served::start(LIMITS).await;
    let mut waiting = Vec::new();
    for _ in 0..LIMITS.places {
        waiting.push(served.connect(WAIT).await);
    }
    let refused = async {
        loop {
            // Until all of them are being answered, this takes the place of one that is not yet.
            let answer = all(&mut served.connect(ASK).await).await;
            if answer.starts_with("HTTP/1.1 503") {
                return answer;
            }
            waiting.push(served.connect(WAIT).await);
        }
    };
    let refused = timeout(PATIENCE, refused).await.unwrap();
    let (head, body) = refused.split_once("\r\n\r\n").unwrap();
    assert!(head.ends_with(&format!("content-length: {}", body.len())), "{refused}");
    assert!(served.counts.all_sent_away()["too-many-connections"] > 0);
    let answered = async {
        loop {
            served.go.notify_waiters();
            let answer = all(&mut served.connect(ASK).await).await;
            if answer.ends_with("hello") {
                return;
            }
        }
    };
    timeout(PATIENCE, answered).await.unwrap();
}

#[tokio::test]
async fn a_head_has_a_largest_size_and_so_many_headers() {
    let served = Served::start(LIMITS).await;
    for header in [format!("a: {}\r\n", "b".repeat(MAX_HEAD)), "a: b\r\n".repeat(MAX_HEADERS + 1)] {
        let mut stream = TcpStream::connect(served.at).await.unwrap();
        let asked = format!("GET / HTTP/1.1\r\nconnection: close\r\n{header}\r\n");
        // It may be refused before it was read to its end.
        drop(stream.write_all(asked.as_bytes()).await);
        let answer = all(&mut stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
}

#[tokio::test]
async fn stopping_waits_for_nobody_for_long() {
    let served = Served::start(LIMITS).await;
    let (mut idle, mut waiting) = (served.connect("GET").await, served.connect(WAIT).await);
    assert!(all(&mut served.connect(ASK).await).await.ends_with("hello"));
    served.stop.cancel();
    timeout(PATIENCE, served.task).await.unwrap().unwrap();
    assert_eq!(all(&mut idle).await, "");
    assert_eq!(all(&mut waiting).await, "");
}
