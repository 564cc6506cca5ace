//! Pipes for splice(2): the kernel hands bytes from one socket to the other without a copy.
//!
//! A flow has a pipe only while bytes are in it. Idle pipes wait in a pool of the thread.

use std::{
    cell::RefCell,
    io,
    os::fd::{AsFd, OwnedFd},
};

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};

/// What a pipe holds at most: the more at once, the fewer calls.
pub(crate) const CAPACITY: usize = SIZES[0];

/// Sizes to ask for, best first. The kernel counts the pages of pipes against the user, whom all pods of a
/// node share: when they have taken their share it refuses large pipes, and then makes tiny ones only,
/// which are worth less than a copy.
const SIZES: [usize; 3] = [1024 * 1024, 256 * 1024, 64 * 1024];

/// Idle pipes kept a thread.
const POOLED: usize = 4;

/// A pipe, empty unless its user says otherwise.
#[derive(Debug)]
pub(crate) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

thread_local! {
    static POOL: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

impl Pipe {
    /// Takes an idle pipe, or makes one.
    pub(crate) fn take() -> io::Result<Self> {
        POOL.with_borrow_mut(Vec::pop).map_or_else(Self::open, Ok)
    }

    fn open() -> io::Result<Self> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        let holds = |size: usize| {
            let size = i32::try_from(size).unwrap_or(i32::MAX);
            fcntl(&write, FcntlArg::F_SETPIPE_SZ(size)).is_ok_and(|got| got >= size)
        };
        if SIZES.into_iter().any(holds) {
            Ok(Self { read, write })
        } else {
            Err(io::Error::new(io::ErrorKind::QuotaExceeded, "pipes of this user are too small"))
        }
    }

    /// Gives an empty pipe back.
    pub(crate) fn give(self) {
        POOL.with_borrow_mut(|pool| {
            if pool.len() < POOLED {
                pool.push(self);
            }
        });
    }

    /// Moves at most `limit` bytes from a socket into the pipe; 0 is the socket's end.
    pub(crate) fn fill(&self, socket: impl AsFd, limit: usize) -> io::Result<usize> {
        Ok(splice(socket, None, &self.write, None, limit, FLAGS)?)
    }

    /// Moves at most `limit` bytes from the pipe into a socket.
    pub(crate) fn drain(&self, socket: impl AsFd, limit: usize) -> io::Result<usize> {
        Ok(splice(&self.read, None, socket, None, limit, FLAGS)?)
    }
}

const FLAGS: SpliceFFlags = SpliceFFlags::SPLICE_F_MOVE.union(SpliceFFlags::SPLICE_F_NONBLOCK);

/// Idle pipes of this thread.
#[cfg(test)]
pub(crate) fn pooled() -> usize {
    POOL.with_borrow(Vec::len)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    fn sockets() -> (std::net::TcpStream, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let dialled = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (dialled, listener.accept().unwrap().0)
    }

    #[test]
    fn moves_no_more_than_the_limit_and_keeps_the_order() {
        let ((mut client, from), (to, mut server)) = (sockets(), sockets());
        client.write_all(b"0123456789").unwrap();
        let pipe = Pipe::take().unwrap();
        assert_eq!(pipe.fill(&from, 4).unwrap(), 4);
        assert_eq!(pipe.drain(&to, 4).unwrap(), 4);
        assert_eq!(pipe.fill(&from, 100).unwrap(), 6);
        assert_eq!(pipe.drain(&to, 6).unwrap(), 6);
        let mut got = [0; 10];
        server.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"0123456789");
    }

    #[test]
    fn says_end_and_would_block_apart() {
        let (client, from) = sockets();
        from.set_nonblocking(true).unwrap();
        let pipe = Pipe::take().unwrap();
        assert_eq!(pipe.fill(&from, 1).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(client);
        from.set_nonblocking(false).unwrap();
        assert_eq!(pipe.fill(&from, 1).unwrap(), 0);
    }

    #[test]
    fn a_pipe_holds_what_is_worth_it() {
        let pipe = Pipe::take().unwrap();
        let size = fcntl(&pipe.write, FcntlArg::F_GETPIPE_SZ).unwrap();
        assert!(SIZES.contains(&usize::try_from(size).unwrap()), "{size}");
    }

    #[test]
    fn the_pool_is_bounded() {
        let pipes: Vec<_> = (0..POOLED + 5).map(|_| Pipe::take().unwrap()).collect();
        pipes.into_iter().for_each(Pipe::give);
        assert_eq!(pooled(), POOLED);
    }
}
