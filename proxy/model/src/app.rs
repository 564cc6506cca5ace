//! Application identifiers (NeuVector's numbers, `docs/wire.md`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Application identifier: an open set, so a number newer than this build still round-trips.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct AppId(pub u32);

/// Every number with a public name, in order of number.
const NAMES: [(u32, &str); 39] = [
    (1001, "HTTP"),
    (1002, "SSL"),
    (1003, "SSH"),
    (1004, "DNS"),
    (1005, "DHCP"),
    (1006, "NTP"),
    (1007, "TFTP"),
    (1008, "Echo"),
    (1009, "RTSP"),
    (1010, "SIP"),
    (1900, "QUIC"),
    (2001, "MySQL"),
    (2002, "Redis"),
    (2003, "ZooKeeper"),
    (2004, "Cassandra"),
    (2005, "MongoDB"),
    (2006, "PostgreSQL"),
    (2007, "Kafka"),
    (2008, "Couchbase"),
    (2009, "Wordpress"),
    (2010, "ActiveMQ"),
    (2011, "CouchDB"),
    (2012, "ElasticSearch"),
    (2013, "Memcached"),
    (2014, "RabbitMQ"),
    (2015, "Radius"),
    (2016, "VoltDB"),
    (2017, "Consul"),
    (2018, "Syslog"),
    (2019, "etcd"),
    (2020, "Spark"),
    (2021, "Apache"),
    (2022, "nginx"),
    (2023, "Jetty"),
    (2024, "Node.js"),
    (2025, "EPMD"),
    (2026, "Oracle"),
    (2027, "MSSQL"),
    (2028, "GRPC"),
];

impl AppId {
    /// Nothing recognised; in a rule, any application.
    pub const UNKNOWN: Self = Self(0);
    /// In a rule: any application.
    pub const ANY: Self = Self(0);
    /// Refused before a byte was seen; in connection rows only.
    pub const NOT_CHECKED: Self = Self(1);
    /// In a rule: the application could not be identified.
    pub const UNIDENTIFIED: Self = Self(0xffff_ffff);
    /// HTTP/1 and cleartext HTTP/2.
    pub const HTTP: Self = Self(1001);
    /// SSL and TLS.
    pub const SSL: Self = Self(1002);
    /// SSH.
    pub const SSH: Self = Self(1003);
    /// DNS.
    pub const DNS: Self = Self(1004);
    /// DHCP for IPv4.
    pub const DHCP: Self = Self(1005);
    /// NTP.
    pub const NTP: Self = Self(1006);
    /// TFTP.
    pub const TFTP: Self = Self(1007);
    /// RTSP.
    pub const RTSP: Self = Self(1009);
    /// SIP.
    pub const SIP: Self = Self(1010);
    /// QUIC. The number is ours: NeuVector has none for it.
    pub const QUIC: Self = Self(1900);
    /// MySQL and MariaDB.
    pub const MYSQL: Self = Self(2001);
    /// Redis.
    pub const REDIS: Self = Self(2002);
    /// PostgreSQL.
    pub const POSTGRESQL: Self = Self(2006);
    /// RADIUS.
    pub const RADIUS: Self = Self(2015);
    /// Syslog.
    pub const SYSLOG: Self = Self(2018);
    /// Apache httpd, a server.
    pub const APACHE: Self = Self(2021);
    /// nginx, a server.
    pub const NGINX: Self = Self(2022);
    /// Jetty, a server.
    pub const JETTY: Self = Self(2023);
    /// gRPC.
    pub const GRPC: Self = Self(2028);

    /// The public name, if the number has one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        let found = NAMES.binary_search_by_key(&self.0, |(id, _)| *id).ok()?;
        NAMES.get(found).map(|(_, name)| *name)
    }

    /// Every number that has a public name, in order of number.
    pub fn known() -> impl Iterator<Item = (Self, &'static str)> {
        NAMES.iter().map(|(id, name)| (Self(*id), *name))
    }

    /// Finds an application by its public name, whatever the case; also by number.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("unknown") {
            return Some(Self::UNKNOWN);
        }
        NAMES
            .iter()
            .find(|(_, known)| known.eq_ignore_ascii_case(name))
            .map(|(id, _)| Self(*id))
            .or_else(|| name.parse().ok().map(Self))
    }

    /// Whether the number names a base protocol rather than an application (below 2001).
    #[must_use]
    pub fn is_base(self) -> bool {
        self.0 < 2001
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (*self, self.name()) {
            (_, Some(name)) => f.write_str(name),
            (Self::UNKNOWN | Self::UNIDENTIFIED, _) => f.write_str("unknown"),
            (Self::NOT_CHECKED, _) => f.write_str("not-checked"),
            (Self(id), None) => write!(f, "app/{id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_so_that_search_finds_them() {
        assert!(NAMES.is_sorted_by_key(|(id, _)| *id));
        for (id, name) in NAMES {
            assert_eq!(AppId(id).name(), Some(name));
            assert_eq!(AppId::from_name(&name.to_lowercase()), Some(AppId(id)));
        }
    }

    #[test]
    fn keeps_numbers_without_a_name() {
        assert_eq!(AppId(9999).to_string(), "app/9999");
        assert_eq!(AppId::UNKNOWN.to_string(), "unknown");
    }
}
