//! Which process holds a socket, where /proc shows it.

use std::{fs, path::Path};

/// Processes that are looked at, and descriptors of each.
const MAX_PROCESSES: usize = 512;
const MAX_DESCRIPTORS: usize = 1024;
/// Characters of a name.
const MAX_NAME: usize = 32;

/// Number and name of the process that holds the socket. `None`: it ended, it is another user's, or
/// the pod's processes are not ours to see, as is usual.
pub(crate) fn holder(inode: u32) -> Option<String> {
    if inode == 0 {
        return None;
    }
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let found = numbers
        .take(MAX_PROCESSES)
        .find(|number| holds(Path::new("/proc"), *number, &wanted))?;
    let name = fs::read_to_string(format!("/proc/{found}/comm")).ok()?;
    let printable = name.chars().filter(|c| c.is_ascii_graphic());
    Some(format!("{found}/{}", printable.take(MAX_NAME).collect::<String>()))
}

fn holds(root: &Path, number: u32, wanted: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(root.join(number.to_string()).join("fd")) else {
        return false;
    };
    descriptors
        .flatten()
        .take(MAX_DESCRIPTORS)
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|link| link.to_str() == Some(wanted)))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn names_the_process_that_holds_a_socket() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        let link = link.to_str().unwrap().to_owned();
        assert!(holds(Path::new("/proc"), std::process::id(), &link));
        assert!(!holds(Path::new("/proc"), std::process::id(), "socket:[0]"));
        assert_eq!(holder(0), None);
    }
}
