//! SESSION_LIST (2).

use std::{iter, net::IpAddr};

use outrider_model::{AppId, IpProto, MacAddr, RuleId, ThreatId};

use super::{Body, Kind, entries};
use crate::{
    ActionCode, ByteOrder, EtherType, Reader, SessionFlags, SessionState, SeverityCode, WireError,
    WireIp, Writer, error::within, limits::MAX_SESSIONS,
};

/// Bytes of one session.
const SESSION_SIZE: usize = 140;

/// One datagram of a list of sessions; the last one is empty.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SessionList {
    /// Whether more datagrams of this list follow.
    pub more: bool,
    /// The sessions, at most [`MAX_SESSIONS`].
    pub sessions: Vec<Session>,
}

/// A flow, in the agent's words.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Session {
    /// Number of the session since the data path started.
    pub id: u32,
    /// The workload.
    pub epmac: MacAddr,
    /// Family of client and server.
    pub ether_type: EtherType,
    /// The client's MAC address.
    pub client_mac: MacAddr,
    /// The server's MAC address.
    pub server_mac: MacAddr,
    /// The client.
    pub client_ip: WireIp,
    /// The server.
    pub server_ip: WireIp,
    /// The client's port, TCP and UDP only.
    pub client_port: u16,
    /// The server's port, TCP and UDP only.
    pub server_port: u16,
    /// ICMP only.
    pub icmp_code: u8,
    /// ICMP only.
    pub icmp_type: u8,
    /// IP protocol.
    pub ip_proto: IpProto,
    /// What the client sent.
    pub client: SessionSide,
    /// What the server sent.
    pub server: SessionSide,
    /// Seconds since the last packet.
    pub idle: u16,
    /// Seconds since creation.
    pub age: u32,
    /// Seconds until its timer ends it.
    pub life: u16,
    /// Application if known, else base protocol, else 0.
    pub application: AppId,
    /// The worst threat so far.
    pub threat_id: ThreatId,
    /// The deciding rule.
    pub policy_id: RuleId,
    /// What policy says.
    pub policy_action: ActionCode,
    /// The worst threat's.
    pub severity: SeverityCode,
    /// Direction and circumstances.
    pub flags: SessionFlags,
    /// X-Forwarded-For, all zero if none.
    pub xff_ip: WireIp,
    /// X-Forwarded-Proto, else the application; 0xffff if unknown.
    pub xff_app: AppId,
    /// X-Forwarded-Port, else the server's port.
    pub xff_port: u16,
}

/// What one side of a session sent, and its state.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SessionSide {
    /// Packets.
    pub packets: u32,
    /// Bytes; wraps.
    pub bytes: u32,
    /// Packets held for reassembly.
    pub held_packets: u32,
    /// Bytes held for reassembly.
    pub held_bytes: u32,
    /// Its state.
    pub state: SessionState,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            id: 0,
            epmac: MacAddr::default(),
            ether_type: EtherType::IPV4,
            client_mac: MacAddr::default(),
            server_mac: MacAddr::default(),
            client_ip: WireIp::default(),
            server_ip: WireIp::default(),
            client_port: 0,
            server_port: 0,
            icmp_code: 0,
            icmp_type: 0,
            ip_proto: IpProto::TCP,
            client: SessionSide::default(),
            server: SessionSide::default(),
            idle: 0,
            age: 0,
            life: 0,
            application: AppId::UNKNOWN,
            threat_id: ThreatId(0),
            policy_id: RuleId::IMPLICIT,
            policy_action: ActionCode(0),
            severity: SeverityCode(0),
            flags: SessionFlags::NONE,
            xff_ip: WireIp::default(),
            xff_app: AppId::UNKNOWN,
            xff_port: 0,
        }
    }
}

impl Session {
    /// The client's address, if the family is known.
    #[must_use]
    pub fn client_addr(&self) -> Option<IpAddr> {
        self.client_ip.ip(self.ether_type)
    }

    /// The server's address, if the family is known.
    #[must_use]
    pub fn server_addr(&self) -> Option<IpAddr> {
        self.server_ip.ip(self.ether_type)
    }

