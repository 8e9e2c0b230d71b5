//! The packets, and what becomes of each.

use proxy_common::forward::StopReason::{self, Fragment, Hops, Malformed, NoFlow, NoRoute, NoServer};

use crate::{
    CLIENT, CLIENT6, EMPTY, KEPT, KEPT6, NAT, NAT6, RETIRED, SERVER, SERVER6, SERVICE, SERVICE6,
    wire::{ACK, Error, FIN, RST, SYN, Wire, end, tcp, udp},
};

pub struct Case {
    pub name: String,
    pub before: Vec<(Side, Vec<u8>)>,
    pub from: Side,
    pub packet: Vec<u8>,
    pub becomes: Becomes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

#[derive(Debug, Clone)]
pub enum Becomes {
    /// It goes to the stack as it is.
    Untouched,
    /// Likewise, and is counted.
    Refused(StopReason),
    Dropped(StopReason),
    /// Sent on.
    Packet(Wire),
    Error(Error),
}

use Becomes::{Dropped, Packet, Refused, Untouched};
use Side::{Client, Server};

pub fn table() -> Vec<Case> {
    let families = [
        Family { name: "IPv4", client: CLIENT, service: SERVICE, kept: KEPT, server: SERVER, nat: NAT },
        Family { name: "IPv6", client: CLIENT6, service: SERVICE6, kept: KEPT6, server: SERVER6, nat: NAT6 },
    ];
    let mut cases = Vec::new();
    for family in &families {
        cases.extend(family.translated());
        cases.extend(family.refused());
        cases.extend(family.segments_lowered());
        cases.extend(family.errors());
    }
    cases.extend(of_ipv4());
    cases.extend(of_ipv6());
    cases
}

struct Family {
    name: &'static str,
    client: &'static str,
    service: &'static str,
    kept: &'static str,
    server: &'static str,
    nat: &'static str,
}

fn case(name: &str, before: &[(Side, &Wire)], (from, packet): (Side, Vec<u8>), becomes: Becomes) -> Case {
    let before = before.iter().map(|(from, wire)| (*from, wire.frame())).collect();
    Case { name: name.to_owned(), before, from, packet, becomes }
}

/// As it is after the hop.
fn onward(wire: Wire) -> Wire {
    wire.with(|wire| wire.hops -= 1)
}

impl Family {
    fn case(&self, name: &str, before: &[(Side, &Wire)], packet: (Side, &Wire), becomes: Becomes) -> Case {
        case(&format!("{}, {name}", self.name), before, (packet.0, packet.1.frame()), becomes)
    }

