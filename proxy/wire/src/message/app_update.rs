//! APP_UPDATE (1).

use outrider_model::{AppId, IpProto, MacAddr};

use super::{Body, Kind, entries};
use crate::{Reader, WireError, Writer, error::within, limits::MAX_APP_PORTS};

/// What a workload's listening ports speak: always its complete table, unless it had to be split.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AppUpdate {
    /// The workload.
    pub mac: MacAddr,
    /// Its ports, at most [`MAX_APP_PORTS`].
    pub ports: Vec<AppPort>,
}

/// A listening port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AppPort {
    /// The port.
    pub port: u16,
    /// Its base protocol.
    pub proto: AppId,
    /// The server's software.
    pub server: AppId,
    /// Its application.
    pub application: AppId,
    /// TCP or UDP.
    pub ip_proto: IpProto,
}

impl AppUpdate {
    /// Splits a table of any length. The agent adds up what it gets, so that none is lost.
    pub fn split(mac: MacAddr, ports: &[AppPort]) -> impl Iterator<Item = Self> {
        ports
            .chunks(MAX_APP_PORTS)
            .map(move |ports| Self { mac, ports: ports.to_vec() })
    }
}

impl AppPort {
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let port = Self {
            port: reader.u16()?,
            proto: reader.app()?,
            server: reader.app()?,
            application: reader.app()?,
            ip_proto: IpProto(reader.u8()?),
        };
        reader.skip(1)?;
        Ok(port)
    }

    fn write(&self, writer: &mut Writer) {
        writer.u16(self.port);
        writer.app(self.proto);
        writer.app(self.server);
        writer.app(self.application);
        writer.u8(self.ip_proto.0);
        writer.zeros(1);
    }
}

impl Body for AppUpdate {
    const KIND: Kind = Kind::APP_UPDATE;

    fn read(reader: &mut Reader<'_>, _more: bool) -> Result<Self, WireError> {
        let mac = reader.mac()?;
        let count = usize::from(reader.u16()?);
        within("ports", count, MAX_APP_PORTS)?;
        Ok(Self { mac, ports: entries(count, || AppPort::read(reader))? })
    }

    fn write(&self, writer: &mut Writer) -> Result<(), WireError> {
        writer.bytes(&self.mac.0);
        writer.count("ports", self.ports.len(), MAX_APP_PORTS)?;
        self.ports.iter().for_each(|port| port.write(writer));
        Ok(())
    }
}
