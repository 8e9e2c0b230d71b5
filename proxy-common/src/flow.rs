//! Flows: the connections that the kernel carries, each known by the packets of its client ([`FlowKey`] → [`Flow`]) and by
//! those of its server ([`FlowKey`] → [`Origin`], which leads to the first).
//!
//! A flow's own source port towards its server is taken for as long as the server's entry is there. It is free again when
//! the flow is over ([`Flow::is_over`]): user space removes both entries then, and where it doesn't get to it, the
//! program takes the port of such a flow for a new one. So no port is used again while the server may still remember
//! it.
//!
//! What a segment makes of a connection ([`step`]) is decided by its flags, and by one sequence number: that of the FIN
//! whose acknowledgement says whether the server has forgotten the connection or keeps it in TIME_WAIT.

use crate::{
    counters::Tally,
    forward::Timeouts,
    scope::{TCP, UDP},
};

/// Flows that there can be.
pub const MAX_FLOWS: usize = 262_144;

/// A reply's entry is made before its flow's. Found without one when it is older than this (in nanoseconds), it is left over.
pub const HALF_MADE: u64 = 1_000_000_000;

const SECOND: u64 = 1_000_000_000;

/// A packet's way, as it comes in. IPv4 addresses in their IPv6 form, ports in the host's order.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    pub source: [u8; 16],
    pub destination: [u8; 16],
    pub source_port: u16,
    pub destination_port: u16,
    pub protocol: u16,
    pub reserved: u16,
}

/// Times are nanoseconds of the monotonic clock.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Whom the server sees: us, or the client if its address is kept.
    pub source: [u8; 16],
    pub server: [u8; 16],
    pub source_port: u16,
    pub server_port: u16,
    /// A [`State`].
    pub state: u16,
    /// Flags of [`crate::forward::service`], as they were when it began.
    pub flags: u16,
    /// Slot of its service.
    pub service: u16,
    /// Slot of its server, which may be another's by now: then the incarnation differs.
    pub server_slot: u16,
    pub incarnation: u32,
    /// In seconds, of its service.
    pub idle: u32,
    pub lifetime: u32,
    /// By which the client's packets come in.
    pub client_interface: u32,
    /// By which they go out.
    pub server_interface: u32,
    /// The sequence number behind a FIN whose acknowledgement is waited for.
    pub fin: u32,
    pub reserved: u32,
    /// The snapshot by which it began.
    pub generation: u64,
    pub began: u64,
    /// Of either side.
    pub last_packet: u64,
    /// From the client to the server.
    pub sent: Tally,
    /// From the server to the client.
    pub received: Tally,
}

/// Whose the packets of a server are.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The flow, as its client's packets come in.
    pub flow: FlowKey,
    pub since: u64,
}

const _: () = assert!(size_of::<FlowKey>() == 40); // 16 + 16 + 4 times 2: the kernel hashes padding too
const _: () = assert!(size_of::<Flow>() == 128);
const _: () = assert!(size_of::<Origin>() == 48);

#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The client has asked.
    Opening = 1,
    /// The server has answered that.
    Accepted = 2,
    Open = 3,
    ClientClosed = 4,
    ServerClosed = 5,
    /// Both have, and the server forgets it with the client's last acknowledgement.
    LastAck = 6,
    /// Both have, and the server will remember it.
    Closing = 7,
    /// The server remembers it.
    TimeWait = 8,
    Closed = 9,
    ResetByClient = 10,
    ResetByServer = 11,
    /// We have ended it: its server is dead, or somebody asked for it. The client's next packet is answered by a reset.
    Cut = 12,
    /// UDP, and only the client has sent anything.
    Unanswered = 13,
    /// UDP, and both have.
    Answered = 14,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// What of a TCP segment matters to its connection's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    pub syn: bool,
    pub ack: bool,
    pub fin: bool,
    pub rst: bool,
    /// The sequence number behind all that it carries.
    pub end: u32,
    pub acknowledges: u32,
}

/// The state that follows, and the sequence number to keep with it.
#[inline(always)]
#[must_use]
pub const fn step(state: State, fin: u32, from: Side, segment: Segment) -> (State, u32) {
    use Side::{Client, Server};
    use State::{
        Accepted, Answered, ClientClosed, Closed, Closing, Cut, LastAck, Open, Opening, ResetByClient,
        ResetByServer, ServerClosed, TimeWait, Unanswered,
    };
    if segment.rst {
        return match (state, from) {
            (Cut, _) => (Cut, fin),
            // What is over anyway keeps the end that it had: a server in TIME_WAIT doesn't heed resets.
            (TimeWait | Closed, _) => (state, fin),
            (_, Client) => (ResetByClient, fin),
            (_, Server) => (ResetByServer, fin),
        };
    }
    let acknowledges = segment.ack && is_behind(fin, segment.acknowledges);
    match (state, from) {
        (Opening, Server) if segment.syn && segment.ack => (Accepted, fin),
        (Opening | Accepted | Open, Client) if segment.fin => (ClientClosed, segment.end),
        (Opening | Accepted | Open, Server) if segment.fin => (ServerClosed, segment.end),
        (Accepted, Client) if segment.ack && !segment.syn => (Open, fin),
        // It knows that the client has closed: with the acknowledgement of its own FIN it forgets everything.
        (ClientClosed, Server) if segment.fin && acknowledges => (LastAck, segment.end),
        // Both at the same time: both will remember it. What the server has to acknowledge is the client's FIN.
        (ClientClosed, Server) if segment.fin => (Closing, fin),
        (ServerClosed, Client) if segment.fin => (Closing, segment.end),
        (LastAck, Client) if acknowledges => (Closed, fin),
        (Closing, Server) if acknowledges => (TimeWait, fin),
        // Whoever resets a connection says nothing more on it: somebody else has sent that.
        (ResetByClient, Client) | (ResetByServer, Server) if segment.ack && !segment.syn => (Open, fin),
        (
            Opening | Accepted | Open | ClientClosed | ServerClosed | LastAck | Closing | TimeWait | Closed
            | ResetByClient | ResetByServer | Cut | Unanswered | Answered,
            Client | Server,
        ) => (state, fin),
    }
}