    fn translated(&self) -> Vec<Case> {
        let Self { client, service, kept, server, nat, .. } = *self;
        let syn = tcp(client, service, SYN);
        let data = tcp(client, service, ACK).with(|wire| wire.payload = b"forty-one".to_vec());
        let answer = tcp(server, nat, SYN | ACK);
        let bytes: Vec<u8> = (0..1400_u32).map(|at| (at * 7) as u8).collect();
        let with = |wire: &Wire, flags| wire.clone().with(|wire| wire.flags = flags);
        let moved = |wire: &Wire, source: &str, destination: &str| {
            let ends = (end(source), end(destination));
            onward(wire.clone().with(|wire| (wire.source, wire.destination) = ends))
        };
        let to_server = |wire: &Wire| Packet(moved(wire, nat, server));
        let to_client = |wire: &Wire| Packet(moved(wire, service, client));
        let question = udp(client, service, b"odd");
        let reply = udp(server, nat, &bytes);
        let kept_syn = tcp(client, kept, SYN);
        let kept_answer = tcp(server, client, SYN | ACK);
        let kept_question = udp(client, kept, &bytes);
        let mut cases = vec![
            self.case("a SYN gets a server and a port", &[], (Client, &syn), to_server(&syn)),
            self.case(
                "the same SYN again gets the same port",
                &[(Client, &syn)],
                (Client, &syn),
                to_server(&syn),
            ),
            self.case("a server's SYN-ACK", &[(Client, &syn)], (Server, &answer), to_client(&answer)),
            self.case("data from the client", &[(Client, &syn)], (Client, &data), to_server(&data)),
            self.case(
                "urgent, push and ECN bits stay",
                &[(Client, &syn)],
                (Client, &with(&data, !SYN & !RST & !FIN)),
                to_server(&with(&data, !SYN & !RST & !FIN)),
            ),
            self.case(
                "a full segment from the server",
                &[(Client, &syn)],
                (Server, &with(&answer, ACK).with(|wire| wire.payload.clone_from(&bytes))),
                to_client(&with(&answer, ACK).with(|wire| wire.payload.clone_from(&bytes))),
            ),
            self.case(
                "a FIN",
                &[(Client, &syn)],
                (Client, &with(&data, FIN | ACK)),
                to_server(&with(&data, FIN | ACK)),
            ),
            self.case(
                "a client's reset",
                &[(Client, &syn)],
                (Client, &with(&data, RST)),
                to_server(&with(&data, RST)),
            ),
            self.case(
                "a server's reset",
                &[(Client, &syn)],
                (Server, &with(&answer, RST | ACK)),
                to_client(&with(&answer, RST | ACK)),
            ),
            self.case("a datagram gets a server and a port", &[], (Client, &question), to_server(&question)),
            self.case("a server's datagram", &[(Client, &question)], (Server, &reply), to_client(&reply)),
            self.case(
                "a SYN whose source is kept",
                &[],
                (Client, &kept_syn),
                Packet(moved(&kept_syn, client, server)),
            ),
            self.case(
                "a server's answer to a kept source",
                &[(Client, &kept_syn)],
                (Server, &kept_answer),
                Packet(moved(&kept_answer, kept, client)),
            ),
            self.case(
                "a datagram whose source is kept",
                &[],
                (Client, &kept_question),
                Packet(moved(&kept_question, client, server)),
            ),
        ];
        // Where a checksum comes out as 0, UDP writes 0xffff. One of these payloads brings it there.
        for high in (0..=255).step_by(5) {
            let datagram = udp(client, service, &[high, 255 - high, 0, 1]);
            cases.push(self.case(
                &format!("a datagram with {high}"),
                &[],
                (Client, &datagram),
                to_server(&datagram),
            ));
        }
        cases
    }

    fn refused(&self) -> Vec<Case> {
        let Self { client, service, server, nat, .. } = *self;
        let syn = tcp(client, service, SYN);
        let last_hop = syn.clone().with(|wire| wire.hops = 1);
        let elsewhere = |port: &str| service.rsplit_once(':').unwrap().0.to_owned() + port;
        vec![
            self.case("a segment of no flow", &[], (Client, &tcp(client, service, ACK)), Refused(NoFlow)),
            self.case("a reset of no flow", &[], (Client, &tcp(client, service, RST)), Refused(NoFlow)),
            self.case(
                "a SYN-ACK of no flow",
                &[],
                (Client, &tcp(client, service, SYN | ACK)),
                Refused(NoFlow),
            ),
            self.case(
                "a SYN for another port",
                &[],
                (Client, &tcp(client, &elsewhere(":22"), SYN)),
                Untouched,
            ),
            self.case(
                "a datagram for another port",
                &[],
                (Client, &udp(client, &elsewhere(":53"), b"who?")),
                Untouched,
            ),
            self.case("a server's segment of no flow", &[], (Server, &tcp(server, nat, ACK)), Untouched),
            self.case(
                "another's segment for a port of ours",
                &[(Client, &syn)],
                (Server, &tcp(client, nat, ACK)),
                Untouched,
            ),
            self.case(
                "a server's datagram on a TCP flow's port",
                &[(Client, &syn)],
                (Server, &udp(server, nat, b"")),
                Untouched,
            ),
            self.case("the last hop", &[], (Client, &last_hop), Dropped(Hops)),
        ]
    }

