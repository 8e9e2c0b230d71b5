//! What the program keeps of flows, and when a port is free again.

use std::collections::BTreeSet;

use proxy_common::flow::Flow;

use super::*;
use wire::{ACK, FIN, RST, SYN, tcp, udp};

fn client(port: u16) -> String {
    format!("198.51.100.7:{port}")
}

fn sent(outcome: &Outcome) -> Wire {
    let Outcome::Sent(frame) = outcome else { panic!("{outcome:?}") };
    Wire::read(frame)
}

#[test]
fn a_connection_goes_through_its_states() {
    in_scratch("a_connection_goes_through_its_states", |scratch| {
        let mut edge = edge(scratch, true);
        let client = |edge: &mut Edge, flags, sequence, acknowledges| {
            let segment = tcp(CLIENT, SERVICE, flags)
                .with(|wire| (wire.sequence, wire.acknowledges) = (sequence, acknowledges));
            sent(&edge.client_sends(&segment.frame()));
            edge.state().unwrap()
        };
        let server = |edge: &mut Edge, flags, sequence, acknowledges| {
            let segment = tcp(SERVER, NAT, flags)
                .with(|wire| (wire.sequence, wire.acknowledges) = (sequence, acknowledges));
            sent(&edge.server_sends(&segment.frame()));
            edge.state().unwrap()
        };
        assert_eq!(client(&mut edge, SYN, 100, 0), State::Opening);
        assert_eq!(server(&mut edge, SYN | ACK, 500, 101), State::Accepted);
        assert_eq!(client(&mut edge, ACK, 101, 501), State::Open);
        assert_eq!(client(&mut edge, FIN | ACK, 101, 501), State::ClientClosed);
        assert_eq!(server(&mut edge, ACK, 501, 102), State::ClientClosed);
        assert_eq!(server(&mut edge, FIN | ACK, 501, 102), State::LastAck);
        assert_eq!(client(&mut edge, ACK, 102, 502), State::Closed);

        // Its client may use its port again at once, and gets the same server by the same port.
        assert_eq!(client(&mut edge, SYN, 9000, 0), State::Opening);
        assert_eq!(server(&mut edge, SYN | ACK, 7000, 9001), State::Accepted);
        assert_eq!(server(&mut edge, FIN | ACK, 7001, 9001), State::ServerClosed);
        assert_eq!(client(&mut edge, FIN | ACK, 9001, 7002), State::Closing);
        assert_eq!(server(&mut edge, ACK, 7002, 9002), State::TimeWait);
        assert_eq!(client(&mut edge, SYN, 20_000, 0), State::Opening, "after TIME_WAIT as well");
        assert_eq!(server(&mut edge, RST | ACK, 0, 20_001), State::ResetByServer);

        let flow = edge.only_flow();
        assert_eq!((flow.sent.packets, flow.received.packets), (1, 1), "of the last one");
        let (service, server) = (edge.counters(1), edge.server_counters(SLOT.into()));
        assert_eq!((service.opened, service.sent.packets, service.received.packets), (3, 7, 7));
        assert_eq!((server.opened, server.sent, server.received), (3, service.sent, service.received));
        assert_eq!(service.sent.bytes, 7 * 54);
    });
}

#[test]
fn datagrams_are_answered_or_not() {
    in_scratch("datagrams_are_answered_or_not", |scratch| {
        let mut edge = edge(scratch, true);
        sent(&edge.client_sends(&udp(CLIENT, SERVICE, b"1").frame()));
        assert_eq!(edge.state(), Some(State::Unanswered));
        sent(&edge.server_sends(&udp(SERVER, NAT, b"2").frame()));
        sent(&edge.client_sends(&udp(CLIENT, SERVICE, b"3").frame()));
        assert_eq!(edge.state(), Some(State::Answered));
        let flow = edge.only_flow();
        assert_eq!((flow.sent.packets, flow.received.packets, flow.idle), (2, 1, 3600));
    });
}

