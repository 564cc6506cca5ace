//! MySQL and MariaDB: greeting, login and its answer, then queries.
//!
//! A login that asks for TLS ends the reading, as does a compressed session once it is accepted.
//! After a login in clear text the client's queries are counted by the heads of their packets.

mod greeting;

#[cfg(test)]
mod tests;

use outrider_model::{AppId, Side, ThreatId};

use crate::{
    Need,
    bytes::{Reader, Small, pass},
    inspector::{Inspector, Sink},
};
pub(crate) use greeting::guess;

/// Longest user name that is kept; the server's own limit is 32 characters (MySQL) or 128 (MariaDB).
const MAX_USER: usize = 48;

/// Bytes of a login before the user name.
const LOGIN_HEAD: usize = 32;

/// How much of a login is read.
const LOGIN: usize = LOGIN_HEAD + MAX_USER + 1;

/// Bytes before each packet: length and sequence number.
const PACKET_HEAD: usize = 4;

const PROTOCOL_41: u32 = 0x0000_0200;
const TLS: u32 = 0x0000_0800;
const COMPRESSED: u32 = 0x0000_0020 | 0x0400_0000;

/// Access denied: for a user to a database, and for a user at all.
const DENIED: [u16; 2] = [1044, 1045];

const OK: u8 = 0;
const ERROR: u8 = 0xff;

const COM_QUERY: u8 = 3;
const COM_STMT_EXECUTE: u8 = 0x17;

/// Starts reading a flow that was recognised as MySQL.
pub(crate) fn start() -> Box<dyn Inspector> {
    Box::new(Mysql {
        phase: Phase::Greeting,
        client: Wing::default(),
        server: Wing::default(),
        user: Box::default(),
        compressed: false,
    })
}

#[derive(Debug)]
struct Mysql {
    phase: Phase,
    client: Wing,
    server: Wing,
    user: Box<str>,
    compressed: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// The server's greeting is next.
    Greeting,
    /// The client's login is next.
    Login,
    /// Both sides prove who they are; the server's verdict is awaited.
    Proof,
    /// The client sends commands.
    Commands,
    /// Nothing is read any more.
    Stopped,
}

/// One side's packets.
#[derive(Debug, Default)]
struct Wing {
    /// The head of a packet, then of its body as much as is read.
    head: Small<{ PACKET_HEAD + LOGIN }>,
    /// Bytes that are passed over.
    left: u64,
}

impl Wing {
    /// The head and the first `wanted` bytes of a packet's body, or all of it, once they are here.
    /// What remains of it is passed over.
    fn packet(&mut self, chunk: &mut &[u8], wanted: usize) -> Option<Packet<'_>> {
        self.left = pass(chunk, self.left);
        let mut reader = Reader::new(self.head.fill(chunk, PACKET_HEAD)?);
        let length = usize::try_from(reader.le24()?).ok()?;
        let sequence = reader.u8()?;
        let here = wanted.min(length).min(LOGIN);
        let packet = self.head.fill(chunk, PACKET_HEAD.saturating_add(here))?;
        self.left = length.saturating_sub(here) as u64;
        Some(Packet { length, sequence, body: packet.get(PACKET_HEAD..)? })
    }

    fn need(&self) -> Need {
        if self.left > 0 { Need::Skip(self.left) } else { Need::Bytes }
    }
}

/// The beginning of a packet.
struct Packet<'a> {
    length: usize,
    sequence: u8,
    body: &'a [u8],
}

impl Inspector for Mysql {
    fn feed(&mut self, side: Side, mut chunk: &[u8], sink: &mut Sink<'_>) {
        sink.application(AppId::MYSQL);
        while !chunk.is_empty() && self.need(side) != Need::Nothing {
            match side {
                Side::Client => self.client_packet(&mut chunk, sink),
                Side::Server => self.server_packet(&mut chunk, sink),
            }
        }
    }

    fn skip(&mut self, side: Side, bytes: u64) {
        let wing = match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        };
        wing.left = wing.left.saturating_sub(bytes);
    }

    fn need(&self, side: Side) -> Need {
        match (self.phase, side) {
            (Phase::Stopped, _) | (Phase::Commands, Side::Server) => Need::Nothing,
            (_, Side::Client) => self.client.need(),
            (_, Side::Server) => self.server.need(),
        }
    }

    fn held(&self) -> usize {
        let heads = [&self.client, &self.server].map(|wing| wing.head.bytes().len());
        heads
            .into_iter()
            .sum::<usize>()
            .saturating_add(self.user.len())
    }
}

impl Mysql {
    fn client_packet(&mut self, chunk: &mut &[u8], sink: &mut Sink<'_>) {
        let wanted = match self.phase {
            Phase::Login => LOGIN,
            Phase::Proof => 0,
            _ => 1,
        };
        let Some(packet) = self.client.packet(chunk, wanted) else { return };
        match self.phase {
            Phase::Login => match login(&packet) {
                Some(login) => {
                    self.user = login.user;
                    self.compressed = login.compressed;
                    self.phase = Phase::Proof;
                }
                None => self.phase = Phase::Stopped,
            },
            Phase::Commands => {
                let query = matches!(packet.body.first(), Some(&(COM_QUERY | COM_STMT_EXECUTE)));
                if query && packet.sequence == 0 {
                    sink.request();
                }
            }
            Phase::Greeting => self.phase = Phase::Stopped,
            Phase::Proof | Phase::Stopped => {}
        }
        self.client.head.clear();
    }

    fn server_packet(&mut self, chunk: &mut &[u8], sink: &mut Sink<'_>) {
        let Some(packet) = self.server.packet(chunk, 3) else { return };
        let phase = match (self.phase, packet.body) {
            (Phase::Greeting, [ERROR, ..]) => Phase::Stopped,
            (Phase::Greeting, _) => Phase::Login,
            (Phase::Proof, [OK, ..]) if !self.compressed => Phase::Commands,
            (Phase::Proof, [ERROR, low, high]) => {
                let code = u16::from_le_bytes([*low, *high]);
                if DENIED.contains(&code) {
                    let message = format!("login of {:?} refused, error {code}", self.user);
                    sink.threat(ThreatId::MYSQL_DENIED, Side::Server, message);
                }
                Phase::Stopped
            }
            (Phase::Proof, [OK, ..] | []) => Phase::Stopped,
            (phase, _) => phase,
        };
        self.phase = phase;
        self.server.head.clear();
    }
}

/// What a login says.
struct Login {
    user: Box<str>,
    compressed: bool,
}

/// Reads a login; `None` if it asks for TLS or is none.
fn login(packet: &Packet<'_>) -> Option<Login> {
    let mut reader = Reader::new(packet.body);
    let old = u32::from(reader.le16()?);
    if old & PROTOCOL_41 == 0 {
        reader.take(3)?;
        return Some(Login { user: user(reader), compressed: old & COMPRESSED != 0 });
    }
    let flags = old | u32::from(reader.le16()?).rotate_left(16);
    if flags & TLS != 0 && packet.length == LOGIN_HEAD {
        return None;
    }
    reader.take(LOGIN_HEAD.saturating_sub(4))?;
    Some(Login { user: user(reader), compressed: flags & COMPRESSED != 0 })
}

/// The user name as far as it is kept.
fn user(mut reader: Reader<'_>) -> Box<str> {
    let rest = reader.rest();
    let name = reader.until_nul().unwrap_or(rest);
    let name = name.get(..MAX_USER).unwrap_or(name);
    String::from_utf8_lossy(name).into()
}
