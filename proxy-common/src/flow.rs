//! Flows: the connections that the kernel carries, each known by the packets of its client ([`FlowKey`] → [`Flow`]) and by
//! those of its server ([`FlowKey`] → [`Origin`], which leads to the first).
//!
//! A flow's own source port towards its server is taken for as long as the server's entry is there. It is free again when
//! the flow is over ([`Flow::is_over`]): user space removes both entries then, and where it doesn't get to it, the
//! program takes the port of such a flow for a new one. So no port is used again while the server may still remember
//! it.
//!
//! What a segment makes of a connection ([`step`]) is in `flow/state.rs`.

mod state;

use crate::{counters::Tally, forward::Timeouts, scope::TCP};

pub use state::{Segment, Side, State, step};

/// Flows that there can be.
pub const MAX_FLOWS: usize = 262_144;

/// A reply's entry is made before its flow's. Found without one when it is older than this (in nanoseconds), it is left over.
pub const HALF_MADE: u64 = 1_000_000_000;

/// For how long (in nanoseconds) a flow that may give way, or be followed by another one, is left alone.
pub const GIVES_WAY: u64 = 1_000_000_000;

const SECOND: u64 = 1_000_000_000;

/// More bytes than fit into a SYN.
const MOST_WITH_A_SYN: u32 = 1 << 16;

/// Of numbers that go round.
#[inline(always)]
const fn is_later(number: u32, than: u32) -> bool {
    number.wrapping_sub(than).cast_signed() > 0
}

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
    /// The client's last timestamp, once it has closed after the server. 0: none.
    pub time: u32,
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

    /// Whether its port may be taken when there is hardly another: it isn't over, but has hardly begun, or was reset. In a flood
    /// of SYNs those are nearly all.
    #[inline(always)]
    #[must_use]
    pub const fn gives_way(&self, now: u64) -> bool {
        let may = matches!(
            State::of_number(self.state),
            Some(
                State::Opening | State::Unanswered | State::ResetByClient | State::ResetByServer | State::Cut
            )
        );
        may && now.saturating_sub(self.last_packet) > GIVES_WAY
    }

    /// Whether the server, which remembers this flow, takes a SYN from the same port for that of a new one: it does if the
    /// timestamp (0: none), or else the sequence number, is later than all that it has seen of this one (RFC 9293, 3.6.1; RFC 6191).
    #[inline(always)]
    #[must_use]
    pub const fn may_be_followed(&self, syn: &Segment, time: u32, now: u64) -> bool {
        let rests = now.saturating_sub(self.last_packet) > GIVES_WAY;
        if self.state != State::TimeWait as u16 || !rests {
            return false;
        }
        if time != 0 {
            return self.time != 0 && is_later(time, self.time);
        }
        // `end` lies behind what the SYN may carry already.
        is_later(syn.end, self.fin.wrapping_add(MOST_WITH_A_SYN))
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
