//! What was done for services and servers, and what wasn't and why: one field for each reason, so that `bpftool map dump`
//! names them.

use core::ops::AddAssign;

use crate::counters::Tally;

/// One CPU's share of what was done for a service.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceCounters {
    /// Flows.
    pub opened: u64,
    /// From clients to servers.
    pub sent: Tally,
    /// From servers to clients.
    pub received: Tally,
    pub no_server: Tally,
    pub no_flow: Tally,
    pub no_port: Tally,
    pub table_full: Tally,
    pub fragment: Tally,
    pub malformed: Tally,
    pub hops: Tally,
    pub no_route: Tally,
    pub too_big: Tally,
    pub wrong_interface: Tally,
    pub reset: Tally,
}

/// One CPU's share of what was done for a server.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerCounters {
    /// Flows.
    pub opened: u64,
    pub sent: Tally,
    pub received: Tally,
    /// Packets of clients that were answered by a reset, because the server is dead.
    pub reset: u64,
}

const _: () = assert!(size_of::<ServiceCounters>() == 8 + (2 + StopReason::ALL.len()) * size_of::<Tally>());
const _: () = assert!(size_of::<ServerCounters>() == 8 + 2 * size_of::<Tally>() + 8);

/// Why a packet for a service, or of a flow, wasn't forwarded. The numbers go on where those of [`crate::verdict`] may grow
/// to, and are never reused.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// No server takes new flows. It goes to the stack, which refuses it at once.
    NoServer = 101,
    /// A TCP segment that opens no flow and belongs to none. It goes to the stack, which answers with a reset.
    NoFlow = 102,
    /// All of our own source ports that were tried are in use. Dropped.
    NoPort = 103,
    /// There is no room for more flows. Dropped.
    TableFull = 104,
    /// It is a fragment. Dropped.
    Fragment = 105,
    /// A header in it has a length that no header has, or it ends before its headers do. Dropped.
    Malformed = 106,
    /// It has come too far to be sent on. Dropped.
    Hops = 107,
    /// No way leads to where it should go. Dropped.
    NoRoute = 108,
    /// It is too long for the next interface. Answered by an ICMP error that says how long it may be.
    TooBig = 109,
    /// It comes from a server's address by an interface that doesn't lead to that. Dropped.
    WrongInterface = 110,
    /// Its server is dead. Answered by a reset.
    Reset = 111,
}

// === impl StopReason ===

impl StopReason {
    pub const ALL: [Self; 11] = [
        Self::NoServer,
        Self::NoFlow,
        Self::NoPort,
        Self::TableFull,
        Self::Fragment,
        Self::Malformed,
        Self::Hops,
        Self::NoRoute,
        Self::TooBig,
        Self::WrongInterface,
        Self::Reset,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoServer => "no_server",
            Self::NoFlow => "no_flow",
            Self::NoPort => "no_port",
            Self::TableFull => "table_full",
            Self::Fragment => "fragment",
            Self::Malformed => "malformed",
            Self::Hops => "hops",
            Self::NoRoute => "no_route",
            Self::TooBig => "too_big",
            Self::WrongInterface => "wrong_interface",
            Self::Reset => "reset",
        }
    }

    /// What became of the packet, and why.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::NoServer => "refused: no server takes new flows",
            Self::NoFlow => "refused: it opens no flow and belongs to none",
            Self::NoPort => "dropped: all ports of `nat_ports` are in use towards its server",
            Self::TableFull => "dropped: there is no room for more flows",
            Self::Fragment => "dropped: it is a fragment",
            Self::Malformed => "dropped: a header in it has a length that no header has, or ends early",
            Self::Hops => "dropped: it has come too far to be sent on",
            Self::NoRoute => "dropped: no route leads to where it should go",
            Self::TooBig => "answered: it is too long for the next interface",
            Self::WrongInterface => "dropped: it claims to be a server's, and comes by another way",
            Self::Reset => "answered by a reset: its server is dead",
        }
    }
}

// === impl ServiceCounters ===

impl ServiceCounters {
    #[inline(always)]
    #[must_use]
    pub const fn stopped(&self, reason: StopReason) -> &Tally {
        match reason {
            StopReason::NoServer => &self.no_server,
            StopReason::NoFlow => &self.no_flow,
            StopReason::NoPort => &self.no_port,
            StopReason::TableFull => &self.table_full,
            StopReason::Fragment => &self.fragment,
            StopReason::Malformed => &self.malformed,
            StopReason::Hops => &self.hops,
            StopReason::NoRoute => &self.no_route,
            StopReason::TooBig => &self.too_big,
            StopReason::WrongInterface => &self.wrong_interface,
            StopReason::Reset => &self.reset,
        }
    }

    #[inline(always)]
    pub const fn stopped_mut(&mut self, reason: StopReason) -> &mut Tally {
        match reason {
            StopReason::NoServer => &mut self.no_server,
            StopReason::NoFlow => &mut self.no_flow,
            StopReason::NoPort => &mut self.no_port,
            StopReason::TableFull => &mut self.table_full,
            StopReason::Fragment => &mut self.fragment,
            StopReason::Malformed => &mut self.malformed,
            StopReason::Hops => &mut self.hops,
            StopReason::NoRoute => &mut self.no_route,
            StopReason::TooBig => &mut self.too_big,
            StopReason::WrongInterface => &mut self.wrong_interface,
            StopReason::Reset => &mut self.reset,
        }
    }
}

/// Sums the shares of several CPUs.
impl AddAssign for ServiceCounters {
    fn add_assign(&mut self, other: Self) {
        self.opened = self.opened.wrapping_add(other.opened);
        self.sent += other.sent;
        self.received += other.received;
        for reason in StopReason::ALL {
            *self.stopped_mut(reason) += *other.stopped(reason);
        }
    }
}

// === impl ServerCounters ===

impl AddAssign for ServerCounters {
    fn add_assign(&mut self, other: Self) {
        self.opened = self.opened.wrapping_add(other.opened);
        self.sent += other.sent;
        self.received += other.received;
        self.reset = self.reset.wrapping_add(other.reset);
    }
}

// SAFETY: `repr(C)`, of integers only; the sizes asserted above show that nothing is padding, and every bit pattern is
// valid.
#[cfg(feature = "user")]
unsafe impl aya::Pod for ServiceCounters {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for ServerCounters {}
