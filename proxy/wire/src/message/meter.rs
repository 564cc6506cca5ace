//! METER_LIST (5).

use std::{iter, net::IpAddr};

use outrider_model::MacAddr;

use super::{Body, Kind, entries};
use crate::{
    EtherType, MeterFlags, MeterId, Reader, WireError, WireIp, Writer, error::within,
    limits::MAX_METERS,
};

/// One datagram of a list of meters; the last one is empty.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MeterList {
    /// Whether more datagrams of this list follow.
    pub more: bool,
    /// The meters, at most [`MAX_METERS`].
    pub meters: Vec<Meter>,
}

/// A count against a limit: 44 bytes, as the data path lays them out. (The real agent reads 43 and
/// gets the limits wrong.)
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Meter {
    /// The workload.
    pub epmac: MacAddr,
    /// Seconds.
    pub idle: u16,
    /// In the running interval.
    pub count: u32,
    /// Rate of the last interval.
    pub last_count: u32,
    /// The peer; zero for meters that are not kept per source.
    pub peer_ip: WireIp,
    /// What it counts.
    pub meter_id: MeterId,
    /// Family of the peer, and whether it only observes.
    pub flags: MeterFlags,
    /// Seconds of an interval.
    pub span: u8,
    /// At which it goes on.
    pub upper_limit: u32,
    /// Below which it goes off.
    pub lower_limit: u32,
}

impl Meter {
    /// The peer's address.
    #[must_use]
    pub fn peer(&self) -> IpAddr {
        let v4 = self.flags.contains(MeterFlags::IPV4);
        let family = if v4 { EtherType::IPV4 } else { EtherType::IPV6 };
        self.peer_ip.ip(family).unwrap_or(self.peer_ip.v4().into())
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut meter = Self {
            epmac: reader.mac()?,
            idle: reader.u16()?,
            count: reader.u32()?,
            last_count: reader.u32()?,
            peer_ip: reader.ip()?,
            meter_id: MeterId(reader.u8()?),
            flags: MeterFlags(reader.u8()?),
            span: reader.u8()?,
            ..Self::default()
        };
        if meter.flags.contains(MeterFlags::IPV4) {
            meter.peer_ip = meter.peer_ip.v4().into(); // the rest is leftovers
        }
        reader.skip(1)?;
        meter.upper_limit = reader.u32()?;
        meter.lower_limit = reader.u32()?;
        Ok(meter)
    }

    fn write(&self, writer: &mut Writer) {
        writer.bytes(&self.epmac.0);
        writer.u16(self.idle);
        writer.u32(self.count);
        writer.u32(self.last_count);
        writer.bytes(&self.peer_ip.0);
        writer.bytes(&[self.meter_id.0, self.flags.0, self.span, 0]);
        writer.u32(self.upper_limit);
        writer.u32(self.lower_limit);
    }
}

impl MeterList {
    /// Splits meters of any number, the closing datagram included.
    pub fn split(meters: &[Meter]) -> impl Iterator<Item = Self> {
        meters
            .chunks(MAX_METERS)
            .map(|meters| Self { more: true, meters: meters.to_vec() })
            .chain(iter::once(Self::default()))
    }
}

impl Body for MeterList {
    const KIND: Kind = Kind::METER_LIST;

    fn read(reader: &mut Reader<'_>, more: bool) -> Result<Self, WireError> {
        let count = usize::from(reader.u16()?);
        within("meters", count, MAX_METERS)?;
        reader.skip(2)?;
        Ok(Self { more, meters: entries(count, || Meter::read(reader))? })
    }

    fn write(&self, writer: &mut Writer) -> Result<(), WireError> {
        writer.count("meters", self.meters.len(), MAX_METERS)?;
        writer.zeros(2);
        self.meters.iter().for_each(|meter| meter.write(writer));
        Ok(())
    }

    fn more(&self) -> bool {
        self.more
    }
}