    fn segments_lowered(&self) -> Vec<Case> {
        let Self { client, service, server, nat, .. } = *self;
        let fits: u16 = if self.name == "IPv4" { 1460 } else { 1440 };
        let option = |mss: u16| [&[2, 4][..], &mss.to_be_bytes()].concat();
        let syn = |options: Vec<u8>| tcp(client, service, SYN).with(|wire| wire.tcp_options = options);
        let sent =
            |options: Vec<u8>| Packet(onward(tcp(nat, server, SYN).with(|wire| wire.tcp_options = options)));
        let usual = |mss| [option(mss), vec![4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7]].concat();
        let odd = |mss| [vec![1], option(mss), vec![4, 2, 0]].concat();
        let behind =
            |mss| [vec![8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 3, 3, 7], option(mss), vec![1, 1, 1]].concat();
        let plain = tcp(client, service, SYN);
        let answer = |mss| tcp(server, nat, SYN | ACK).with(|wire| wire.tcp_options = option(mss));
        let answered =
            |mss| Packet(onward(tcp(service, client, SYN | ACK).with(|wire| wire.tcp_options = option(mss))));
        vec![
            self.case(
                "a SYN that asks for jumbo segments",
                &[],
                (Client, &syn(usual(8960))),
                sent(usual(fits)),
            ),
            self.case("a SYN that asks for what fits", &[], (Client, &syn(usual(fits))), sent(usual(fits))),
            self.case("a SYN that asks for less", &[], (Client, &syn(usual(536))), sent(usual(536))),
            self.case("the option at an odd place", &[], (Client, &syn(odd(9000))), sent(odd(fits))),
            self.case("the option behind others", &[], (Client, &syn(behind(65535))), sent(behind(fits))),
            self.case(
                "an option that has no length",
                &[],
                (Client, &syn([vec![9, 0, 0, 0], option(9000)].concat())),
                sent([vec![9, 0, 0, 0], option(9000)].concat()),
            ),
            self.case("only fillers", &[], (Client, &syn(vec![1; 40])), sent(vec![1; 40])),
            self.case(
                "the end before the option",
                &[],
                (Client, &syn([vec![0; 4], option(9000)].concat())),
                sent([vec![0; 4], option(9000)].concat()),
            ),
            self.case(
                "a SYN-ACK that offers jumbo segments",
                &[(Client, &plain)],
                (Server, &answer(8960)),
                answered(fits),
            ),
        ]
    }

