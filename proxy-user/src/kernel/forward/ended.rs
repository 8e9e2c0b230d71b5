//! A flow that is over, as its line in the access log tells of it: who ended it and how follows from the state that it was left in.

use std::{net::SocketAddr, time::Duration};

use proxy_common::{
    flow::{Flow, FlowKey, State},
    scope,
};

use super::written::address;
use crate::{
    access_log::connections::{By, End},
    kernel::Protocol,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub protocol: Protocol,
    pub client: SocketAddr,
    /// Where it came in.
    pub entrypoint: SocketAddr,
    /// The service that the route names.
    pub service: Option<String>,
    pub server: SocketAddr,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// How long ago it began.
    pub age: Duration,
    /// Of its last packet where it was closed or reset, else of when nobody waited any longer.
    pub lasted: Duration,
    pub end: End,
    pub by: By,
}

/// `None`: it never really began, as most of what a flood of forged packets leaves.
pub fn of(key: &FlowKey, flow: &Flow, service: Option<&str>, now: u64) -> Option<Ended> {
    let since = |from: u64| Duration::from_nanos(now.saturating_sub(from));
    let lived = since(flow.began);
    let too_old = flow.lifetime != 0 && lived > Duration::from_secs(flow.lifetime.into());
    let silence = if too_old { End::Lifetime } else { End::Idle };
    let (end, by) = match State::of_number(flow.state)? {
        State::Opening | State::Accepted => return None,
        State::Unanswered if flow.sent.packets < 2 => return None,
        State::Open | State::ClientClosed | State::ServerClosed | State::Unanswered | State::Answered => {
            (silence, By::Weir)
        }
        State::LastAck | State::Closed => (End::Closed, By::Client),
        State::Closing | State::TimeWait => (End::Closed, By::Server),
        State::ResetByClient => (End::Reset, By::Client),
        State::ResetByServer => (End::Reset, By::Server),
        State::Cut => (End::Reset, By::Weir),
    };
    let by_itself = matches!(end, End::Closed | End::Reset);
    Some(Ended {
        protocol: if key.protocol == u16::from(scope::UDP) { Protocol::Udp } else { Protocol::Tcp },
        client: address(key.source, key.source_port),
        entrypoint: address(key.destination, key.destination_port),
        service: service.map(str::to_owned),
        server: address(flow.server, flow.server_port),
        bytes_sent: flow.sent.bytes,
        bytes_received: flow.received.bytes,
        age: lived,
        lasted: if by_itself { lived.saturating_sub(since(flow.last_packet)) } else { lived },
        end,
        by,
    })
}

#[cfg(test)]
mod tests {
    use proxy_common::counters::Tally;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn flow(state: State) -> Flow {
        Flow {
            state: state as u16,
            began: 100 * SECOND,
            last_packet: 103 * SECOND,
            sent: Tally { packets: 5, bytes: 700 },
            received: Tally { packets: 6, bytes: 9000 },
            ..Flow::default()
        }
    }

    fn ended(flow: &Flow) -> Option<Ended> {
        of(&FlowKey::default(), flow, Some("mail"), 110 * SECOND)
    }

    #[test]
    fn each_state_tells_how_it_ended_and_who_ended_it() {
        for (state, expected) in [
            (State::Opening, None),
            (State::Accepted, None),
            (State::Open, Some((End::Idle, By::Weir, 10))),
            (State::ClientClosed, Some((End::Idle, By::Weir, 10))),
            (State::ServerClosed, Some((End::Idle, By::Weir, 10))),
            (State::LastAck, Some((End::Closed, By::Client, 3))),
            (State::Closed, Some((End::Closed, By::Client, 3))),
            (State::Closing, Some((End::Closed, By::Server, 3))),
            (State::TimeWait, Some((End::Closed, By::Server, 3))),
            (State::ResetByClient, Some((End::Reset, By::Client, 3))),
            (State::ResetByServer, Some((End::Reset, By::Server, 3))),
            (State::Cut, Some((End::Reset, By::Weir, 3))),
            (State::Unanswered, Some((End::Idle, By::Weir, 10))),
            (State::Answered, Some((End::Idle, By::Weir, 10))),
        ] {
            let told = ended(&flow(state)).map(|one| (one.end, one.by, one.lasted.as_secs()));
            assert_eq!(told, expected, "{state:?}");
        }
    }

    #[test]
    fn one_that_was_too_old_is_told_from_one_that_was_silent() {
        let old = Flow { lifetime: 9, ..flow(State::Open) };
        assert_eq!(ended(&old).map(|one| one.end), Some(End::Lifetime));
        let young = Flow { lifetime: 11, ..flow(State::Open) };
        assert_eq!(ended(&young).map(|one| one.end), Some(End::Idle));
    }

    #[test]
    fn a_single_datagram_that_nobody_answered_is_not_told_of() {
        let single = Flow { sent: Tally { packets: 1, bytes: 60 }, ..flow(State::Unanswered) };
        assert_eq!(ended(&single), None);
    }
}