#[test]
fn a_port_is_used_again_only_when_its_flow_is_over() {
    in_scratch("a_port_is_used_again_only_when_its_flow_is_over", |scratch| {
        let mut edge = edge(scratch, true);
        let open = |edge: &mut Edge, port| edge.client_sends(&tcp(&client(port), SERVICE, SYN).frame());
        let ports: BTreeSet<u16> = (0..PORTS).map(|at| sent(&open(&mut edge, 1000 + at)).source.1).collect();
        assert_eq!(ports, (FIRST_PORT..FIRST_PORT + PORTS).collect::<BTreeSet<_>>());

        let before = edge.all_counters();
        assert_eq!(open(&mut edge, 2000), Outcome::Dropped);
        assert_eq!(edge.stopped(&before), [StopReason::NoPort]);
        assert_eq!((edge.flows().len(), edge.replies().len()), (PORTS.into(), PORTS.into()));

        // A server in TIME_WAIT remembers; what has hardly begun gives way after a second, what the client has closed sooner.
        edge.change_flows(|flow| {
            let earlier = flow.last_packet.saturating_sub(2_000_000_000);
            (flow.state, flow.last_packet) = (State::TimeWait as u16, earlier);
        });
        assert_eq!(open(&mut edge, 2001), Outcome::Dropped);
        edge.change_flows(|flow| {
            if flow.source_port == FIRST_PORT + 1 {
                flow.state = State::Opening as u16;
            }
        });
        assert_eq!(sent(&open(&mut edge, 2005)).source.1, FIRST_PORT + 1);
        assert_eq!(open(&mut edge, 2006), Outcome::Dropped, "not so soon again");
        edge.change_flows(|flow| {
            if flow.source_port == FIRST_PORT + 2 {
                flow.state = State::Closed as u16;
            }
        });
        assert_eq!(sent(&open(&mut edge, 2002)).source.1, FIRST_PORT + 2);
        assert_eq!((edge.flows().len(), edge.replies().len()), (PORTS.into(), PORTS.into()), "in its place");
        assert_eq!(open(&mut edge, 2003), Outcome::Dropped);

        // Another protocol, and another server, have ports of their own.
        sent(&edge.client_sends(&udp(&client(1), SERVICE, b"").frame()));
        edge.server(3, end("10.0.0.12:8443"), "10.0.0.1", ServerState::Serving);
        edge.table(1, |_| 3);
        sent(&open(&mut edge, 2004));
    });
}

#[test]
fn a_port_that_its_server_remembers_goes_to_whom_it_can_tell_from_the_one_before() {
    in_scratch("a_port_that_its_server_remembers_goes_to_whom_it_can_tell_from_the_one_before", |scratch| {
        let mut edge = edge(scratch, true);
        let with_time = |wire: Wire, time: u32| {
            let options = [&[1, 1, 8, 10][..], &time.to_be_bytes(), &[0; 4]].concat();
            wire.with(|wire| wire.tcp_options = options)
        };
        let syn = |port, time| with_time(tcp(&client(port), SERVICE, SYN), time).frame();
        for at in 0..PORTS {
            let nat = format!("10.0.0.1:{}", FIRST_PORT + at);
            let to_server = |flags, sequence, acknowledges| {
                tcp(&client(1000 + at), SERVICE, flags)
                    .with(|wire| (wire.sequence, wire.acknowledges) = (sequence, acknowledges))
            };
            let to_client = |flags, sequence, acknowledges| {
                tcp(SERVER, &nat, flags)
                    .with(|wire| (wire.sequence, wire.acknowledges) = (sequence, acknowledges))
                    .frame()
            };
            sent(&edge.client_sends(&syn(1000 + at, 100)));
            sent(&edge.server_sends(&to_client(SYN | ACK, 500, 1001)));
            sent(&edge.server_sends(&to_client(FIN | ACK, 501, 1001)));
            sent(&edge.client_sends(&with_time(to_server(FIN | ACK, 1001, 502), 200).frame()));
            sent(&edge.server_sends(&to_client(ACK, 502, 1002)));
        }
        let remembered = |flow: &Flow| flow.state == State::TimeWait as u16 && flow.time == 200;
        assert!(edge.flows().iter().all(|(_, flow)| remembered(flow)), "{:?}", edge.flows());

        assert_eq!(edge.client_sends(&syn(2000, 201)), Outcome::Dropped, "not at once");
        edge.change_flows(|flow| flow.last_packet = flow.last_packet.saturating_sub(2_000_000_000));
        let before = edge.all_counters();
        assert_eq!(edge.client_sends(&syn(2000, 200)), Outcome::Dropped, "the server would not take it");
        assert_eq!(edge.stopped(&before), [StopReason::NoPort]);
        sent(&edge.client_sends(&syn(2000, 201)));
        assert_eq!((edge.flows().len(), edge.replies().len()), (PORTS.into(), PORTS.into()), "in its place");
        // Without a timestamp, by its number.
        let numbered =
            |port, sequence| tcp(&client(port), SERVICE, SYN).with(|wire| wire.sequence = sequence).frame();
        assert_eq!(edge.client_sends(&numbered(2001, 1002)), Outcome::Dropped);
        sent(&edge.client_sends(&numbered(2001, 100_000)));
    });
}

