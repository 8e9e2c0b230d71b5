//! What a flow is going through.
//!
//! What a segment makes of a connection is decided by its flags, and by one sequence number: that of the FIN whose
//! acknowledgement says whether the server has forgotten the connection or keeps it in TIME_WAIT.

use crate::{numbered::numbered, scope::UDP};

numbered! {
    pub enum State: u16 {
        /// The client has asked.
        Opening = 1, "opening";
        /// The server has answered that.
        Accepted = 2, "accepted";
        Open = 3, "open";
        ClientClosed = 4, "client_closed";
        ServerClosed = 5, "server_closed";
        /// Both have, and the server forgets it with the client's last acknowledgement.
        LastAck = 6, "last_ack";
        /// Both have, and the server will remember it.
        Closing = 7, "closing";
        /// The server remembers it.
        TimeWait = 8, "time_wait";
        Closed = 9, "closed";
        ResetByClient = 10, "reset_by_client";
        ResetByServer = 11, "reset_by_server";
        /// We have ended it: its server is dead, or somebody asked for it. The client's next packet is answered by a reset.
        Cut = 12, "cut";
        /// UDP, and only the client has sent anything.
        Unanswered = 13, "unanswered";
        /// UDP, and both have.
        Answered = 14, "answered";
    }
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
    /// What a flow begins with.
    #[inline(always)]
    #[must_use]
    pub const fn first(protocol: u8) -> Self {
        if protocol == UDP { Self::Unanswered } else { Self::Opening }
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
}
