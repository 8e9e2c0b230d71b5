//! What the program that carries handed-over connections does with single packets: a table, run by the kernel.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside of test functions")]

use std::net::SocketAddr;

use aya::{Ebpf, EbpfLoader, TestRun, TestRunOptions, programs::SchedClassifier};
use proxy_common::{
    names,
    translate::{Flow, FlowKey, seen, side, stage},
};
use proxy_user::kernel::{
    object_built_in,
    translate::{Translation, key},
};

#[path = "support/scratch.rs"]
mod scratch;
#[allow(dead_code, reason = "shared with another test, which needs more of it")]
#[path = "forward_packets/wire.rs"]
mod wire;

use scratch::{Scratch, in_scratch, ip};
use wire::{Error, tcp};

const STAYS: u32 = u32::MAX;
const DROPPED: u32 = 2;
const LEAVES: u32 = 7;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// The ends of both connections: the client's, the edge's towards it, the edge's towards the server, the server's.
fn ends(v6: bool) -> [SocketAddr; 4] {
    let ends = if v6 {
        ["[2001:db8:1::9]:5000", "[2001:db8:1::1]:443", "[2001:db8:2::1]:27000", "[2001:db8:2::b]:8443"]
    } else {
        ["192.0.2.9:5000", "192.0.2.1:443", "10.0.0.1:27000", "10.0.0.11:8443"]
    };
    ends.map(|end| end.parse().unwrap())
}

struct Packet {
    v6: bool,
    flags: u8,
    options: Vec<u8>,
    payload: &'static [u8],
    hops: u8,
    fragment: u16,
    to_port: u16,
}

impl Default for Packet {
    fn default() -> Self {
        // Nothing, nothing, and a timestamp.
        let options = vec![1, 1, 8, 10, 0, 0, 0, 100, 0, 0, 0, 200];
        Self {
            v6: false,
            flags: ACK,
            options,
            payload: b"hello, server",
            hops: 64,
            fragment: 0,
            to_port: 443,
        }
    }
}

impl Packet {
    /// From the client to the edge, with its checksums.
    fn frame(&self) -> Vec<u8> {
        let [client, edge, ..] = ends(self.v6);
        let mut tcp = [client.port().to_be_bytes(), self.to_port.to_be_bytes()].concat();
        tcp.extend(1_000_u32.to_be_bytes());
        tcp.extend(2_000_u32.to_be_bytes());
        tcp.extend([((5 + self.options.len() / 4) << 4) as u8, self.flags, 1, 0, 0, 0, 0, 0]);
        tcp.extend(&self.options);
        tcp.extend(self.payload);
        let (source, destination) = (octets(client), octets(edge));
        let sum = checksum(&[&pseudo(&source, &destination, tcp.len()), &tcp[..]].concat());
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        if self.v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((tcp.len() as u16).to_be_bytes());
            frame.extend([6, self.hops]);
            frame.extend([source, destination].concat());
        } else {
            let mut ip = vec![0x45, 0];
            ip.extend((20 + tcp.len() as u16).to_be_bytes());
            ip.extend([0, 7]);
            ip.extend(self.fragment.to_be_bytes());
            ip.extend([self.hops, 6, 0, 0]);
            ip.extend([source, destination].concat());
            let sum = checksum(&ip);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend([0x08, 0x00]);
            frame.extend(ip);
        }
        frame.extend(tcp);
        frame
    }
}

fn octets(end: SocketAddr) -> Vec<u8> {
    match end {
        SocketAddr::V4(end) => end.ip().octets().to_vec(),
        SocketAddr::V6(end) => end.ip().octets().to_vec(),
    }
}

fn pseudo(source: &[u8], destination: &[u8], length: usize) -> Vec<u8> {
    [source, destination, &(length as u32).to_be_bytes(), &[0, 0, 0, 6]].concat()
}

/// Zero over what has its checksum inside.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let once = (sum & 0xffff) + (sum >> 16);
    !(((once & 0xffff) + (once >> 16)) as u16)
}

struct Table {
    translation: Translation,
    ebpf: Ebpf,
}

impl Table {
    fn new(scratch: &Scratch) -> Self {
        let translation = Translation::open(&scratch.bpffs).unwrap();
        translation.watch([443, 27_000].into_iter()).unwrap();
        let maps = scratch.bpffs.join(names::ROOT).join(names::LAYOUT).join(names::MAPS);
        let mut loader = EbpfLoader::new();
        for name in names::TRANSLATE_MAPS {
            loader.map_pin_path(name, maps.join(name));
        }
        let mut ebpf = loader.load(object_built_in().unwrap()).unwrap();
        let program: &mut SchedClassifier =
            ebpf.program_mut(names::TRANSLATE_TC).unwrap().try_into().unwrap();
        program.load().unwrap();
        Self { translation, ebpf }
    }

    /// What is done with a packet, and what it is then.
    fn run(&self, packet: &Packet) -> (u32, Vec<u8>) {
        self.run_frame(&packet.frame())
    }