#[test]
fn clients_of_a_dead_server_are_reset_and_find_another() {
    in_scratch("clients_of_a_dead_server_are_reset_and_find_another", |scratch| {
        let mut edge = edge(scratch, true);
        for (client, service, server, nat, slot, source) in [
            (CLIENT, SERVICE, SERVER, NAT, SLOT, "10.0.0.1"),
            (CLIENT6, SERVICE6, SERVER6, NAT6, SLOT6, "fd00::1"),
        ] {
            edge.forget();
            edge.server(slot, end(server), source, ServerState::Serving);
            sent(&edge.client_sends(&tcp(client, service, SYN).frame()));
            sent(&edge.server_sends(&tcp(server, nat, SYN | ACK).frame()));
            edge.server(slot, end(server), source, ServerState::Dead);

            let before = edge.all_counters();
            let data = tcp(client, service, ACK).with(|wire| {
                (wire.sequence, wire.acknowledges, wire.payload) = (7, 0xdead_beef, vec![1; 900]);
            });
            let reset = sent(&edge.client_sends(&data.frame()));
            let wanted =
                tcp(service, client, RST).with(|wire| (wire.sequence, wire.acknowledges) = (0xdead_beef, 0));
            assert_eq!(reset, wanted, "taken for an answer to what the client has");
            assert_eq!(edge.stopped(&before), [StopReason::Reset]);
            assert_eq!(edge.state(), Some(State::Cut));
            // Its frame goes back to whom it came from.
            let Outcome::Sent(frame) = edge.client_sends(&data.frame()) else { panic!("no answer") };
            assert_eq!(frame[..12], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);

            let unacknowledging = tcp(client, service, FIN).with(|wire| wire.sequence = 50);
            let wanted =
                tcp(service, client, RST | ACK).with(|wire| (wire.sequence, wire.acknowledges) = (0, 51));
            assert_eq!(sent(&edge.client_sends(&unacknowledging.frame())), wanted);
            assert_eq!(
                edge.client_sends(&tcp(client, service, RST).frame()),
                Outcome::Dropped,
                "nobody answers a reset"
            );
            // The server isn't dead after all: its side of it ends too.
            assert_eq!(sent(&edge.server_sends(&tcp(server, nat, ACK).frame())).flags, RST);

            // The client comes back: nobody serves it, then another does.
            assert_eq!(edge.client_sends(&tcp(client, service, SYN).frame()), Outcome::Untouched);
            edge.server(slot, end(server), source, ServerState::Serving);
            assert_eq!(sent(&edge.client_sends(&tcp(client, service, SYN).frame())).destination, end(server));
            assert_eq!(edge.state(), Some(State::Opening));
        }
        assert_eq!(edge.server_counters(SLOT.into()).reset, 5);
    });
}

#[test]
fn a_slot_that_another_server_has_says_nothing_of_the_one_before() {
    in_scratch("a_slot_that_another_server_has_says_nothing_of_the_one_before", |scratch| {
        let mut edge = edge(scratch, true);
        sent(&edge.client_sends(&tcp(CLIENT, SERVICE, SYN).frame()));
        edge.change_flows(|flow| flow.incarnation = 6);
        edge.server(SLOT, end("10.0.0.12:8443"), "10.0.0.1", ServerState::Dead);
        assert_eq!(sent(&edge.client_sends(&tcp(CLIENT, SERVICE, ACK).frame())).destination, end(SERVER));
    });
}

#[test]
fn datagrams_leave_a_dead_server() {
    in_scratch("datagrams_leave_a_dead_server", |scratch| {
        let mut edge = edge(scratch, true);
        let question = udp(CLIENT, SERVICE, b"?").frame();
        assert_eq!(sent(&edge.client_sends(&question)).destination, end(SERVER));
        edge.server(SLOT, end(SERVER), "10.0.0.1", ServerState::Dead);
        edge.server(3, end("10.0.0.12:53"), "10.0.0.1", ServerState::Serving);
        edge.table(1, |_| 3);
        assert_eq!(sent(&edge.client_sends(&question)).destination, end("10.0.0.12:53"));
        assert_eq!((edge.flows().len(), edge.replies().len()), (1, 1));
    });
}

#[test]
fn an_ended_connection_follows_the_table_when_its_client_comes_back() {
    in_scratch("an_ended_connection_follows_the_table_when_its_client_comes_back", |scratch| {
        let mut edge = edge(scratch, true);
        let syn = tcp(CLIENT, SERVICE, SYN).frame();
        sent(&edge.client_sends(&syn));
        edge.server(3, end("10.0.0.12:8443"), "10.0.0.1", ServerState::Serving);
        edge.table(1, |_| 3);
        assert_eq!(sent(&edge.client_sends(&syn)).destination, end(SERVER), "still the same connection");
        sent(&edge.server_sends(&tcp(SERVER, NAT, RST | ACK).frame()));
        assert_eq!(sent(&edge.client_sends(&syn)).destination, end("10.0.0.12:8443"));
        assert_eq!((edge.flows().len(), edge.replies().len()), (1, 1), "nothing of the first is left");
        // What the first server still sends is nobody's.
        assert_eq!(edge.server_sends(&tcp(SERVER, NAT, ACK).frame()), Outcome::Untouched);
    });
}

