//! CONNECTION (7).

use std::net::IpAddr;

use outrider_model::{AppId, IpProto, MacAddr, RuleId, ThreatId};

use super::{Body, Kind, entries};
use crate::{
    ActionCode, ConnectionFlags, EtherType, Reader, SeverityCode, WireError, WireIp, Writer,
    error::within, limits::MAX_CONNECTIONS,
};

/// Traffic since the last report.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Connections {
    /// The rows, at most [`MAX_CONNECTIONS`].
    pub rows: Vec<Connection>,
}

/// Traffic of one client, server, port, protocol, application and rule since the last report.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Connection {
    /// The workload.
    pub epmac: MacAddr,
    /// IP protocol.
    pub ip_proto: IpProto,
    /// The server's port; 0 for ICMP.
    pub server_port: u16,
    /// 0, except for large DNS reports over UDP.
    pub client_port: u16,
    /// The client.
    pub client_ip: WireIp,
    /// The server.
    pub server_ip: WireIp,
    /// Family of both addresses.
    pub ether_type: EtherType,
    /// Direction and circumstances.
    pub flags: ConnectionFlags,
    /// Bytes, both directions.
    pub bytes: u32,
    /// Sessions that began.
    pub sessions: u32,
    /// Unix seconds: when the row was opened.
    pub first_seen_at: u32,
    /// Unix seconds.
    pub last_seen_at: u32,
    /// What they speak.
    pub application: AppId,
    /// What policy says.
    pub policy_action: ActionCode,
    /// The worst threat's.
    pub severity: SeverityCode,
    /// The deciding rule.
    pub policy_id: RuleId,
    /// Violating events.
    pub violates: u32,
    /// The worst threat.
    pub threat_id: ThreatId,
    /// The workload's current ingress sessions.
    pub ep_sess_cur_in: u32,
    /// The workload's ingress sessions of the last minute.
    pub ep_sess_in_12: u32,
    /// The workload's ingress bytes of the last minute.
    pub ep_byte_in_12: u64,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            epmac: MacAddr::default(),
            ip_proto: IpProto::TCP,
            server_port: 0,
            client_port: 0,
            client_ip: WireIp::default(),
            server_ip: WireIp::default(),
            ether_type: EtherType::IPV4,
            flags: ConnectionFlags::NONE,
            bytes: 0,
            sessions: 0,
            first_seen_at: 0,
            last_seen_at: 0,
            application: AppId::UNKNOWN,
            policy_action: ActionCode(0),
            severity: SeverityCode(0),
            policy_id: RuleId::IMPLICIT,
            violates: 0,
            threat_id: ThreatId(0),
            ep_sess_cur_in: 0,
            ep_sess_in_12: 0,
            ep_byte_in_12: 0,
        }
    }
}

impl Connection {
    /// The client's address, if the family is known.
    #[must_use]
    pub fn client(&self) -> Option<IpAddr> {
        self.client_ip.ip(self.ether_type)
    }

    /// The server's address, if the family is known.
    #[must_use]
    pub fn server(&self) -> Option<IpAddr> {
        self.server_ip.ip(self.ether_type)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let (epmac, ip_proto) = (reader.mac()?, IpProto(reader.u8()?));
        reader.skip(1)?;
        Ok(Self {
            epmac,
            ip_proto,
            server_port: reader.u16()?,
            client_port: reader.u16()?,
            client_ip: reader.ip()?,
            server_ip: reader.ip()?,
            ether_type: EtherType(reader.u16()?),
            flags: ConnectionFlags(reader.u16()?),
            bytes: reader.u32()?,
            sessions: reader.u32()?,
            first_seen_at: reader.u32()?,
            last_seen_at: reader.u32()?,
            application: reader.app()?,
            policy_action: ActionCode(reader.u8()?),
            severity: SeverityCode(reader.u8()?),
            policy_id: RuleId(reader.u32()?),
            violates: reader.u32()?,
            threat_id: ThreatId(reader.u32()?),
            ep_sess_cur_in: reader.u32()?,
            ep_sess_in_12: reader.u32()?,
            ep_byte_in_12: reader.u64()?,
        })
    }

    fn write(&self, writer: &mut Writer) {
        writer.bytes(&self.epmac.0);
        writer.u8(self.ip_proto.0);
        writer.zeros(1);
        writer.u16(self.server_port);
        writer.u16(self.client_port);
        writer.bytes(&self.client_ip.0);
        writer.bytes(&self.server_ip.0);
        writer.u16(self.ether_type.0);
        writer.u16(self.flags.0);
        writer.u32(self.bytes);
        writer.u32(self.sessions);
        writer.u32(self.first_seen_at);
        writer.u32(self.last_seen_at);
        writer.app(self.application);
        writer.u8(self.policy_action.0);
        writer.u8(self.severity.0);
        writer.u32(self.policy_id.0);
        writer.u32(self.violates);
        writer.u32(self.threat_id.0);
        writer.u32(self.ep_sess_cur_in);
        writer.u32(self.ep_sess_in_12);
        writer.u64(self.ep_byte_in_12);
    }
}

impl Connections {
    /// Splits rows of any number.
    pub fn split(rows: &[Connection]) -> impl Iterator<Item = Self> {
        rows.chunks(MAX_CONNECTIONS)
            .map(|rows| Self { rows: rows.to_vec() })
    }
}

impl Body for Connections {
    const KIND: Kind = Kind::CONNECTION;

    fn read(reader: &mut Reader<'_>, _more: bool) -> Result<Self, WireError> {
        let count = usize::from(reader.u16()?);
        within("connections", count, MAX_CONNECTIONS)?;
        reader.skip(2)?;
        Ok(Self { rows: entries(count, || Connection::read(reader))? })
    }

    fn write(&self, writer: &mut Writer) -> Result<(), WireError> {
        writer.count("connections", self.rows.len(), MAX_CONNECTIONS)?;
        writer.zeros(2);
        self.rows.iter().for_each(|row| row.write(writer));
        Ok(())
    }
}