    fn run_frame(&self, frame: &[u8]) -> (u32, Vec<u8>) {
        let mut out = vec![0; frame.len()];
        let program: &SchedClassifier = self.ebpf.program(names::TRANSLATE_TC).unwrap().try_into().unwrap();
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        let ran = program.test_run(options).unwrap();
        out.truncate(ran.data_size_out as usize);
        (ran.return_value, out)
    }

    /// Both directions, as at a hand-over, with these seen of them.
    fn join(&self, v6: bool, up_seen: u32, down_seen: u32) -> [FlowKey; 2] {
        let [client, edge, own, server] = ends(v6);
        let direction = |source, destination, side, seen| {
            let FlowKey { source, destination, ports } = key(source, destination);
            Flow {
                source,
                destination,
                ports,
                stage: stage::JOINED,
                interface: 1,
                seen,
                sequence: 10,
                acknowledgement: 20,
                time: 30,
                echo: 40,
                scale_from: 7,
                scale_to: 6,
                side,
                ..Flow::default()
            }
        };
        let keys = [key(client, edge), key(server, own)];
        self.translation.set(&keys[0], &direction(own, server, side::CLIENT, up_seen)).unwrap();
        self.translation.set(&keys[1], &direction(edge, client, side::SERVER, down_seen)).unwrap();
        keys
    }
}

#[test]
fn a_packet_leaves_as_one_of_the_other_connection() {
    in_scratch("a_packet_leaves_as_one_of_the_other_connection", |scratch| {
        let table = Table::new(scratch);
        for v6 in [false, true] {
            let keys = table.join(v6, 0, 0);
            for payload in [&b""[..], b"hello, server"] {
                let (verdict, out) = table.run(&Packet { v6, payload, ..Packet::default() });
                assert_eq!(verdict, LEAVES, "v6: {v6}");
                let [.., own, server] = ends(v6);
                let (ip, tcp) = out[14..].split_at(if v6 { 40 } else { 20 });
                let (hops, addresses) = if v6 { (ip[7], &ip[8..]) } else { (ip[8], &ip[12..]) };
                assert_eq!(hops, 63);
                assert_eq!(addresses, [octets(own), octets(server)].concat());
                assert!(v6 || checksum(ip) == 0, "the IPv4 checksum is wrong");
                assert_eq!(checksum(&[&pseudo(&octets(own), &octets(server), tcp.len()), tcp].concat()), 0);
                let word = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
                assert_eq!(tcp[..4], [own.port().to_be_bytes(), server.port().to_be_bytes()].concat());
                assert_eq!((word(4), word(8), word(24), word(28)), (1_010, 2_020, 130, 240));
                assert_eq!(tcp[14..16], [2, 0], "the window");
                assert_eq!(&tcp[32..], payload);
            }
            let flow = table.translation.flow(&keys[0]).unwrap().unwrap();
            assert_eq!((flow.packets, flow.bytes, flow.acked), (2, 13, 2_000));
            // An end and a reset are noted on both sides.
            table.run(&Packet { v6, flags: FIN | ACK, payload: b"", ..Packet::default() });
            let flows = keys.map(|key| table.translation.flow(&key).unwrap().unwrap());
            assert_eq!(flows[0].seen, seen::FIN | seen::ENDED_FIRST);
            assert_eq!((flows[1].seen, flows[1].peer_end), (seen::PEER_FIN, 1_011));
            table.run(&Packet { v6, flags: RST, payload: b"", options: Vec::new(), ..Packet::default() });
            let flows = keys.map(|key| table.translation.flow(&key).unwrap().unwrap());
            assert!(flows.iter().all(|flow| flow.seen & seen::RESET != 0));
        }
    });
}