#[test]
fn a_sticky_service_looks_at_addresses_alone() {
    in_scratch("a_sticky_service_looks_at_addresses_alone", |scratch| {
        let mut edge = edge(scratch, true);
        edge.server(3, end("10.0.0.12:8443"), "10.0.0.1", ServerState::Serving);
        edge.table(1, |place| if place % 2 == 0 { SLOT } else { 3 });
        let servers = |edge: &mut Edge, flags| {
            let service = Service { generation: 1, slot: 1, table: 1, flags, idle: 9, ..Service::default() };
            edge.service(end(SERVICE), wire::UDP, service);
            let mut seen = BTreeSet::new();
            for port in 1000..1032 {
                edge.forget();
                seen.insert(sent(&edge.client_sends(&udp(&client(port), SERVICE, b"").frame())).destination);
            }
            seen.len()
        };
        assert_eq!(servers(&mut edge, service::STICKY), 1);
        assert_eq!(servers(&mut edge, 0), 2);
    });
}

#[test]
fn what_is_too_long_is_answered_by_how_long_it_may_be() {
    in_scratch("what_is_too_long_is_answered_by_how_long_it_may_be", |scratch| {
        let mut edge = edge(scratch, true);
        scratch::ip("link set in0 mtu 1400");
        for (client, service, header) in [(CLIENT, SERVICE, 20), (CLIENT6, SERVICE6, 40)] {
            sent(&edge.client_sends(&tcp(client, service, SYN).frame()));
            let fits = vec![0x55; 1400 - header - 20];
            let longer = vec![0x55; fits.len() + 1];
            let segment =
                |payload: &[u8]| tcp(client, service, ACK).with(|wire| wire.payload = payload.to_vec());
            sent(&edge.client_sends(&segment(&fits).frame()));
            let long_datagram = udp(client, service, &[&longer[..], &[0; 12]].concat());
            sent(&edge.client_sends(&udp(client, service, &[&fits[..], &[0; 12]].concat()).frame()));

            for packet in [segment(&longer), long_datagram] {
                let before = edge.all_counters();
                let Outcome::Sent(frame) = edge.client_sends(&packet.frame()) else { panic!("no answer") };
                assert_eq!(edge.stopped(&before), [StopReason::TooBig]);
                let wanted = Error {
                    source: end(service).0,
                    destination: end(client).0,
                    hops: 64,
                    kind: if header == 20 { 3 } else { 2 },
                    code: if header == 20 { 4 } else { 0 },
                    rest: [0, 0, 0x05, 0x78],
                    quoted: packet.packet()[..header + 8].to_vec(),
                };
                assert_eq!(Error::read(&frame), wanted);
                assert_eq!(frame[..12], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1], "back to whom it came from");
            }
            // Merged packets are as long as each of them.
            let outside = edge.outside;
            let payload = fits.len() as u32;
            let merged = segment(&[0x55; 3000]).frame();
            sent(&edge.run(&merged, outside, payload));
            let Outcome::Sent(frame) = edge.run(&merged, outside, payload + 1) else { panic!("no answer") };
            assert_eq!(Error::read(&frame).rest, [0, 0, 0x05, 0x78]);
        }
        // A SYN asks for what the narrower side carries.
        let syn = tcp(&client(9), SERVICE, SYN).with(|wire| wire.tcp_options = vec![2, 4, 5, 0xb4]);
        assert_eq!(sent(&edge.client_sends(&syn.frame())).tcp_options, [2, 4, 0x05, 0x50]);
    });
}

#[test]
fn a_server_is_believed_only_where_its_route_leads() {
    in_scratch("a_server_is_believed_only_where_its_route_leads", |scratch| {
        let mut edge = edge(scratch, true);
        sent(&edge.client_sends(&tcp(CLIENT, SERVICE, SYN).frame()));
        let answer = tcp(SERVER, NAT, SYN | ACK).frame();
        sent(&edge.client_sends(&answer));
        edge.set(names::FORWARD_SETTINGS, 0, Settings { flags: settings::STRICT_PATH, ..edge::settings() });
        let before = edge.all_counters();
        assert_eq!(edge.client_sends(&answer), Outcome::Dropped);
        assert_eq!(edge.stopped(&before), [StopReason::WrongInterface]);
        sent(&edge.server_sends(&answer));
    });
}

#[test]
fn without_settings_nothing_is_touched() {
    in_scratch("without_settings_nothing_is_touched", |scratch| {
        let mut edge = edge(scratch, true);
        edge.set(names::FORWARD_SETTINGS, 0, Settings::default());
        assert_eq!(edge.client_sends(&tcp(CLIENT, SERVICE, SYN).frame()), Outcome::Untouched);
    });
}
