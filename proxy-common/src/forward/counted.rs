//! What was done for services and servers, and what wasn't and why: one field for each reason, so that `bpftool map dump`
//! names them.

use core::ops::AddAssign;

use crate::{
    counters::Tally,
    numbered::{counted_by, numbered},
};

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

numbered! {
    /// Why a packet for a service, or of a flow, wasn't forwarded. The numbers go on where those of [`crate::verdict`] may grow
    /// to, and are never reused.
    pub enum StopReason: u32 {
        /// No server takes new flows. It goes to the stack, which refuses it at once.
        NoServer = 101, "no_server";
        /// A TCP segment that opens no flow and belongs to none. It goes to the stack, which answers with a reset.
        NoFlow = 102, "no_flow";
        /// All of our own source ports that were tried are in use. Dropped.
        NoPort = 103, "no_port";
        /// There is no room for more flows. Dropped.
        TableFull = 104, "table_full";
        /// It is a fragment. Dropped.
        Fragment = 105, "fragment";
        /// A header in it has a length that no header has, or it ends before its headers do. Dropped.
        Malformed = 106, "malformed";
        /// It has come too far to be sent on. Dropped.
        Hops = 107, "hops";
        /// No way leads to where it should go. Dropped.
        NoRoute = 108, "no_route";
        /// It is too long for the next interface. Answered by an ICMP error that says how long it may be.
        TooBig = 109, "too_big";
        /// It comes from a server's address by an interface that doesn't lead to that. Dropped.
        WrongInterface = 110, "wrong_interface";
        /// Its server is dead. Answered by a reset.
        Reset = 111, "reset";
    }
}

// === impl StopReason ===

impl StopReason {
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

counted_by!(StopReason, ServiceCounters: stopped, stopped_mut {
    NoServer => no_server,
    NoFlow => no_flow,
    NoPort => no_port,
    TableFull => table_full,
    Fragment => fragment,
    Malformed => malformed,
    Hops => hops,
    NoRoute => no_route,
    TooBig => too_big,
    WrongInterface => wrong_interface,
    Reset => reset,
});

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
