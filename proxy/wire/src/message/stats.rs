//! MAC_STATS (8) and DEVICE_STATS (9).

use super::{Body, Kind};
use crate::{Reader, WireError, Writer};

/// Sum over the workloads that were asked for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct MacStats(pub Stats);

/// Sum over everything.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DeviceStats(pub Stats);

/// Traffic in and out of workloads.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Seconds of a slot: 5. The real data path sends it in host order in [`MacStats`]; the smaller
    /// reading is taken.
    pub interval: u32,
    /// Current ingress sessions.
    pub session_cur_in: u32,
    /// Current egress sessions.
    pub session_cur_out: u32,
    /// Since the start.
    pub total: StatsWindow,
    /// The last complete slot.
    pub last: StatsWindow,
    /// The last 12 slots: a minute.
    pub minute: StatsWindow,
    /// The last 60 slots: five minutes.
    pub five_minutes: StatsWindow,
}

/// Traffic of a span of time.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StatsWindow {
    /// Ingress sessions.
    pub session_in: u32,
    /// Egress sessions.
    pub session_out: u32,
    /// Packets in.
    pub packet_in: u64,
    /// Packets out.
    pub packet_out: u64,
    /// Bytes in.
    pub byte_in: u64,
    /// Bytes out.
    pub byte_out: u64,
}

impl StatsWindow {
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut window = Self::default();
        window.read_sessions(reader)?;
        window.read_volume(reader)?;
        Ok(window)
    }

    fn read_sessions(&mut self, reader: &mut Reader<'_>) -> Result<(), WireError> {
        self.session_in = reader.u32()?;
        self.session_out = reader.u32()?;
        Ok(())
    }

    fn read_volume(&mut self, reader: &mut Reader<'_>) -> Result<(), WireError> {
        self.packet_in = reader.u64()?;
        self.packet_out = reader.u64()?;
        self.byte_in = reader.u64()?;
        self.byte_out = reader.u64()?;
        Ok(())
    }

    fn write_sessions(&self, writer: &mut Writer) {
        writer.u32(self.session_in);
        writer.u32(self.session_out);
    }

    fn write_volume(&self, writer: &mut Writer) {
        for count in [self.packet_in, self.packet_out, self.byte_in, self.byte_out] {
            writer.u64(count);
        }
    }
}

impl Stats {
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let interval = reader.u32()?;
        let mut stats = Self { interval: interval.min(interval.swap_bytes()), ..Self::default() };
        reader.skip(4)?;
        stats.total.read_sessions(reader)?;
        stats.session_cur_in = reader.u32()?;
        stats.session_cur_out = reader.u32()?;
        stats.total.read_volume(reader)?;
        stats.last = StatsWindow::read(reader)?;
        stats.minute = StatsWindow::read(reader)?;
        stats.five_minutes = StatsWindow::read(reader)?;
        Ok(stats)
    }

    fn write(&self, writer: &mut Writer) {
        writer.u32(self.interval);
        writer.zeros(4);
        self.total.write_sessions(writer);
        writer.u32(self.session_cur_in);
        writer.u32(self.session_cur_out);
        self.total.write_volume(writer);
        for window in [self.last, self.minute, self.five_minutes] {
            window.write_sessions(writer);
            window.write_volume(writer);
        }
    }
}

impl Body for MacStats {
    const KIND: Kind = Kind::MAC_STATS;

    fn read(reader: &mut Reader<'_>, _more: bool) -> Result<Self, WireError> {
        Stats::read(reader).map(Self)
    }

    fn write(&self, writer: &mut Writer) -> Result<(), WireError> {
        self.0.write(writer);
        Ok(())
    }
}

impl Body for DeviceStats {
    const KIND: Kind = Kind::DEVICE_STATS;

    fn read(reader: &mut Reader<'_>, _more: bool) -> Result<Self, WireError> {
        Stats::read(reader).map(Self)
    }

    fn write(&self, writer: &mut Writer) -> Result<(), WireError> {
        self.0.write(writer);
        Ok(())
    }
}
