//! Every cap of the protocol, in one place.

/// Longest message either way, in bytes; the agent reads with a buffer of this size.
pub const MAX_MESSAGE: usize = 8192;
/// Longest request in bytes: the data path keeps one byte for a NUL.
pub const MAX_REQUEST: usize = 8191;
/// Requests longer than this, in bytes, are split.
pub const SPLIT_ABOVE: usize = 8120;
/// Deepest nesting of arrays and objects in a request or in a JSON body of ours.
pub const MAX_NESTING: usize = 32;
/// Most commands in one request datagram.
pub const MAX_COMMANDS: usize = 64;

/// Sessions in one datagram.
pub const MAX_SESSIONS: usize = 58;
/// Meters in one datagram.
pub const MAX_METERS: usize = 186;
/// Connection rows in one datagram.
pub const MAX_CONNECTIONS: usize = 85;
/// Listening ports in one datagram.
pub const MAX_APP_PORTS: usize = 818;
/// Addresses of a name in one datagram.
pub const MAX_FQDN_ADDRESSES: usize = 495;
/// Bytes of evidence in a threat log.
pub const MAX_PACKET: usize = 2048;
/// Field of a threat log's text, its NUL included.
pub const THREAT_TEXT: usize = 64;
/// Field of a name, its NUL included.
pub const NAME_TEXT: usize = 256;
/// Longest name in bytes.
pub const MAX_NAME: usize = 255;

/// Rules per datagram at first.
pub const RULES_PER_CHUNK: usize = 40;
/// Sensor entries per datagram at first.
pub const DLP_PER_CHUNK: usize = 40;
/// Subnets per datagram at first; never fits, so that the size decides.
pub const SUBNETS_PER_CHUNK: usize = 600;
/// Names per `ctrl_cfg_del_fqdn`.
pub const NAMES_PER_REQUEST: usize = 20;

/// Rules of one assembled policy, v4 and v6 together.
pub const MAX_RULES: usize = 250_000;
/// Applications of one rule.
pub const MAX_RULE_APPS: usize = 256;
/// Subnets of one assembled list, v4 and v6 together.
pub const MAX_SUBNETS: usize = 65_536;
/// Sensor entries (choices or rules) of one assembled request.
pub const MAX_DLP_ENTRIES: usize = 16_384;
/// Patterns of one sensor rule.
pub const MAX_PATTERNS: usize = 16;
/// Longest pattern in bytes.
pub const MAX_PATTERN: usize = 511;
/// Longest name of a sensor rule in bytes.
pub const MAX_RULE_NAME: usize = 521;
/// Unfinished chunk sequences per key; the oldest makes room.
pub const MAX_PENDING_SEQUENCES: usize = 8;

/// Sample flows in one [`Evidence`](crate::ext::Evidence) datagram.
pub const MAX_EVIDENCE: usize = 48;
/// Entries of each list in a [`Status`](crate::ext::Status).
pub const MAX_STATUS_LIST: usize = 64;
/// Longest text of a [`Status`](crate::ext::Status) or an [`Evidence`](crate::ext::Evidence), in bytes.
pub const MAX_TEXT: usize = 255;
