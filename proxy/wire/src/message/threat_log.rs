//! THREAT_LOG (6).

use std::net::IpAddr;

use outrider_model::{AppId, IpProto, MacAddr, ThreatId};

use super::{Body, Kind};
use crate::{
    EtherType, Reader, SeverityCode, Text, ThreatActionCode, ThreatFlags, WireError, WireIp,
    Writer,
    error::within,
    limits::{MAX_PACKET, THREAT_TEXT},
};

/// A detector fired.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ThreatLog {
    /// Which threat.
    pub threat_id: ThreatId,
    /// Unix seconds.
    pub reported_at: u32,
    /// Events this log stands for.
    pub count: u32,
    /// The configured action; an observed workload does nothing ([`ThreatFlags::TAP`]).
    pub action: ThreatActionCode,
    /// How bad.
    pub severity: SeverityCode,
    /// IP protocol.
    pub ip_proto: IpProto,
    /// Direction, and whether the workload is only observed.
    pub flags: ThreatFlags,
    /// The workload.
    pub epmac: MacAddr,
    /// Family of both addresses.
    pub ether_type: EtherType,
    /// Who sent the packet.
    pub src_ip: WireIp,
    /// Who was to receive it.
    pub dst_ip: WireIp,
    /// TCP and UDP only.
    pub src_port: u16,
    /// TCP and UDP only.
    pub dst_port: u16,
    /// ICMP only.
    pub icmp_code: u8,
    /// ICMP only.
    pub icmp_type: u8,
    /// What the session speaks.
    pub application: AppId,
    /// Real length of the packet, its low 16 bits.
    pub cap_len: u16,
    /// What was found, for people.
    pub message: Text<THREAT_TEXT>,
    /// Evidence, at most [`MAX_PACKET`] bytes.
    pub packet: Vec<u8>,
    /// Hash of the sensor rule's name; host order on the wire, and nobody reads it.
    pub dlp_name_hash: u32,
}

impl Default for ThreatLog {
    fn default() -> Self {
        Self {
            threat_id: ThreatId(0),
            reported_at: 0,
            count: 0,
            action: ThreatActionCode(0),
            severity: SeverityCode(0),
            ip_proto: IpProto::TCP,
            flags: ThreatFlags::NONE,
            epmac: MacAddr::default(),
            ether_type: EtherType::IPV4,
            src_ip: WireIp::default(),
            dst_ip: WireIp::default(),
            src_port: 0,
            dst_port: 0,
            icmp_code: 0,
            icmp_type: 0,
            application: AppId::UNKNOWN,
            cap_len: 0,
            message: Text::default(),
            packet: Vec::new(),
            dlp_name_hash: 0,
        }
    }
}

impl ThreatLog {
    /// The sender's address, if the family is known.
    #[must_use]
    pub fn source(&self) -> Option<IpAddr> {
        self.src_ip.ip(self.ether_type)
    }

    /// The receiver's address, if the family is known.
    #[must_use]
    pub fn destination(&self) -> Option<IpAddr> {
        self.dst_ip.ip(self.ether_type)
    }
}

impl Body for ThreatLog {
    const KIND: Kind = Kind::THREAT_LOG;

    fn read(reader: &mut Reader<'_>, _more: bool) -> Result<Self, WireError> {
        let mut log = Self {
            threat_id: ThreatId(reader.u32()?),
            reported_at: reader.u32()?,
            count: reader.u32()?,
            action: ThreatActionCode(reader.u8()?),
            severity: SeverityCode(reader.u8()?),
            ip_proto: IpProto(reader.u8()?),
            flags: ThreatFlags(reader.u8()?),
            epmac: reader.mac()?,
            ether_type: EtherType(reader.u16()?),
            src_ip: reader.ip()?,
            dst_ip: reader.ip()?,
            src_port: reader.u16()?,
            dst_port: reader.u16()?,
            icmp_code: reader.u8()?,
            icmp_type: reader.u8()?,
            application: reader.app()?,
            ..Self::default()
        };
        let packet_len = usize::from(reader.u16()?);
        within("packet bytes", packet_len, MAX_PACKET)?;
        log.cap_len = reader.u16()?;
        log.message = Text::read(reader)?;
        let packet = reader.bytes(MAX_PACKET)?;
        log.packet = packet
            .get(..packet_len)
            .ok_or(WireError::Truncated)?
            .to_vec();
        log.dlp_name_hash = u32::from_le_bytes(reader.array()?);
        Ok(log)
    }

    fn write(&self, writer: &mut Writer) -> Result<(), WireError> {
        writer.u32(self.threat_id.0);
        writer.u32(self.reported_at);
        writer.u32(self.count);
        writer.bytes(&[self.action.0, self.severity.0, self.ip_proto.0, self.flags.0]);
        writer.bytes(&self.epmac.0);
        writer.u16(self.ether_type.0);
        writer.bytes(&self.src_ip.0);
        writer.bytes(&self.dst_ip.0);
        writer.u16(self.src_port);
        writer.u16(self.dst_port);
        writer.bytes(&[self.icmp_code, self.icmp_type]);
        writer.app(self.application);
        writer.count("packet bytes", self.packet.len(), MAX_PACKET)?;
        writer.u16(self.cap_len);
        self.message.write(writer);
        writer.padded(&self.packet, MAX_PACKET);
        writer.bytes(&self.dlp_name_hash.to_le_bytes());
        Ok(())
    }
}
