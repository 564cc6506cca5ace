//! The words a plan is written in: matches, targets, rules, chains. Plain data.

use ipnet::IpNet;

/// Address family of a rule that names an address; rules without one hold for both.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, in the order they are rendered and applied.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of a network.
    pub fn of(net: &IpNet) -> Self {
        match net {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }
}

/// An inclusive range of ports; `first == last` is a single port.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct PortRange {
    /// Lowest port of the range.
    pub first: u16,
    /// Highest port of the range.
    pub last: u16,
}

impl From<u16> for PortRange {
    fn from(port: u16) -> Self {
        Self { first: port, last: port }
    }
}

/// Protocol of a rule.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP of IPv6.
    Icmpv6,
    /// Membership of multicast groups, IPv4.
    Igmp,
}

/// What conntrack knows about a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// Belongs to no flow that conntrack understands, for instance a segment outside the window.
    Invalid,
    /// Part of a known flow, or an error about one.
    Known,
    /// An error about a known flow, for instance "packet too big".
    Related,
    /// Left alone by conntrack.
    Untracked,
}

/// One condition; all conditions of a rule must hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Match {
    /// IP protocol.
    Protocol(Protocol),
    /// Type of an ICMPv6 message.
    Icmpv6Type(u8),
    /// Receiving interface.
    InInterface(String),
    /// Sending interface.
    OutInterface(String),
    /// Source network.
    Source(IpNet),
    /// Destination network.
    Destination(IpNet),
    /// Any destination but this network.
    NotDestination(IpNet),
    /// Destination port, at most [`PORT_SLOTS`] slots; needs a protocol.
    DestinationPorts(Vec<PortRange>),
    /// Source port, at most [`PORT_SLOTS`] slots; needs a protocol.
    SourcePorts(Vec<PortRange>),
    /// Socket owner.
    Uid(u32),
    /// Socket owner's group.
    Gid(u32),
    /// Socket owner's group is none of these.
    NotGids(Vec<u32>),
    /// The packet has a socket that a process holds.
    HasSocket,
    /// Firewall mark, all bits.
    Mark(u32),
    /// Any other firewall mark.
    NotMark(u32),
    /// Firewall mark with any of these bits.
    Marked(u32),
    /// Mark of the flow, all bits.
    FlowMark(u32),
    /// Mark of the flow with any of these bits.
    FlowMarked(u32),
    /// Conntrack state.
    State(State),
    /// The flow's destination was rewritten, as REDIRECT does.
    Redirected,
    /// The packet answers the flow's opener.
    Reply,
    /// The frame is an IP packet of this family by its header and by what its sender says of it; at devices only.
    Frame(Family),
}

/// What happens to a packet that meets a rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// Leaves our chain: the packet is left alone.
    Return,
    /// Ends this table's walk.
    Accept,
    /// Vanishes.
    Drop,
    /// Answered with a TCP reset.
    Reset,
    /// Destination becomes this host's port.
    Redirect(u16),
    /// Handed to the transparent listener on `port`, marked for the policy route.
    Tproxy {
        /// Port of the transparent listener.
        port: u16,
        /// Mark that selects the policy route.
        mark: u32,
    },
    /// Sets the packet's mark.
    SetMark(u32),
    /// Clears bits of the packet's mark.
    ClearMark(u32),
    /// Copies the packet's mark to its flow.
    SaveMark,
    /// Sets bits of the flow's mark, and leaves its others.
    AddFlowMark(u32),
    /// Copies the flow's mark to the packet.
    RestoreMark,
    /// Puts the packet in a conntrack zone of its own.
    Zone(u16),
    /// Waits in the packet queue of that number for a verdict.
    Queue {
        /// Number of the queue.
        number: u16,
        /// Passes if nobody reads the queue; dropped otherwise.
        open: bool,
    },
    /// Continues in one of our chains and comes back after it.
    Jump(&'static str),
}

/// Conditions, a target, and why the rule is there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    /// Conditions, all of which must hold.
    pub when: Vec<Match>,
    /// What happens then.
    pub then: Target,
    /// The reason, printed by `plan`.
    pub why: &'static str,
}

impl Rule {
    /// A rule.
    pub fn new(why: &'static str, when: Vec<Match>, then: Target) -> Self {
        Self { when, then, why }
    }

    /// The family that the rule is for; `None` holds for both.
    pub fn family(&self) -> Option<Family> {
        self.when.iter().find_map(|condition| match condition {
            Match::Source(net) | Match::Destination(net) | Match::NotDestination(net) => {
                Some(Family::of(net))
            }
            Match::Icmpv6Type(_) | Match::Protocol(Protocol::Icmpv6) => Some(Family::V6),
            Match::Protocol(Protocol::Igmp) => Some(Family::V4),
            Match::Frame(family) => Some(*family),
            _ => None,
        })
    }

    /// Whether no packet that this rule meets goes on to `later`, which asks for the same and perhaps more.
    pub fn hides(&self, later: &Self) -> bool {
        let ends = !matches!(
            self.then,
            // Where nobody listens, some kernels' TPROXY lets the packet go on.
            Target::Tproxy { .. }
                | Target::SetMark(_)
                | Target::ClearMark(_)
                | Target::SaveMark
                | Target::AddFlowMark(_)
                | Target::RestoreMark
                | Target::Jump(_)
        );
        ends && self
            .when
            .iter()
            .all(|condition| later.when.contains(condition))
    }

    /// Whether the rule is part of the rules of `family`.
    pub fn is_for(&self, family: Family) -> bool {
        self.family().is_none_or(|own| own == family)
    }
}

/// Kernel table of a chain. The order is the order of application in REDIRECT mode.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Table {
    /// Conntrack zones, before conntrack.
    Raw,
    /// Address translation: what captures.
    Nat,
    /// Marks, TPROXY, and the guard on the way out.
    Mangle,
    /// The guard on the way in.
    Filter,
}

/// Where the kernel enters our rules.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hook {
    /// Before routing, received packets.
    Prerouting,
    /// After routing, packets for this host.
    Input,
    /// Packets this host sends.
    Output,
    /// Last step before a packet leaves.
    Postrouting,
}

/// One of our chains, entered from at most one hook.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chain {
    /// Table the chain lives in.
    pub table: Table,
    /// Name, starting with [`PREFIX`].
    pub name: &'static str,
    /// Hook that enters the chain first of all; `None` for a chain that is only jumped to.
    pub hook: Option<Hook>,
    /// Rules in order.
    pub rules: Vec<Rule>,
}

/// Every chain of ours starts with this; whatever starts with it is ours to replace and remove.
pub const PREFIX: &str = "OUTRIDER_";

/// Ports that fit in one rule (the kernel's multiport match); a range takes two.
pub const PORT_SLOTS: usize = 15;
