//! What a task needs while it runs and never while it waits: one set a thread.

use std::cell::RefCell;

use outrider_dpi::Event;

/// Bytes read at once.
pub(crate) const CHUNK: usize = 64 * 1024;

/// A buffer for one read and a list for what is learned from it.
pub(crate) struct Scratch {
    pub(crate) bytes: Box<[u8]>,
    pub(crate) events: Vec<Event>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        RefCell::new(Scratch { bytes: vec![0; CHUNK].into(), events: Vec::new() });
}

/// Lends the thread's scratch; not to be nested.
pub(crate) fn with<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    SCRATCH.with_borrow_mut(work)
}
