//! Sockets that only the tables under /proc show.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read},
};

/// What a socket that is neither TCP nor UDP sees and sends.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum RawKind {
    /// Packets of IPv4.
    V4,
    /// Packets of IPv6.
    V6,
    /// Frames of an interface, or all.
    Packet,
}

/// A raw or packet socket.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct RawSocket {
    /// Which of the two.
    pub kind: RawKind,
    /// The IP protocol, of a packet socket the `EtherType`: 3 is all of them.
    pub protocol: u16,
    /// Interface that a packet socket is bound to, 0 for none.
    pub interface: u32,
    /// Who made it.
    pub uid: u32,
    /// Its number among the process's descriptors.
    pub inode: u32,
}

/// Raw and packet sockets that one look shows at most; further ones are counted.
pub const MAX_RAW_SOCKETS: usize = 1024;

/// What one look found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RawSockets {
    /// The sockets, [`MAX_RAW_SOCKETS`] at most.
    pub found: Vec<RawSocket>,
    /// How many more there were, or lines that made no sense.
    pub unread: u64,
}

/// The raw and packet sockets of the calling thread's namespace.
///
/// # Errors
/// /proc cannot be read. A table that is not there has no sockets.
pub fn raw_sockets() -> io::Result<RawSockets> {
    let mut sockets = RawSockets::default();
    for (kind, name) in [(RawKind::V4, "raw"), (RawKind::V6, "raw6"), (RawKind::Packet, "packet")] {
        read_table(&mut sockets, kind, &table(name)?);
    }
    Ok(sockets)
}

fn read_table(sockets: &mut RawSockets, kind: RawKind, text: &str) {
    for line in text.lines().skip(1) {
        match row(kind, line) {
            Some(socket) if sockets.found.len() < MAX_RAW_SOCKETS => sockets.found.push(socket),
            _ => sockets.unread = sockets.unread.saturating_add(1),
        }
    }
}

fn row(kind: RawKind, line: &str) -> Option<RawSocket> {
    let fields: Vec<&str> = line.split_whitespace().take(MAX_FIELDS).collect();
    let field = |at: usize| fields.get(at).copied();
    let hex = |text: &str| u16::from_str_radix(text, 16).ok();
    match kind {
        RawKind::V4 | RawKind::V6 => Some(RawSocket {
            kind,
            protocol: hex(field(1)?.rsplit_once(':')?.1)?,
            interface: 0,
            uid: field(7)?.parse().ok()?,
            inode: inode(field(9)?)?,
        }),
        RawKind::Packet => Some(RawSocket {
            kind,
            protocol: hex(field(3)?)?,
            interface: field(4)?.parse().ok()?,
            uid: field(7)?.parse().ok()?,
            inode: inode(field(8)?)?,
        }),
    }
}

/// Numbers of sockets of each kind that the namespace has, by the kernel's name of the kind.
///
/// # Errors
/// /proc cannot be read.
pub fn families() -> io::Result<Vec<(String, u32)>> {
    Ok(read_families(&table("protocols")?))
}

fn read_families(text: &str) -> Vec<(String, u32)> {
    let row = |line: &str| {
        let mut fields = line.split_whitespace();
        let name = fields.next()?;
        let sockets = fields.nth(1)?.parse().ok()?;
        (name.len() <= MAX_NAME).then(|| (name.to_owned(), sockets))
    };
    text.lines()
        .skip(1)
        .filter_map(row)
        .take(MAX_FAMILIES)
        .collect()
}

/// The numbers of this process's own sockets.
///
/// # Errors
/// /proc cannot be read.
pub fn own_inodes() -> io::Result<HashSet<u32>> {
    let mut own = HashSet::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        // Closed meanwhile, or no socket.
        let Ok(link) = fs::read_link(entry?.path()) else { continue };
        own.extend(link.to_str().and_then(socket_number));
    }
    Ok(own)
}

fn socket_number(link: &str) -> Option<u32> {
    inode(link.strip_prefix("socket:[")?.strip_suffix(']')?)
}

/// The kernel's diagnostics have 32 bits of it.
#[expect(clippy::cast_possible_truncation, reason = "the low half is what the other side has")]
fn inode(text: &str) -> Option<u32> {
    text.parse::<u64>().ok().map(|number| number as u32)
}

/// The text of a table, cut at [`MAX_TABLE_BYTES`]; empty if there is none.
fn table(name: &str) -> io::Result<String> {
    let file = match File::open(format!("/proc/thread-self/net/{name}")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        other => other?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_TABLE_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

const MAX_TABLE_BYTES: u64 = 256 * 1024;
const MAX_FIELDS: usize = 16;
const MAX_FAMILIES: usize = 128;
const MAX_NAME: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
   1: 00000000:0001 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 4294967299 2 0000000000000000 0
 255: 0100007F:00FF 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 31337 2 0000000000000000 0
";
    const PACKET: &str = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode
0000000000000000 3      3    0003   2     1 0      1000   777
0000000000000000 3      2    0800   0     1 0      0      778
";

    fn read(kind: RawKind, text: &str) -> RawSockets {
        let mut sockets = RawSockets::default();
        read_table(&mut sockets, kind, text);
        sockets
    }

    #[test]
    fn reads_raw_sockets() {
        let sockets = read(RawKind::V4, RAW);
        let rows: Vec<_> = sockets
            .found
            .iter()
            .map(|row| (row.protocol, row.uid, row.inode))
            .collect();
        assert_eq!((rows, sockets.unread), (vec![(1, 1000, 3), (255, 0, 31337)], 0));
    }

    #[test]
    fn reads_packet_sockets() {
        let sockets = read(RawKind::Packet, PACKET);
        let rows: Vec<_> = sockets
            .found
            .iter()
            .map(|row| (row.protocol, row.interface, row.uid, row.inode))
            .collect();
        assert_eq!((rows, sockets.unread), (vec![(3, 2, 1000, 777), (0x800, 0, 0, 778)], 0));
    }

    #[test]
    fn nonsense_is_counted() {
        for (kind, text) in [(RawKind::V6, RAW), (RawKind::Packet, PACKET)] {
            for cut in 0..text.len() {
                let sockets = read(kind, &text[..cut]);
                assert!(sockets.found.len() <= 2);
            }
            let longer =
                format!("{text}\u{0}\nff ff ff ff ff ff ff ff ff ff\n: : : : : : : : : :\n");
            let sockets = read(kind, &longer);
            assert_eq!((sockets.found.len(), sockets.unread), (2, 3), "{kind:?}");
        }
    }

    #[test]
    fn shows_the_most_and_counts_one_more() {
        let line = PACKET.lines().nth(1).unwrap();
        let text = format!("header\n{}", format!("{line}\n").repeat(MAX_RAW_SOCKETS + 1));
        let sockets = read(RawKind::Packet, &text);
        assert_eq!((sockets.found.len(), sockets.unread), (MAX_RAW_SOCKETS, 1));
    }

    #[test]
    fn reads_how_many_sockets_of_a_kind_there_are() {
        let text = "protocol  size sockets  memory press maxhdr
AF_VSOCK  1240      0      -1   NI       0   yes
XDP       1088      3      -1   NI       0   no
broken
TCP       2304      x     182   no     192   yes
";
        assert_eq!(read_families(text), [("AF_VSOCK".to_owned(), 0), ("XDP".to_owned(), 3)]);
    }

    #[test]
    fn knows_its_own_sockets() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(!own_inodes().unwrap().is_empty());
        drop(socket);
        assert_eq!(socket_number("socket:[4294967299]"), Some(3));
        assert_eq!(socket_number("pipe:[3]"), None);
    }
}