    fn errors(&self) -> Vec<Case> {
        let Self { client, service, kept, server, nat, .. } = *self;
        let is_v4 = self.name == "IPv4";
        let (router, other_router) =
            if is_v4 { ("10.0.0.254", "192.0.2.1") } else { ("fd00::fe", "2001:db8:f::1") };
        let header = if is_v4 { 20 } else { 40 };
        let (kind, code) = if is_v4 { (3, 4) } else { (2, 0) };
        let error = |from: &str, to: &str, about: &Wire, length: usize| Error {
            source: from.parse().unwrap(),
            destination: end(to).0,
            hops: 50,
            kind,
            code,
            rest: [0, 0, 5, 0x14],
            quoted: about.packet()[..(header + length).min(about.packet().len())].to_vec(),
        };
        let sent = |error: Error| Becomes::Error(Error { hops: error.hops - 1, ..error });
        let of = |name: &str, before: &Wire, from: Side, packet: Error, becomes: Becomes| {
            case(&format!("{}, {name}", self.name), &[(Client, before)], (from, packet.frame()), becomes)
        };
        let host = |at: &str| end(at).0.to_string();

        let syn = tcp(client, service, SYN);
        let to_server = onward(tcp(nat, server, SYN));
        let from_client = onward(syn.clone());
        let kept_syn = tcp(client, kept, SYN);
        let question = udp(client, service, b"a datagram");
        let question_sent = onward(udp(nat, server, b"a datagram"));
        let answer = udp(server, nat, b"and the answer");
        let answer_sent = onward(udp(service, client, b"and the answer"));
        // What the sender gets is about the packet that it sent, at the hop at which it was thrown away.
        let thrown = |wire: &Wire| wire.clone();
        vec![
            of(
                "too big, from behind, eight bytes of TCP",
                &syn,
                Server,
                error(router, nat, &thrown(&to_server), 8),
                sent(Error { source: end(service).0, ..error(router, client, &from_client, 8) }),
            ),
            of(
                "from the server itself about UDP, checksum and all",
                &question,
                Server,
                error(&host(server), nat, &question_sent, 64),
                sent(Error {
                    source: end(service).0,
                    ..error(router, client, &onward(question.clone()), 64)
                }),
            ),
            of(
                "too big, from the client's side, about UDP",
                &question,
                Client,
                error(other_router, service, &answer_sent, 8),
                sent(Error { source: end(nat).0, ..error(other_router, server, &onward(answer.clone()), 8) }),
            ),
            of(
                "from the client's side where the source is kept",
                &kept_syn,
                Client,
                error(other_router, kept, &onward(tcp(kept, client, SYN | ACK)), 8),
                sent(Error {
                    source: end(client).0,
                    ..error(other_router, server, &onward(tcp(server, client, SYN | ACK)), 8)
                }),
            ),
            of(
                "about a packet of no flow",
                &syn,
                Server,
                error(router, nat, &onward(tcp(nat, server, SYN).with(|wire| wire.destination.1 = 1)), 8),
                Untouched,
            ),
            of(
                "to another than who sent the packet",
                &syn,
                Server,
                error(router, service, &to_server, 8),
                Untouched,
            ),
            of("that quotes too little", &syn, Server, error(router, nat, &to_server, 7), Untouched),
            of(
                "an echo",
                &syn,
                Server,
                Error { kind: if is_v4 { 8 } else { 128 }, ..error(router, nat, &to_server, 8) },
                Untouched,
            ),
        ]
    }
}

fn of_ipv4() -> Vec<Case> {
    let syn = tcp(CLIENT, SERVICE, SYN);
    let options = syn.clone().with(|wire| wire.ip_options = vec![0x94, 4, 0, 0, 1, 1, 1, 0]);
    let options_sent =
        onward(tcp(NAT, SERVER, SYN).with(|wire| wire.ip_options = vec![0x94, 4, 0, 0, 1, 1, 1, 0]));
    let bare = udp(CLIENT, SERVICE, b"no checksum").with(|wire| wire.checksum = false);
    let bare_sent = onward(udp(NAT, SERVER, b"no checksum").with(|wire| wire.checksum = false));
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = syn.frame();
        change(&mut frame);
        (Client, frame)
    };
    let padded = {
        let mut frame = udp(CLIENT, SERVICE, b"").frame();
        frame.resize(60, 0xaa);
        frame
    };
    let rest = padded[42..].to_vec();
    assert_eq!(rest.len(), 18);
    let empty = tcp(CLIENT, EMPTY, SYN);
    vec![
        case("IPv4, options", &[], (Client, options.frame()), Packet(options_sent)),
        case(
            "IPv4, a datagram without a checksum stays without",
            &[],
            (Client, bare.frame()),
            Packet(bare_sent),
        ),
        case("IPv4, a first fragment", &[], changed(&|frame| frame[20] |= 0x20), Dropped(Fragment)),
        case(
            "IPv4, a first fragment of a flow",
            &[(Client, &syn)],
            changed(&|frame| frame[20] |= 0x20),
            Dropped(Fragment),
        ),
        case("IPv4, a later fragment", &[], changed(&|frame| frame[21] = 100), Untouched),
        case(
            "IPv4, a TCP header that says it is too short",
            &[],
            changed(&|frame| frame[46] = 0x40),
            Dropped(Malformed),
        ),
        case(
            "IPv4, a TCP header that says it is longer than the packet",
            &[],
            changed(&|frame| frame[46] = 0xf0),
            Dropped(Malformed),
        ),
        case(
            "IPv4, a packet that ends within its TCP header",
            &[],
            changed(&|frame| frame[17] = 32),
            Dropped(Malformed),
        ),
        case("IPv4, a packet that ends before its ports", &[], changed(&|frame| frame[17] = 22), Untouched),
        case("IPv4, a header length below the least", &[], changed(&|frame| frame[14] = 0x44), Untouched),
        case("IPv4, a frame cut short", &[], changed(&|frame| frame.truncate(40)), Untouched),
        case("IPv4, a frame for another host", &[], changed(&|frame| frame[5] = 9), Untouched),
        case("IPv4, a frame for everybody", &[], changed(&|frame| frame[..6].fill(0xff)), Untouched),
        case(
            "IPv4, a server's first fragment",
            &[(Client, &syn)],
            {
                let mut frame = tcp(SERVER, NAT, ACK).frame();
                frame[20] |= 0x20;
                (Server, frame)
            },
            Dropped(Fragment),
        ),
        case(
            "IPv4 in a VLAN",
            &[],
            changed(&|frame| drop(frame.splice(12..12, [0x81, 0, 0, 100]))),
            Untouched,
        ),
        case("ARP", &[], changed(&|frame| frame[13] = 6), Untouched),
        case("IPv4, nobody to serve it", &[], (Client, empty.frame()), Refused(NoServer)),
        case(
            "IPv4, a datagram and nobody to serve it",
            &[],
            (Client, udp(CLIENT, EMPTY, b"?").frame()),
            Refused(NoServer),
        ),
        case(
            "IPv4, a service that was forwarded once",
            &[],
            (Client, tcp(CLIENT, RETIRED, SYN).frame()),
            Untouched,
        ),
        case("IPv4, a relayed connection of it", &[], (Client, tcp(CLIENT, RETIRED, ACK).frame()), Untouched),
        case(
            "IPv4, no way back",
            &[(Client, &tcp("192.0.2.200:1", SERVICE, SYN))],
            (Server, tcp(SERVER, NAT, SYN | ACK).frame()),
            Dropped(NoRoute),
        ),
        case("IPv4, from a group", &[], (Client, tcp("224.0.0.9:1", SERVICE, SYN).frame()), Untouched),
        case("IPv4, from a loopback", &[], (Client, tcp("127.0.0.1:1", SERVICE, SYN).frame()), Untouched),
        case("IPv4, from nobody", &[], (Client, udp("0.0.0.0:1", SERVICE, b"").frame()), Untouched),
    ]
}