    /// Reads one entry. The real data path does not convert IPv6 sessions to network order: its
    /// EtherType then reads 0xdd86, and the whole entry is taken in host order.
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let entry: [u8; SESSION_SIZE] = reader.array()?;
        let host_order = entry.get(10..12) == Some(&EtherType::IPV6.0.to_le_bytes());
        let order = if host_order { ByteOrder::Little } else { ByteOrder::Big };
        Self::read_fields(&mut Reader::with_order(&entry, order))
    }

    fn read_fields(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut session = Self {
            id: reader.u32()?,
            epmac: reader.mac()?,
            ether_type: EtherType(reader.u16()?),
            client_mac: reader.mac()?,
            server_mac: reader.mac()?,
            client_ip: reader.ip()?,
            server_ip: reader.ip()?,
            client_port: reader.u16()?,
            server_port: reader.u16()?,
            icmp_code: reader.u8()?,
            icmp_type: reader.u8()?,
            ip_proto: IpProto(reader.u8()?),
            ..Self::default()
        };
        reader.skip(1)?;
        session.read_sides(reader)?;
        session.idle = reader.u16()?;
        session.age = reader.u32()?;
        session.life = reader.u16()?;
        session.application = reader.app()?;
        session.threat_id = ThreatId(reader.u32()?);
        session.policy_id = RuleId(reader.u32()?);
        session.policy_action = ActionCode(reader.u8()?);
        session.severity = SeverityCode(reader.u8()?);
        session.flags = SessionFlags(reader.u16()?);
        session.xff_ip = reader.ip()?;
        session.xff_app = reader.app()?;
        session.xff_port = reader.u16()?;
        Ok(session)
    }

    fn read_sides(&mut self, reader: &mut Reader<'_>) -> Result<(), WireError> {
        let (client, server) = (&mut self.client, &mut self.server);
        (client.packets, server.packets) = (reader.u32()?, reader.u32()?);
        (client.bytes, server.bytes) = (reader.u32()?, reader.u32()?);
        (client.held_packets, server.held_packets) = (reader.u32()?, reader.u32()?);
        (client.held_bytes, server.held_bytes) = (reader.u32()?, reader.u32()?);
        (client.state, server.state) = (SessionState(reader.u8()?), SessionState(reader.u8()?));
        Ok(())
    }

    fn write(&self, writer: &mut Writer) {
        writer.u32(self.id);
        writer.bytes(&self.epmac.0);
        writer.u16(self.ether_type.0);
        writer.bytes(&self.client_mac.0);
        writer.bytes(&self.server_mac.0);
        writer.bytes(&self.client_ip.0);
        writer.bytes(&self.server_ip.0);
        writer.u16(self.client_port);
        writer.u16(self.server_port);
        writer.bytes(&[self.icmp_code, self.icmp_type, self.ip_proto.0, 0]);
        for count in [
            self.client.packets,
            self.server.packets,
            self.client.bytes,
            self.server.bytes,
            self.client.held_packets,
            self.server.held_packets,
            self.client.held_bytes,
            self.server.held_bytes,
        ] {
            writer.u32(count);
        }
        writer.bytes(&[self.client.state.0, self.server.state.0]);
        writer.u16(self.idle);
        writer.u32(self.age);
        writer.u16(self.life);
        writer.app(self.application);
        writer.u32(self.threat_id.0);
        writer.u32(self.policy_id.0);
        writer.bytes(&[self.policy_action.0, self.severity.0]);
        writer.u16(self.flags.0);
        writer.bytes(&self.xff_ip.0);
        writer.app(self.xff_app);
        writer.u16(self.xff_port);
    }
}

impl SessionList {
    /// Splits sessions of any number, the closing datagram included.
    pub fn split(sessions: &[Session]) -> impl Iterator<Item = Self> {
        sessions
            .chunks(MAX_SESSIONS)
            .map(|sessions| Self { more: true, sessions: sessions.to_vec() })
            .chain(iter::once(Self::default()))
    }
}

impl Body for SessionList {
    const KIND: Kind = Kind::SESSION_LIST;

    fn read(reader: &mut Reader<'_>, more: bool) -> Result<Self, WireError> {
        let count = usize::from(reader.u16()?);
        within("sessions", count, MAX_SESSIONS)?;
        reader.skip(2)?;
        Ok(Self { more, sessions: entries(count, || Session::read(reader))? })
    }

    fn write(&self, writer: &mut Writer) -> Result<(), WireError> {
        writer.count("sessions", self.sessions.len(), MAX_SESSIONS)?;
        writer.zeros(2);
        self.sessions
            .iter()
            .for_each(|session| session.write(writer));
        Ok(())
    }

    fn more(&self) -> bool {
        self.more
    }
}
