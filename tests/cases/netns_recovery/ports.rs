//! A server on many ports, so that each connection is a conversation of its own.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Result;
use outrider_tests::Pod;

/// What every request is answered with.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// Time between two looks at all sockets.
const PACE: Duration = Duration::from_millis(5);

/// Answers each chunk on each connection, until it is dropped.
pub(crate) struct Ports {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ports {
    pub(crate) fn serve(pod: &Pod, ports: Range<u16>) -> Result<Self> {
        let at = |port| pod.at(false, port);
        let listeners = pod.netns.enter(|| {
            let listeners = ports.map(|port| -> Result<_> {
                let listener = TcpListener::bind(at(port))?;
                listener.set_nonblocking(true)?;
                Ok(listener)
            });
            listeners.collect::<Result<Vec<_>>>()
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut streams = Vec::new();
            while !stopped.load(Relaxed) {
                streams.extend(listeners.iter().flat_map(accepted));
                streams.retain_mut(answered);
                thread::sleep(PACE);
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn accepted(listener: &TcpListener) -> Option<TcpStream> {
    let (stream, _) = listener.accept().ok()?;
    stream.set_nonblocking(true).ok()?;
    Some(stream)
}

/// Answers what has come; whether the connection goes on.
fn answered(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 1024];
    match stream.read(&mut buffer) {
        Ok(0) => false,
        Ok(_) => stream.write_all(ANSWER).is_ok(),
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    }
}
