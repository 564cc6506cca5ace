//! Reports on their way from the mailboxes to the node.
//!
//! Each mailbox has a line of its own and the lines take turns, so that whoever tells much waits
//! for himself. What all of them hold, waiting or still being put together, is bounded in bytes: a
//! mailbox may hold a part of what is free, so that the more is held, the less anybody gets, and
//! even many that flood leave room for the others (Choudhury and Hahne, "Dynamic queue length
//! thresholds", 1998).

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::receive::Report;
use crate::counts::Dropped;

/// Bytes of datagrams that all mailboxes may hold.
pub const MAX_HELD: usize = 32 << 20;
/// Bytes that a mailbox may hold however much the others do.
pub const MIN_SHARE: usize = 16 << 10;
/// A mailbox may hold this part of what is free: with nobody else there, 6.4 MiB, which is more
/// than a proxy's largest batch.
const SHARE: usize = 4;
/// Bytes that a line may hand over before it is the next one's turn.
const TURN: usize = 64 << 10;

/// The lines of all mailboxes.
#[derive(Clone, Debug, Default)]
pub struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    held: AtomicUsize,
    state: Mutex<State>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct State {
    lines: HashMap<Arc<str>, Line>,
    /// Lines with reports, in order of their turns.
    turns: VecDeque<Arc<str>>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Line {
    reports: VecDeque<Report>,
    /// Bytes that it may still hand over.
    credit: usize,
}

impl Lines {
    /// A mailbox's account of what it holds.
    #[must_use]
    pub fn account(&self) -> Account {
        Account { lines: self.clone(), held: Arc::default() }
    }

    /// Puts a report at the end of its mailbox's line.
    ///
    /// # Errors
    /// [`Dropped::Stopping`] once the lines are closed.
    pub fn put(&self, report: Report) -> Result<(), Dropped> {
        let mut state = self.0.state.lock();
        if state.closed {
            return Err(Dropped::Stopping);
        }
        let line = state.lines.entry(Arc::clone(&report.uid)).or_default();
        let begins = line.reports.is_empty();
        let uid = Arc::clone(&report.uid);
        line.reports.push_back(report);
        if begins {
            state.turns.push_back(uid);
        }
        drop(state);
        self.0.ready.notify_one();
        Ok(())
    }

    /// The next report, once there is one; `None` when the lines are closed and empty. Cancel safe.
    pub async fn take(&self) -> Option<Report> {
        loop {
            let ready = self.0.ready.notified();
            let (next, closed) = {
                let mut state = self.0.state.lock();
                (state.next(), state.closed)
            };
            if next.is_some() || closed {
                return next;
            }
            ready.await;
        }
    }

    /// The next report, if there is one.
    #[must_use]
    pub fn try_take(&self) -> Option<Report> {
        self.0.state.lock().next()
    }

    /// Takes no more reports.
    pub fn close(&self) {
        self.0.state.lock().closed = true;
        self.0.ready.notify_one();
    }
}

impl State {
    fn next(&mut self) -> Option<Report> {
        loop {
            let uid = self.turns.front()?;
            let Some(line) = self.lines.get_mut(uid) else {
                self.turns.pop_front();
                continue;
            };
            let size = line.reports.front().map_or(0, Report::size);
            if size > line.credit {
                line.credit = line.credit.saturating_add(TURN);
                self.turns.rotate_left(1);
                continue;
            }
            line.credit = line.credit.saturating_sub(size);
            let report = line.reports.pop_front();
            if line.reports.is_empty()
                && let Some(uid) = self.turns.pop_front()
            {
                self.lines.remove(&uid);
            }
            if report.is_some() {
                return report;
            }
        }
    }
}

/// What one mailbox holds.
#[derive(Clone, Debug)]
pub struct Account {
    lines: Lines,
    held: Arc<AtomicUsize>,
}

impl Account {
    /// Room for nothing yet.
    #[must_use]
    pub fn room(&self) -> Room {
        Room { account: self.clone(), size: 0 }
    }
}

/// Bytes that something of a mailbox's takes, given back when it is done with.
#[derive(Debug)]
pub struct Room {
    account: Account,
    size: usize,
}

impl Room {
    /// Makes it larger.
    ///
    /// # Errors
    /// [`Dropped::MailboxFull`] when the mailbox has used up its share, [`Dropped::NodeFull`] when
    /// all together have.
    pub fn grow(&mut self, more: usize) -> Result<(), Dropped> {
        let Account { lines, held } = &self.account;
        let all = &lines.0.held;
        let before = all.fetch_add(more, Ordering::Relaxed);
        let own = held.load(Ordering::Relaxed).saturating_add(more);
        let free = MAX_HELD.saturating_sub(before);
        if own > MIN_SHARE && own > free / SHARE {
            all.fetch_sub(more, Ordering::Relaxed);
            return Err(if more > free { Dropped::NodeFull } else { Dropped::MailboxFull });
        }
        held.fetch_add(more, Ordering::Relaxed);
        self.size = self.size.saturating_add(more);
        Ok(())
    }

    /// How large it is.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.account
            .lines
            .0
            .held
            .fetch_sub(self.size, Ordering::Relaxed);
        self.account.held.fetch_sub(self.size, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(account: &Account, uid: &str, size: usize) -> Report {
        let mut room = account.room();
        room.grow(size).unwrap();
        Report { uid: uid.into(), batch: None, notes: Vec::new(), room: Some(room) }
    }

    #[test]
    fn lines_take_turns_by_size() {
        let lines = Lines::default();
        let (noisy, quiet) = (lines.account(), lines.account());
        for _ in 0..8 {
            lines.put(report(&noisy, "noisy", TURN)).unwrap();
        }
        for _ in 0..4 {
            lines.put(report(&quiet, "quiet", TURN / 4)).unwrap();
        }
        let order: Vec<_> = std::iter::from_fn(|| lines.try_take())
            .map(|report| report.uid.to_string())
            .collect();
        let before = order.iter().take_while(|uid| *uid != "quiet").count();
        assert_eq!(before, 1, "{order:?}");
        assert_eq!(order[1..5], ["quiet"; 4]);
        assert_eq!(order.len(), 12);
        assert!(lines.0.state.lock().lines.is_empty());
    }

    #[test]
    fn those_who_flood_leave_room_for_others() {
        let lines = Lines::default();
        let fill = |account: &Account| {
            let mut room = account.room();
            while room.grow(8192).is_ok() {}
            room
        };
        let floods: Vec<_> = (0..10).map(|_| fill(&lines.account())).collect();
        let other = fill(&lines.account());
        assert!(other.size() > 512 << 10, "{}", other.size());
        let many: Vec<_> = (0..1024).map(|_| fill(&lines.account())).collect();
        assert!(many.iter().all(|room| room.size() >= MIN_SHARE));
        let held = lines.0.held.load(Ordering::Relaxed);
        assert!(held <= MAX_HELD + 1024 * MIN_SHARE, "{held}");
        drop((floods, other, many));
        assert_eq!(lines.0.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_mailbox_alone_has_room_for_the_largest_batch() {
        let account = Lines::default().account();
        let mut room = account.room();
        while room.grow(8192).is_ok() {}
        // 16 384 rows, 1024 threats, 1024 sample flows.
        let overhead = 1239 * super::super::receive::OVERHEAD;
        assert!(room.size() > 193 * 8192 + 1024 * 2400 + 22 * 8192 + overhead);
        assert_eq!(room.grow(8192), Err(Dropped::MailboxFull));
    }

    #[tokio::test]
    async fn a_closed_line_is_emptied_and_ends() {
        let lines = Lines::default();
        lines.put(report(&lines.account(), "pod", 1)).unwrap();
        lines.close();
        assert!(lines.take().await.is_some());
        assert!(lines.take().await.is_none());
        let late = report(&lines.account(), "pod", 1);
        assert_eq!(lines.put(late).err(), Some(Dropped::Stopping));
    }
}
