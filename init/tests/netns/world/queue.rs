//! A reader of the packet queue that allows every flow, in the proxy's place.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use outrider_model::names::{QUEUE, VERDICT_MARK};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Namespace, ROOT};

// Of linux/netlink.h and linux/netfilter/nfnetlink_queue.h.
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const VERDICT: u16 = 1;
const CONFIG: u16 = 2;

/// Reads until it is dropped.
pub(crate) struct Reader {
    over: Arc<AtomicBool>,
    seen: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Takes the queue of the namespace.
    pub(crate) fn start(namespace: &Namespace) -> Self {
        let socket = namespace.run(ROOT, open);
        let (over, seen) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
        let (ended, counted) = (Arc::clone(&over), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                allow_next(&socket, &counted);
            }
            // Closing is not enough: a program that another test is about to start may hold a copy of the socket.
            let leave = message(CONFIG, REQUEST, &attribute(1, &[2, 0, 0, 0]));
            socket.send(&leave).expect("left");
        });
        Self { over, seen, thread: Some(thread) }
    }

    /// Packets that came.
    pub(crate) fn seen(&self) -> u32 {
        self.seen.load(Ordering::Relaxed)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the reader does not panic");
        }
    }
}

fn open() -> Socket {
    let netfilter = Protocol::from(nix::libc::NETLINK_NETFILTER);
    let domain = Domain::from(nix::libc::AF_NETLINK);
    let socket = Socket::new(domain, Type::RAW, Some(netfilter)).expect("socket");
    socket
        .set_read_timeout(Some(Duration::from_millis(20)))
        .expect("timeout");
    // To be the reader; what is known of each packet.
    let body = [attribute(1, &[1, 0, 0, 0]), attribute(2, &[0, 0, 0, 0, 1])].concat();
    socket
        .send(&message(CONFIG, REQUEST | ACKNOWLEDGE, &body))
        .expect("send");
    let mut answer = [0; 256];
    let length = (&socket).read(&mut answer).expect("answer");
    assert_eq!((length >= 20, &answer[16..20]), (true, &[0; 4][..]), "the queue is taken");
    socket
}

/// Reads for a moment; a packet that comes is sent through the table again, with the mark.
fn allow_next(mut socket: &Socket, seen: &AtomicU32) {
    const REPEAT: u32 = 4;
    let mut datagram = [0; 4096];
    let Ok(length) = socket.read(&mut datagram) else { return };
    // The first attribute of a packet's message says its number.
    if length >= 28 && datagram[4..6] == [0, 3] {
        seen.fetch_add(1, Ordering::Relaxed);
        let verdict = [&REPEAT.to_be_bytes(), &datagram[24..28]].concat();
        let body = [attribute(2, &verdict), attribute(3, &VERDICT_MARK.to_be_bytes())].concat();
        socket
            .send(&message(VERDICT, REQUEST, &body))
            .expect("verdict");
    }
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(20 + body.len()).expect("short");
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend((3 << 8 | kind).to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([0, 0]);
    bytes.extend(QUEUE.to_be_bytes());
    bytes.extend(body);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("short");
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
