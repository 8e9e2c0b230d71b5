use super::*;

const SYN: Segment = Segment { syn: true, ack: false, fin: false, rst: false, end: 101, acknowledges: 0 };
const SYN_ACK: Segment =
    Segment { syn: true, ack: true, fin: false, rst: false, end: 501, acknowledges: 101 };

const fn ack(end: u32, acknowledges: u32) -> Segment {
    Segment { syn: false, ack: true, fin: false, rst: false, end, acknowledges }
}

const fn fin(end: u32, acknowledges: u32) -> Segment {
    Segment { fin: true, ..ack(end, acknowledges) }
}

const fn rst(end: u32) -> Segment {
    Segment { rst: true, ..ack(end, 0) }
}

fn after(segments: &[(Side, Segment)]) -> State {
    segments.iter().fold((State::Opening, 0), |(state, fin), (side, of)| step(state, fin, *side, *of)).0
}

use Side::{Client, Server};

const OPEN: [(Side, Segment); 3] = [(Client, SYN), (Server, SYN_ACK), (Client, ack(101, 501))];

fn after_open(segments: &[(Side, Segment)]) -> State {
    after(&[&OPEN, segments].concat())
}

#[test]
fn a_handshake_opens() {
    assert_eq!(after(&OPEN[..1]), State::Opening);
    assert_eq!(after(&OPEN[..2]), State::Accepted);
    assert_eq!(after(&OPEN), State::Open);
}

#[test]
fn whom_the_server_forgets_and_whom_it_remembers() {
    type Case<'a> = (&'a str, &'a [(Side, Segment)], State);
    let cases: [Case<'_>; 12] = [
        ("half closed by the client", &[(Client, fin(102, 501))], State::ClientClosed),
        ("half closed by the server", &[(Server, fin(502, 101))], State::ServerClosed),
        (
            "a half-closed one carries on",
            &[(Client, fin(102, 501)), (Server, ack(900, 102))],
            State::ClientClosed,
        ),
        ("the client first", &[(Client, fin(102, 501)), (Server, fin(502, 102))], State::LastAck),
        (
            "the client first, acknowledged",
            &[(Client, fin(102, 501)), (Server, fin(502, 102)), (Client, ack(102, 502))],
            State::Closed,
        ),
        (
            "the client first, an old acknowledgement",
            &[(Client, fin(102, 501)), (Server, fin(502, 102)), (Client, ack(102, 501))],
            State::LastAck,
        ),
        ("the server first", &[(Server, fin(502, 101)), (Client, fin(102, 502))], State::Closing),
        (
            "the server first, acknowledged",
            &[(Server, fin(502, 101)), (Client, fin(102, 502)), (Server, ack(502, 102))],
            State::TimeWait,
        ),
        ("both at the same time", &[(Client, fin(102, 501)), (Server, fin(502, 101))], State::Closing),
        (
            "both at the same time, acknowledged",
            &[
                (Client, fin(102, 501)),
                (Server, fin(502, 101)),
                (Client, ack(102, 502)),
                (Server, ack(502, 102)),
            ],
            State::TimeWait,
        ),
        (
            "a FIN again",
            &[(Client, fin(102, 501)), (Client, fin(102, 501)), (Server, ack(501, 102))],
            State::ClientClosed,
        ),
        (
            "TIME_WAIT heeds no reset",
            &[(Server, fin(502, 101)), (Client, fin(102, 502)), (Server, ack(502, 102)), (Client, rst(102))],
            State::TimeWait,
        ),
    ];
    for (name, segments, state) in cases {
        assert_eq!(after_open(segments), state, "{name}");
    }
}

#[test]
fn numbers_go_round() {
    let first = fin(3, 501);
    let state = after_open(&[(Client, ack(u32::MAX - 5, 501)), (Client, first), (Server, fin(0, 2))]);
    assert_eq!(state, State::Closing, "2 is before 3");
    let state = after_open(&[(Client, fin(u32::MAX, 501)), (Server, fin(502, u32::MAX))]);
    assert_eq!(state, State::LastAck);
    assert_eq!(after_open(&[(Client, fin(u32::MAX, 501)), (Server, fin(502, 7))]), State::LastAck);
}

#[test]
fn a_reset_ends_it_unless_whoever_sent_it_goes_on() {
    assert_eq!(after_open(&[(Client, rst(101))]), State::ResetByClient);
    assert_eq!(after_open(&[(Server, rst(501))]), State::ResetByServer);
    assert_eq!(after(&[(Client, SYN), (Server, rst(1))]), State::ResetByServer, "refused");
    // What was under way already doesn't bring it back.
    assert_eq!(after_open(&[(Client, rst(101)), (Server, ack(900, 101))]), State::ResetByClient);
    assert_eq!(after_open(&[(Client, rst(101)), (Client, ack(101, 900))]), State::Open);
    assert_eq!(after_open(&[(Server, rst(101)), (Server, ack(101, 900))]), State::Open);
}

