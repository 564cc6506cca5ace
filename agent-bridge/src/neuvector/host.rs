//! What a controller wants to know of the machine.

use std::{fs, net::IpAddr, path::Path};

use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};

/// CPUs that are online, and bytes of memory; 0 for what the system does not say.
pub(super) fn size(proc: &Path) -> (i64, i64) {
    let read = |name| fs::read_to_string(proc.join(name)).unwrap_or_default();
    let is_cpu = |line: &&str| {
        line.strip_prefix("cpu")
            .is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit()))
    };
    let cpus = read("stat").lines().filter(is_cpu).count();
    let memory = read("meminfo")
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<i64>().ok())
        .unwrap_or_default();
    (i64::try_from(cpus).unwrap_or_default(), memory.saturating_mul(1024))
}

/// Those of the nodes' addresses that are this node's: we see its interfaces only if we share its
/// network.
pub(super) fn own(hosts: &[IpAddr]) -> Vec<IpAddr> {
    let of = |address: SockaddrStorage| {
        let v4 = address
            .as_sockaddr_in()
            .map(|found| IpAddr::from(found.ip()));
        v4.or_else(|| {
            address
                .as_sockaddr_in6()
                .map(|found| IpAddr::from(found.ip()))
        })
    };
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    interfaces
        .filter_map(|found| of(found.address?))
        .filter(|found| hosts.iter().any(|host| host.to_canonical() == *found))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_size_and_no_machine_has_none() {
        let (cpus, memory) = size(Path::new("/proc"));
        assert!(cpus >= 1 && memory > 1 << 20, "{cpus} {memory}");
        assert_eq!(size(Path::new("/nowhere")), (0, 0));
    }

    #[test]
    fn of_the_nodes_addresses_only_ours_are_ours() {
        let hosts = ["127.0.0.1", "192.0.2.1"].map(|text| text.parse().unwrap());
        assert_eq!(own(&hosts), [hosts[0]]);
    }
}
