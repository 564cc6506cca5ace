//! The few things that need no tool: an address on `lo`, a policy route, the flush of conntrack.

pub mod link;
mod message;

use std::fs;
use std::io;

use nix::libc;

use crate::InitError;
use crate::plan::{DELIVERY_V6, Family, Plan};
use message::{Message, Socket};

/// Puts addresses and routes in place that captured traffic will need.
///
/// # Errors
/// If the kernel refuses.
pub fn prepare(plan: &Plan, notes: &mut Vec<String>) -> Result<(), InitError> {
    let socket = Socket::route().map_err(failed("open a route socket"))?;
    match socket.ask(&Message::add_address(DELIVERY_V6)) {
        Ok(()) => {}
        Err(error) if is(&error, libc::EEXIST) => {}
        Err(error) if ipv6_is_off() => {
            notes
                .push(format!("IPv6 is off on lo ({error}): no IPv6 delivery, rules are in place"));
        }
        Err(error) => return Err(failed("add ::6 to lo")(error)),
    }
    let Some(route) = plan.route else { return Ok(()) };
    for family in Family::ALL {
        for message in [Message::add_route(family, route), Message::add_rule(family, route)] {
            tolerate(socket.ask(&message), &[libc::EEXIST], "add the policy route")?;
        }
    }
    Ok(())
}

/// Leaves a note in the kernel that a change of rules has begun. False if it was there: an earlier run was
/// killed before its change was over.
///
/// # Errors
/// If the kernel refuses.
pub fn begin_change(plan: &Plan) -> Result<bool, InitError> {
    let socket = Socket::route().map_err(failed("open a route socket"))?;
    match socket.ask(&Message::add_note(plan.route_names.table)) {
        Ok(()) => Ok(true),
        Err(error) if is(&error, libc::EEXIST) => Ok(false),
        Err(error) => Err(failed("note the begin of a change")(error)),
    }
}

/// Removes the note: the change is over.
///
/// # Errors
/// If the kernel refuses.
pub fn end_change(plan: &Plan) -> Result<(), InitError> {
    let socket = Socket::route().map_err(failed("open a route socket"))?;
    let gone = [libc::ENOENT, libc::ESRCH];
    let asked = socket.ask(&Message::remove_note(plan.route_names.table));
    tolerate(asked, &gone, "note the end of a change")
}

/// Removes the policy route of an older plan that this one does not need.
///
/// # Errors
/// If the kernel refuses.
pub fn retire(plan: &Plan) -> Result<(), InitError> {
    if plan.route.is_some() {
        return Ok(());
    }
    let socket = Socket::route().map_err(failed("open a route socket"))?;
    remove_routes(&socket, plan)
}

/// Removes address and routes.
///
/// # Errors
/// If the kernel refuses.
pub fn remove(plan: &Plan) -> Result<(), InitError> {
    let socket = Socket::route().map_err(failed("open a route socket"))?;
    let gone = [libc::EADDRNOTAVAIL, libc::EAFNOSUPPORT, libc::EOPNOTSUPP];
    tolerate(socket.ask(&Message::remove_address(DELIVERY_V6)), &gone, "remove ::6 from lo")?;
    remove_routes(&socket, plan)
}

fn remove_routes(socket: &Socket, plan: &Plan) -> Result<(), InitError> {
    let gone = [libc::ENOENT, libc::ESRCH, libc::EAFNOSUPPORT, libc::EOPNOTSUPP];
    for family in Family::ALL {
        let route = plan.route_names;
        for message in [Message::remove_rule(family, route), Message::remove_route(family, route)] {
            tolerate(socket.ask(&message), &gone, "remove the policy route")?;
        }
    }
    Ok(())
}

/// Makes conntrack of this namespace forget everything: a flow older than the rules is judged anew.
///
/// # Errors
/// If the kernel refuses; a kernel that cannot is a note.
pub fn flush_conntrack(notes: &mut Vec<String>) -> Result<(), InitError> {
    let flushed = Socket::netfilter().and_then(|socket| socket.ask(&Message::flush_conntrack()));
    match flushed {
        Ok(()) => Ok(()),
        Err(error) if is(&error, libc::EPERM) => Err(failed("flush conntrack")(error)),
        Err(error) => {
            notes.push(format!(
                "conntrack was not flushed ({error}): older flows may go on uncaptured"
            ));
            Ok(())
        }
    }
}

/// The place of a packet queue's reader, who never gives a verdict: what is queued meanwhile is dropped at the end.
pub struct QueueReader {
    _socket: Socket,
}

impl QueueReader {
    /// Takes the place if it is free.
    ///
    /// # Errors
    /// Somebody reads the queue, or the kernel refuses.
    pub fn take(number: u16) -> io::Result<Self> {
        let socket = Socket::netfilter()?;
        socket.ask(&Message::bind_queue(number))?;
        Ok(Self { _socket: socket })
    }
}

/// How many packets a queue has taken since its reader came, modulo 2^32; `None` without a reader, or if the
/// kernel does not let us see.
pub fn queued(number: u16) -> Option<u32> {
    let table = fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue").ok()?;
    table.lines().find_map(|line| {
        // Number, reader, waiting, copy mode, copy range, dropped twice, last number given.
        let mut columns = line.split_whitespace();
        let is_it = columns.next()?.parse() == Ok(number);
        columns.nth(6)?.parse().ok().filter(|_| is_it)
    })
}

/// nf_tables' number of the family that is both.
pub const INET: u8 = 1;
/// nf_tables' number of IPv4.
pub const IPV4: u8 = 2;
/// nf_tables' number of devices.
pub const NETDEV: u8 = 5;
/// nf_tables' number of IPv6.
pub const IPV6: u8 = 10;

/// Whether an nf_tables table exists; false where the kernel has no nf_tables.
///
/// # Errors
/// If the kernel does not permit the question.
pub fn table_exists(family: u8, name: &str) -> Result<bool, InitError> {
    let asked = Socket::netfilter().and_then(|socket| socket.exists(&Message::table(family, name)));
    match asked {
        Ok(exists) => Ok(exists),
        Err(error) if is(&error, libc::EPERM) => Err(failed("ask for rules")(error)),
        Err(_) => Ok(false),
    }
}

fn ipv6_is_off() -> bool {
    match fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6") {
        Ok(text) => text.trim() == "1",
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn is(error: &io::Error, number: i32) -> bool {
    error.raw_os_error() == Some(number)
}

fn tolerate(asked: io::Result<()>, fine: &[i32], what: &'static str) -> Result<(), InitError> {
    match asked {
        Err(error) if !fine.iter().any(|number| is(&error, *number)) => Err(failed(what)(error)),
        _ => Ok(()),
    }
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> InitError {
    move |source| {
        if is(&source, libc::EPERM) {
            InitError::Privilege(format!("cannot {what}: {source}"))
        } else {
            InitError::Kernel { what, source }
        }
    }
}