fn of_ipv6() -> Vec<Case> {
    let syn = tcp(CLIENT6, SERVICE6, SYN);
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = syn.frame();
        change(&mut frame);
        (Client, frame)
    };
    let with_header = |kind: u8, header: [u8; 8]| {
        changed(&move |frame| {
            frame[20] = kind;
            frame[19] += 8;
            drop(frame.splice(54..54, header));
        })
    };
    vec![
        case("IPv6, a first fragment", &[], with_header(44, [6, 0, 0, 1, 0, 0, 0, 9]), Dropped(Fragment)),
        case("IPv6, a later fragment", &[], with_header(44, [6, 0, 0, 9, 0, 0, 0, 9]), Untouched),
        case("IPv6, destination options", &[], with_header(60, [6, 0, 1, 4, 0, 0, 0, 0]), Untouched),
        case("IPv6, hop-by-hop options", &[], with_header(0, [6, 0, 1, 4, 0, 0, 0, 0]), Untouched),
        case(
            "IPv6 that says it is IPv4",
            &[],
            changed(&|frame| {
                frame[22..38].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 198, 51, 100, 7]);
            }),
            Untouched,
        ),
        case("IPv6, from a group", &[], (Client, udp("[ff02::1]:1", SERVICE6, b"").frame()), Untouched),
        case("IPv6, from ourselves", &[], (Client, udp("[::1]:1", SERVICE6, b"").frame()), Untouched),
        case("IPv6, from a group", &[], (Client, udp("[ff02::1]:1", SERVICE6, b"").frame()), Untouched),
        case("IPv6, from ourselves", &[], (Client, udp("[::1]:1", SERVICE6, b"").frame()), Untouched),
        case(
            "IPv6, a packet that ends within its TCP header",
            &[],
            changed(&|frame| frame[19] = 12),
            Dropped(Malformed),
        ),
    ]
}