#[test]
fn what_cannot_be_translated_is_dropped_and_what_is_not_ours_stays() {
    in_scratch("what_cannot_be_translated_is_dropped_and_what_is_not_ours_stays", |scratch| {
        let table = Table::new(scratch);
        let plain = Packet::default;
        assert_eq!(table.run(&plain()).0, STAYS, "no flow");
        let keys = table.join(false, 0, 0);
        for (name, packet, verdict) in [
            ("its own flow", plain(), LEAVES),
            ("a port that nobody watches", Packet { to_port: 444, ..plain() }, STAYS),
            ("the last hop", Packet { hops: 1, ..plain() }, DROPPED),
            ("a first fragment", Packet { fragment: 0x2000, ..plain() }, DROPPED),
            ("a later fragment", Packet { fragment: 0x0010, ..plain() }, STAYS),
            ("options that don't fit", Packet { options: vec![8, 10, 0, 0], ..plain() }, DROPPED),
            (
                "options at odd places",
                Packet { options: vec![253, 3, 9, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1, 0], ..plain() },
                LEAVES,
            ),
            ("a SYN while the flow goes on", Packet { flags: SYN, payload: b"", ..plain() }, LEAVES),
        ] {
            let before = table.translation.tally().unwrap();
            assert_eq!(table.run(&packet).0, verdict, "{name}");
            let after = table.translation.tally().unwrap();
            assert_eq!(after == before, verdict == STAYS, "{name}: {after:?}");
        }

        // Held: what has to be sent again is dropped, and only that.
        let mut held = table.translation.flow(&keys[0]).unwrap().unwrap();
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
        held.stage = stage::HELD;
        held.begun = now.tv_sec() as u64 * 1_000_000_000;
        table.translation.set(&keys[0], &held).unwrap();
        assert_eq!(table.run(&plain()).0, DROPPED);
        assert_eq!(table.run(&Packet { payload: b"", ..plain() }).0, STAYS);
        held.begun -= 10_000_000_000;
        table.translation.set(&keys[0], &held).unwrap();
        assert_eq!(table.run(&plain()).0, STAYS, "held by nobody any more");

        // A new connection in the place of an ended one.
        let done = seen::FIN | seen::PEER_FIN | seen::PEER_FIN_ACKED;
        let keys = table.join(false, done, done);
        let opens = Packet {
            flags: SYN,
            payload: b"",
            options: vec![2, 4, 5, 180, 1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0],
            ..plain()
        };
        assert_eq!(table.run(&opens).0, STAYS);
        assert!(keys.iter().all(|key| table.translation.flow(key).unwrap().is_none()));
        let said = table.translation.seen(&keys[0]).unwrap();
        assert_eq!((said.time, said.has_time, said.longest), (9, 1, 1460));
    });
}

#[test]
fn whoever_sent_a_packet_is_told_what_became_of_it() {
    in_scratch("whoever_sent_a_packet_is_told_what_became_of_it", |scratch| {
        let table = Table::new(scratch);
        let _neighbour = scratch.neighbour("narrow", "there");
        ip("link set narrow mtu 1300");
        let narrow = nix::net::if_::if_nametoindex("narrow").unwrap();
        for v6 in [false, true] {
            let keys = table.join(v6, 0, 0);
            let [client, edge, own, server] = ends(v6);
            let header = if v6 { 40 } else { 20 };
            let (kind, code) = if v6 { (2, 0) } else { (3, 4) };
            let router = if v6 { "2001:db8:f::1" } else { "192.0.2.1" };

            // 1. A router in front of the client can't send on what came from the server.
            let about = |from: SocketAddr, to: SocketAddr, sequence| {
                let packet = tcp(&from.to_string(), &to.to_string(), ACK);
                packet.with(|wire| wire.sequence = sequence).packet()[..header + 8].to_vec()
            };
            // To whom such a test's packets come: an interface without an address of its own.
            let addressed = |error: &Error| [&[0; 6], &error.frame()[6..]].concat();
            let error = |to: SocketAddr, quoted| Error {
                source: router.parse().unwrap(),
                destination: to.ip(),
                hops: 50,
                kind,
                code,
                rest: [0, 0, 5, 0],
                quoted,
            };
            let before = table.translation.tally().unwrap();
            let (verdict, out) = table.run_frame(&addressed(&error(edge, about(edge, client, 5_000))));
            assert_eq!(verdict, LEAVES, "v6: {v6}");
            // The server gets it about what it sent itself. Its numbers are shifted as the client's acknowledgements are, backwards.
            let wanted = Error { source: own.ip(), hops: 49, ..error(server, about(server, own, 5_020)) };
            assert_eq!(Error::read(&out), wanted);
            assert_eq!(table.translation.tally().unwrap().errors, before.errors + 1);

            // 2. Of no flow, of another port, or at the end of its time.
            let stranger = SocketAddr::new(client.ip(), client.port() + 1);
            for (name, error, verdict) in [
                ("another client's", error(edge, about(edge, stranger, 5_000)), STAYS),
                ("not about what was sent from here", error(own, about(edge, client, 5_000)), STAYS),
                ("the last hop", Error { hops: 1, ..error(edge, about(edge, client, 5_000)) }, DROPPED),
            ] {
                assert_eq!(table.run_frame(&addressed(&error)).0, verdict, "{name}, v6: {v6}");
            }

            // 3. What is longer than the way on carries.
            let mut up = table.translation.flow(&keys[0]).unwrap().unwrap();
            up.interface = narrow;
            table.translation.set(&keys[0], &up).unwrap();
            let fits = 1300 - header - 32;
            let payload = |length| &[0x55; 1300][..length];
            let packet = |length| Packet { v6, payload: payload(length), ..Packet::default() };
            assert_eq!(table.run(&packet(fits)).0, LEAVES, "v6: {v6}");
            let longer = packet(fits + 1);
            let (verdict, out) = table.run(&longer);
            assert_eq!(verdict, LEAVES, "back, v6: {v6}");
            let told = Error::read(&out);
            assert_eq!((told.source, told.destination), (edge.ip(), client.ip()));
            assert_eq!((told.kind, told.code, told.rest), (kind, code, [0, 0, 5, 0x14]));
            assert_eq!(told.quoted, longer.frame()[14..14 + header + 8]);
            assert_eq!(table.translation.tally().unwrap().too_long, before.too_long + 1);
        }
    });
}