/// Whether `number` is not before `fin`, in numbers that go round.
#[inline(always)]
const fn is_behind(fin: u32, number: u32) -> bool {
    number.wrapping_sub(fin) < 1 << 31
}

// === impl State ===

impl State {
    pub const ALL: [Self; 14] = [
        Self::Opening,
        Self::Accepted,
        Self::Open,
        Self::ClientClosed,
        Self::ServerClosed,
        Self::LastAck,
        Self::Closing,
        Self::TimeWait,
        Self::Closed,
        Self::ResetByClient,
        Self::ResetByServer,
        Self::Cut,
        Self::Unanswered,
        Self::Answered,
    ];

    /// What a flow begins with.
    #[inline(always)]
    #[must_use]
    pub const fn first(protocol: u8) -> Self {
        if protocol == UDP { Self::Unanswered } else { Self::Opening }
    }

    /// `None`: of another version's.
    #[inline(always)]
    #[must_use]
    pub const fn of_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Opening,
            2 => Self::Accepted,
            3 => Self::Open,
            4 => Self::ClientClosed,
            5 => Self::ServerClosed,
            6 => Self::LastAck,
            7 => Self::Closing,
            8 => Self::TimeWait,
            9 => Self::Closed,
            10 => Self::ResetByClient,
            11 => Self::ResetByServer,
            12 => Self::Cut,
            13 => Self::Unanswered,
            14 => Self::Answered,
            _ => return None,
        })
    }

    /// Whether nothing more is to be expected of it, so that its client may open another with the same port.
    #[inline(always)]
    #[must_use]
    pub const fn has_ended(self) -> bool {
        match self {
            Self::LastAck
            | Self::Closing
            | Self::TimeWait
            | Self::Closed
            | Self::ResetByClient
            | Self::ResetByServer
            | Self::Cut => true,
            Self::Opening
            | Self::Accepted
            | Self::Open
            | Self::ClientClosed
            | Self::ServerClosed
            | Self::Unanswered
            | Self::Answered => false,
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Accepted => "accepted",
            Self::Open => "open",
            Self::ClientClosed => "client_closed",
            Self::ServerClosed => "server_closed",
            Self::LastAck => "last_ack",
            Self::Closing => "closing",
            Self::TimeWait => "time_wait",
            Self::Closed => "closed",
            Self::ResetByClient => "reset_by_client",
            Self::ResetByServer => "reset_by_server",
            Self::Cut => "cut",
            Self::Unanswered => "unanswered",
            Self::Answered => "answered",
        }
    }
}

// === impl Flow ===

impl Flow {
    /// How its server's packets come in. `flow`: how its client's do.
    #[inline(always)]
    #[must_use]
    pub const fn replies(&self, flow: &FlowKey) -> FlowKey {
        FlowKey {
            source: self.server,
            destination: self.source,
            source_port: self.server_port,
            destination_port: self.source_port,
            protocol: flow.protocol,
            reserved: 0,
        }
    }

    /// Whether it has been silent for longer than its state allows, or lived for longer than its service does. Its
    /// entries may be removed then, and its port is free.
    #[inline(always)]
    #[must_use]
    pub const fn is_over(&self, timeouts: &Timeouts, now: u64) -> bool {
        let silent = now.saturating_sub(self.last_packet);
        let lived = now.saturating_sub(self.began);
        silent > self.patience(timeouts) || (self.lifetime != 0 && lived > self.lifetime as u64 * SECOND)
    }

    /// For how long it may be silent.
    #[inline(always)]
    #[must_use]
    pub const fn patience(&self, timeouts: &Timeouts) -> u64 {
        let idle = self.idle as u64 * SECOND;
        match State::of_number(self.state) {
            Some(State::Opening | State::Accepted) => timeouts.opening,
            Some(State::Open | State::Answered) | None => idle,
            Some(State::ClientClosed | State::ServerClosed) => timeouts.half_closed,
            Some(State::LastAck | State::Closing) => timeouts.closing,
            Some(State::TimeWait) => timeouts.time_wait,
            Some(State::Closed) => timeouts.closed,
            Some(State::ResetByClient | State::ResetByServer | State::Cut) => timeouts.reset,
            Some(State::Unanswered) => timeouts.unanswered,
        }
    }
}

// === impl FlowKey ===

impl FlowKey {
    #[must_use]
    pub const fn is_tcp(&self) -> bool {
        self.protocol == TCP as u16
    }
}

// SAFETY: `repr(C)`, integers and byte arrays only; the sizes asserted above show that nothing is padding, and every bit
// pattern is valid.
#[cfg(feature = "user")]
unsafe impl aya::Pod for FlowKey {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Flow {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Origin {}

#[cfg(test)]
mod tests;