#[test]
fn what_was_cut_stays_cut() {
    for segment in [SYN_ACK, ack(1, 1), fin(1, 1), rst(1)] {
        for side in [Client, Server] {
            assert_eq!(step(State::Cut, 0, side, segment).0, State::Cut);
        }
    }
}

#[test]
fn every_state_has_its_number() {
    for state in State::ALL {
        assert_eq!(State::of_number(state as u16), Some(state));
    }
    assert_eq!(State::of_number(0), None);
    assert_eq!(State::of_number(State::ALL.len() as u16 + 1), None);
}

#[test]
fn a_flow_is_over_when_it_was_silent_for_too_long() {
    let timeouts = Timeouts::DEFAULT;
    let flow = |state: State| Flow { state: state as u16, idle: 100, last_packet: 50, ..Flow::default() };
    for (state, limit) in [
        (State::Opening, timeouts.opening),
        (State::Open, 100 * SECOND),
        (State::ClientClosed, timeouts.half_closed),
        (State::LastAck, timeouts.closing),
        (State::TimeWait, timeouts.time_wait),
        (State::Closed, timeouts.closed),
        (State::ResetByServer, timeouts.reset),
        (State::Unanswered, timeouts.unanswered),
        (State::Answered, 100 * SECOND),
    ] {
        assert!(!flow(state).is_over(&timeouts, 50 + limit), "{state:?}");
        assert!(flow(state).is_over(&timeouts, 51 + limit), "{state:?}");
        // Another CPU's clock may be a little behind.
        assert!(!flow(state).is_over(&timeouts, 0), "{state:?}");
    }
    assert!(timeouts.time_wait > 60 * SECOND, "longer than servers remember");
}

#[test]
fn only_what_has_hardly_begun_or_was_reset_gives_way() {
    for state in State::ALL {
        let flow = Flow { state: state as u16, last_packet: 5, ..Flow::default() };
        let may = matches!(
            state,
            State::Opening | State::Unanswered | State::ResetByClient | State::ResetByServer | State::Cut
        );
        assert_eq!(flow.gives_way(6 + GIVES_WAY), may, "{state:?}");
        assert!(!flow.gives_way(5 + GIVES_WAY), "{state:?}");
    }
}

#[test]
fn a_lifetime_ends_also_what_is_busy() {
    let flow = Flow {
        state: State::Open as u16,
        idle: 100,
        lifetime: 10,
        began: 1,
        last_packet: 11 * SECOND,
        ..Flow::default()
    };
    assert!(!flow.is_over(&Timeouts::DEFAULT, 10 * SECOND + 1));
    assert!(flow.is_over(&Timeouts::DEFAULT, 11 * SECOND));
}

#[test]
fn replies_come_in_the_other_way_round() {
    let flow = Flow { source: [1; 16], server: [2; 16], source_port: 3, server_port: 4, ..Flow::default() };
    let key = FlowKey { protocol: 6, ..FlowKey::default() };
    let replies = flow.replies(&key);
    assert_eq!((replies.source, replies.destination), ([2; 16], [1; 16]));
    assert_eq!((replies.source_port, replies.destination_port, replies.protocol), (4, 3, 6));
}

#[test]
fn a_remembered_flow_is_followed_by_what_its_server_can_tell_from_it() {
    let remembered = Flow {
        state: State::TimeWait as u16,
        fin: u32::MAX - 10,
        time: 1_000,
        last_packet: 5_000_000_000,
        ..Flow::default()
    };
    let now = remembered.last_packet + GIVES_WAY + 1;
    let syn = |end: u32| Segment { syn: true, end, ..Segment::default() };
    let without = Flow { time: 0, ..remembered };
    for (flow, end, time, expected) in [
        (remembered, 0, 1_001, true),
        (remembered, 0, 1_000, false),
        (remembered, 0, 999, false),
        (remembered, 0, 1_000 + (1 << 31), false),
        // The server judges by timestamps where it has one, and it can't be known that it has none.
        (without, 1_000_000, 1_001, false),
        (without, 1_000_000, 0, true),
        (remembered, 1_000_000, 0, true),
        (remembered, 5, 0, false),
        (remembered, u32::MAX - 20, 0, false),
    ] {
        assert_eq!(flow.may_be_followed(&syn(end), time, now), expected, "{end} {time}");
    }
    assert!(!remembered.may_be_followed(&syn(0), 1_001, now - 1), "at once");
    for state in State::ALL.into_iter().filter(|state| *state != State::TimeWait) {
        assert!(!Flow { state: state as u16, ..remembered }.may_be_followed(&syn(0), 1_001, now));
    }
}
