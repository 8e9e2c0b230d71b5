//! Handshakes that have to be proved: each packet is judged by the program at XDP, as the kernel runs it, and its answers
//! are read by a parser that knows nothing of how they are made.
//!
//! The listeners are real ones in a namespace of their own; whether they take a cookie is theirs to say.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside of test functions")]

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    time::Duration,
};

use aya::{
    Ebpf, TestRun, TestRunOptions,
    maps::ProgramArray,
    programs::{SchedClassifier, Xdp},
};
use proxy_common::names;
use proxy_user::{
    config::model::{KernelMode, Rate, SourceLimit, SynCookies, SynCookiesMode},
    kernel::{
        Desired, Guarded, Kernel, NamedList, Protocol, blocks::BlockedPrefix, status::EntrypointStatus,
    },
};

#[path = "syn_cookies/answer.rs"]
mod answer;
#[path = "support/packet.rs"]
mod packet;
#[path = "support/scratch.rs"]
mod scratch;

use answer::Answer;
use packet::{Packet, ethernet, ipv4, ipv6};
use scratch::{Scratch, in_scratch, programs_over};

const EDGE: &str = "203.0.113.1";
const EDGE6: &str = "2001:db8:ed9e::1";
const VISITOR: &str = "192.0.2.10";
const VISITOR6: &str = "2001:db8:c1::10";
const STRANGER: &str = "198.51.100.10";
const PORT: u16 = 443;

const DROP: u32 = 1;
const PASS: u32 = 2;
const SEND_BACK: u32 = 3;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PUSH: u8 = 8;
const ACK: u8 = 16;

const ALWAYS: SynCookies = SynCookies { mode: SynCookiesMode::Always, from: 1000, cdn: false };

/// A SYN's options: MSS 1400, SACK, timestamps, window scale.
const OPTIONS: [u8; 20] = [2, 4, 0x05, 0x78, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7];

#[test]
fn a_syn_is_answered_with_a_cookie_and_only_that_cookie_comes_in() {
    in_scratch("a_syn_is_answered_with_a_cookie_and_only_that_cookie_comes_in", |scratch| {
        let mut edge = Edge::new(scratch, ALWAYS, Always);
        let (visitor, visitor6) = (VISITOR.parse().unwrap(), VISITOR6.parse().unwrap());
        let cases: Vec<(&str, IpAddr, Packet)> = vec![
            ("IPv4", visitor, ipv4(VISITOR, EDGE, 6)),
            ("IPv6", visitor6, ipv6(VISITOR6, EDGE6, 6)),
            ("IPv4 behind a VLAN tag", visitor, ethernet(0x8100).vlan(0x0800).ipv4(VISITOR, EDGE, 6, &[], 0)),
            (
                "IPv6 behind two VLAN tags",
                visitor6,
                ethernet(0x88a8).vlan(0x8100).vlan(0x86dd).ipv6(VISITOR6, EDGE6, 6),
            ),
            ("IPv4 with options", visitor, ethernet(0x0800).ipv4(VISITOR, EDGE, 6, &[1; 12], 0)),
            ("IPv6 with an extension header", visitor6, ipv6(VISITOR6, EDGE6, 60).extension(6, 2)),
            ("the first of several fragments", visitor, ethernet(0x0800).ipv4(VISITOR, EDGE, 6, &[], 0x2000)),
        ];
        for (name, source, headers) in cases {
            for (options, data) in [(&OPTIONS[..], 0), (&OPTIONS[..4], 0), (&[], 0), (&OPTIONS[..], 300)] {
                let name = format!("{name}, {} bytes of options, {data} of data", options.len());
                let syn = headers.clone().segment(SYN, 0xffff_ffff, 0, options).then(&vec![7; data]);
                let (returned, frame) = edge.run(&syn);
                assert_eq!(returned, SEND_BACK, "{name}");
                let answer = Answer::parse(&frame).unwrap_or_else(|why| panic!("{name}: {why}: {frame:x?}"));
                assert!(frame.len() <= syn.0.len(), "{name}: {} bytes for {}", frame.len(), syn.0.len());
                assert_eq!(&frame[..6], &syn.0[6..12], "{name}");
                assert_eq!(&frame[6..12], &syn.0[..6], "{name}");
                assert_eq!(&answer.tags, syn.tags(), "{name}");
                let guarded: IpAddr = if source.is_ipv4() { EDGE } else { EDGE6 }.parse().unwrap();
                assert_eq!((answer.source, answer.destination), (guarded, source), "{name}");
                assert_eq!((answer.source_port, answer.destination_port), (PORT, 40_000), "{name}");
                assert_eq!((answer.flags, answer.acknowledgement), (SYN | ACK, 0), "{name}");
                // The loopback interface that tests run on carries 64 KiB, with headers.
                let mss = if source.is_ipv4() { 65_496 } else { 65_476 };
                assert_eq!(answer.mss, (!options.is_empty()).then_some(mss), "{name}");

                // The lowest bits are the longest segment that the client takes, by a number from 0 to 3.
                let cookie = answer.sequence;
                for (number, wanted) in [(cookie, PASS), (cookie.wrapping_add(8), DROP), (!cookie, DROP)] {
                    for flags in [ACK, ACK | PUSH, ACK | FIN] {
                        let ack =
                            headers.clone().segment(flags, 0, number.wrapping_add(1), &[]).then(b"GET /");
                        assert_eq!(edge.run(&ack), (wanted, ack.0), "{name}: flags {flags:x}");
                    }
                }
            }
        }
        let https = edge.status();
        assert_eq!(https.challenged.packets, 7 * 4);
        assert_eq!(https.dropped["bad_cookie"].packets, 7 * 4 * 2 * 3);
        assert_eq!(https.passed.packets, 7 * 4 * 3);
    });
}

#[test]
fn what_no_listener_makes_a_connection_of_passes_and_is_not_answered() {
    in_scratch("what_no_listener_makes_a_connection_of_passes_and_is_not_answered", |scratch| {
        let mut edge = Edge::new(scratch, ALWAYS, Always);
        let v4 = || ipv4(VISITOR, EDGE, 6);
        let mut to_a_group = v4().segment(SYN, 1, 0, &OPTIONS);
        to_a_group.0[0] |= 1;
        let mut too_short = v4().segment(SYN, 1, 0, &OPTIONS);
        too_short.0[14 + 20 + 12] = 0x40;
        for (name, packet) in [
            ("SYN and FIN", v4().segment(SYN | FIN, 1, 0, &OPTIONS)),
            ("SYN and ACK", v4().segment(SYN | ACK, 1, 1, &OPTIONS)),
            ("SYN and RST", v4().segment(SYN | RST, 1, 0, &OPTIONS)),
            ("RST", v4().segment(RST, 1, 0, &[])),
            ("RST and ACK", v4().segment(RST | ACK, 1, 1, &[])),
            ("no flag", v4().segment(0, 1, 0, &[])),
            ("a SYN to a group of stations", to_a_group),
            ("a SYN whose header is shorter than any", too_short),
            ("a SYN that ends before its options do", v4().segment(SYN, 1, 0, &OPTIONS).cut(8)),
            ("a SYN that ends before its flags", v4().segment(SYN, 1, 0, &[]).cut(8)),
            ("UDP", ipv4(VISITOR, EDGE, 17).udp(PORT)),
        ] {
            assert_eq!(edge.run(&packet), (PASS, packet.0), "{name}");
        }
        // Only one address of these could send anything, and none of them is listed by any sane list.
        for source in ["0.0.0.1", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
            assert_eq!(edge.run(&ipv4(source, EDGE, 6).segment(SYN, 1, 0, &OPTIONS)).0, PASS, "{source}");
        }
        for source in ["::1", "::", "ff02::1", "::ffff:192.0.2.10"] {
            assert_eq!(edge.run(&ipv6(source, EDGE6, 6).segment(SYN, 1, 0, &OPTIONS)).0, PASS, "{source}");
        }
        assert_eq!(edge.run(&ipv4(STRANGER, EDGE, 6).segment(SYN, 1, 0, &OPTIONS)).0, DROP);
        // Its flags come with the next fragment, and could be a SYN's.
        let hidden = ethernet(0x0800).ipv4(VISITOR, EDGE, 6, &[], 0x2000).segment(SYN, 1, 0, &[]).cut(8);
        assert_eq!(edge.run(&hidden).0, DROP);

        let https = edge.status();
        assert_eq!(https.dropped["split_header"].packets, 1);
        assert_eq!((https.challenged.packets, https.dropped["bad_cookie"].packets), (0, 0));
    });
}

#[test]
fn a_connection_and_one_in_the_making_need_no_cookie() {
    in_scratch("a_connection_and_one_in_the_making_need_no_cookie", |scratch| {
        let mut edge = Edge::new(scratch, ALWAYS, Always);
        scratch::ip(&format!("addr add {EDGE}/32 dev lo"));
        let client = std::net::TcpStream::connect((EDGE, PORT)).unwrap();
        let from = client.local_addr().unwrap();
        let packet = |flags, number| {
            let mut packet = ipv4(EDGE, EDGE, 6).segment(flags, number, number, &[]);
            packet.0[34..36].copy_from_slice(&from.port().to_be_bytes());
            packet
        };
        // Nonsense as its numbers are: that is for the connection to judge.
        assert_eq!(edge.run(&packet(ACK, 7)).0, PASS);
        assert_eq!(edge.run(&packet(SYN, 7)).0, PASS);
        drop(client);
        assert_eq!(edge.status().challenged.packets, 0);
    });
}

#[test]
fn where_nobody_listens_everything_passes() {
    in_scratch("where_nobody_listens_everything_passes", |scratch| {
        let mut edge = Edge::new(scratch, ALWAYS, Always);
        edge.listeners.clear();
        assert_eq!(edge.run(&ipv4(VISITOR, EDGE, 6).segment(SYN, 1, 0, &OPTIONS)).0, PASS);
        assert_eq!(edge.run(&ipv6(VISITOR6, EDGE6, 6).segment(ACK, 1, 1, &[])).0, PASS);
    });
}

#[test]
fn a_listener_whose_queue_never_overflowed_takes_no_cookie_so_none_is_sent() {
    in_scratch("a_listener_whose_queue_never_overflowed_takes_no_cookie_so_none_is_sent", |scratch| {
        let mut edge = Edge::new(scratch, ALWAYS, AfterOverflow);
        let syn = |port: u16| {
            let mut syn = ipv4(VISITOR, EDGE, 6).segment(SYN, 1, 0, &OPTIONS);
            syn.0[34..36].copy_from_slice(&port.to_be_bytes());
            syn
        };
        assert_eq!(edge.run(&syn(1)).0, PASS);

        // As if it had overflowed: asked for a cookie, it notes that it was.
        set(Always);
        assert_eq!(edge.run(&syn(1)).0, SEND_BACK);
        set(AfterOverflow);
        // From now on cookies are made without it, and it takes them.
        for port in 2..200 {
            let (returned, frame) = edge.run(&syn(port));
            assert_eq!(returned, SEND_BACK);
            let cookie = Answer::parse(&frame).unwrap().sequence;
            let mut ack = ipv4(VISITOR, EDGE, 6).segment(ACK, 2, cookie.wrapping_add(1), &[]);
            ack.0[34..36].copy_from_slice(&port.to_be_bytes());
            assert_eq!(edge.run(&ack).0, PASS);
        }
        // The other family's listener has noted nothing.
        assert_eq!(edge.run(&ipv6(VISITOR6, EDGE6, 6).segment(SYN, 1, 0, &OPTIONS)).0, PASS);

        // A listener that comes in its place knows nothing of it, whatever the gate remembers.
        edge.listeners.clear();
        edge.listeners = listeners();
        assert_eq!(edge.run(&syn(1)).0, PASS);

        set(Always);
        assert_eq!(edge.run(&syn(1)).0, SEND_BACK);
        set(Never);
        assert_eq!(edge.run(&syn(1)).0, PASS);
    });
}

#[test]
fn a_flood_is_noticed_at_its_threshold_and_at_no_other_entrypoint() {
    in_scratch("a_flood_is_noticed_at_its_threshold_and_at_no_other_entrypoint", |scratch| {
        let auto = SynCookies { mode: SynCookiesMode::Auto, from: 500, cdn: false };
        let mut edge = Edge::new(scratch, auto, Always);
        let syn = ipv4(VISITOR, EDGE, 6).segment(SYN, 1, 0, &OPTIONS);
        let ack = ipv4(VISITOR, EDGE, 6).segment(ACK, 1, 1, &[]);
        assert_eq!(edge.run(&ack).0, PASS);
        for _ in 0..20 {
            assert_eq!(edge.run(&syn).0, PASS);
        }
        let before = edge.status().syn_flood.unwrap();
        assert_eq!((before.active, before.from, before.began_seconds_ago), (false, 500, None));

        // The kernel runs it so often: all of them within a second, on any machine that is not standing still.
        edge.repeat(&syn, 2_000);
        assert_eq!(edge.run(&syn).0, SEND_BACK);
        assert_eq!(edge.run(&ack).0, DROP);
        let now = edge.status();
        assert!(now.syn_flood.unwrap().active);
        assert!(now.challenged.packets >= 1, "{now:?}");

        let elsewhere = ipv4(VISITOR, EDGE, 6).then(&[0x9c, 0x40, 0x1f, 0x90]).then(&syn.0[38..]);
        assert_eq!(edge.run(&elsewhere).0, PASS);
        assert!(!edge.status_of("other").syn_flood.unwrap().active);

        // Another threshold begins anew, and none ends it.
        let mut desired = desired(SynCookies { from: 1_000_000, ..auto });
        edge.kernel.apply(&desired).unwrap();
        assert_eq!(edge.run(&syn).0, PASS);
        desired.guarded[0].syn_cookies = SynCookies::OFF;
        edge.kernel.apply(&desired).unwrap();
        assert_eq!(edge.run(&syn).0, PASS);
        assert_eq!(edge.status().syn_flood, None);
    });
}

#[test]
fn a_cdn_proves_nothing_unless_that_is_asked_for() {
    in_scratch("a_cdn_proves_nothing_unless_that_is_asked_for", |scratch| {
        let mut edge = Edge::new(scratch, ALWAYS, Always);
        let mut desired = desired(ALWAYS);
        desired.guarded[0].lists.push(NamedList {
            name: "cdn".into(),
            cdn: true,
            prefixes: ["203.0.113.128/25", "2001:db8:cd::/48"].map(|prefix| prefix.parse().unwrap()).into(),
        });
        edge.kernel.apply(&desired).unwrap();
        let of_cdn = [ipv4("203.0.113.200", EDGE, 6), ipv6("2001:db8:cd::1", EDGE6, 6)];
        for packet in &of_cdn {
            assert_eq!(edge.run(&packet.clone().segment(SYN, 1, 0, &OPTIONS)).0, PASS);
            assert_eq!(edge.run(&packet.clone().segment(ACK, 1, 1, &[])).0, PASS);
        }
        assert_eq!(edge.run(&ipv4(VISITOR, EDGE, 6).segment(SYN, 1, 0, &OPTIONS)).0, SEND_BACK);

        desired.guarded[0].syn_cookies.cdn = true;
        edge.kernel.apply(&desired).unwrap();
        for packet in of_cdn {
            assert_eq!(edge.run(&packet.clone().segment(SYN, 1, 0, &OPTIONS)).0, SEND_BACK);
            assert_eq!(edge.run(&packet.segment(ACK, 1, 1, &[])).0, DROP);
        }
    });
}

#[test]
fn a_rehearsal_counts_who_would_have_been_answered_and_answers_nobody() {
    in_scratch("a_rehearsal_counts_who_would_have_been_answered_and_answers_nobody", |scratch| {
        let mut edge = Edge::new(scratch, ALWAYS, Always);
        let mut desired = desired(ALWAYS);
        desired.guarded[0].shadow = true;
        edge.kernel.apply(&desired).unwrap();
        let syn = ipv4(VISITOR, EDGE, 6).segment(SYN, 1, 0, &OPTIONS);
        assert_eq!(edge.run(&syn), (PASS, syn.0));
        assert_eq!(edge.run(&ipv4(VISITOR, EDGE, 6).segment(ACK, 1, 1, &[])).0, PASS);
        let https = edge.status();
        assert_eq!((https.would_challenge.packets, https.passed.packets), (1, 2));
        assert_eq!((https.challenged.packets, https.would_drop["bad_cookie"].packets), (0, 0));
    });
}

#[test]
fn at_tc_everything_passes_to_the_listener() {
    in_scratch("at_tc_everything_passes_to_the_listener", |scratch| {
        let mut edge = Edge::new(scratch, ALWAYS, Always);
        let tc: &mut SchedClassifier = edge.programs.program_mut(names::GATE_TC).unwrap().try_into().unwrap();
        tc.load().unwrap();
        for packet in [SYN, ACK].map(|flags| ipv4(VISITOR, EDGE, 6).segment(flags, 1, 1, &OPTIONS)) {
            let run = TestRunOptions { data_in: Some(&packet.0), ..TestRunOptions::default() };
            assert_eq!(tc.test_run(run).unwrap().return_value, u32::MAX);
        }
        assert_eq!(edge.status().passed.packets, 2);
    });
}

#[test]
fn where_everybody_may_come_in_a_connection_is_counted_when_its_cookie_comes_back() {
    in_scratch("where_everybody_may_come_in_a_connection_is_counted_when_its_cookie_comes_back", |scratch| {
        let mut edge = Edge::new(scratch, ALWAYS, Always);
        let mut open = desired(ALWAYS);
        let two_at_once = Rate { count: 1, per: Duration::from_secs(60), burst: 2 };
        for guarded in &mut open.guarded {
            guarded.lists.clear();
            guarded.limit = Some(SourceLimit { packets: None, connections: Some(two_at_once), cdn: false });
        }
        edge.kernel.apply(&open).unwrap();
        for (source, headers) in [(STRANGER, ipv4(STRANGER, EDGE, 6)), (VISITOR6, ipv6(VISITOR6, EDGE6, 6))] {
            // Whoever invents a source spends nothing of what that may.
            let syn = headers.clone().segment(SYN, 0, 0, &OPTIONS);
            let mut cookie = 0;
            for _ in 0..5 {
                let (returned, frame) = edge.run(&syn);
                assert_eq!(returned, SEND_BACK, "{source}");
                cookie = Answer::parse(&frame).unwrap().sequence;
            }
            let ack = headers.clone().segment(ACK, 1, cookie.wrapping_add(1), &[]);
            assert_eq!([0; 3].map(|_| edge.run(&ack).0), [PASS, PASS, DROP], "{source}");
        }
        let https = edge.status();
        assert_eq!((https.challenged.packets, https.passed.packets), (10, 4));
        assert_eq!(https.dropped["connection_rate"].packets, 2);
    });
}

#[test]
fn who_is_blocked_gets_no_answer() {
    in_scratch("who_is_blocked_gets_no_answer", |scratch| {
        let mut edge = Edge::new(scratch, ALWAYS, Always);
        let prefix = format!("{VISITOR}/32").parse().unwrap();
        edge.kernel.block(&[BlockedPrefix { prefix, until: u64::MAX, until_cdn: 0 }]).unwrap();
        assert_eq!(edge.run(&ipv4(VISITOR, EDGE, 6).segment(SYN, 1, 0, &OPTIONS)).0, DROP);
        assert_eq!(edge.run(&ipv4("192.0.2.11", EDGE, 6).segment(SYN, 1, 0, &OPTIONS)).0, SEND_BACK);
        let https = edge.status();
        assert_eq!((https.dropped["blocked"].packets, https.challenged.packets), (1, 1));
    });
}

#[test]
fn without_the_program_that_proves_handshakes_the_gate_guards_all_the_same() {
    in_scratch("without_the_program_that_proves_handshakes_the_gate_guards_all_the_same", |scratch| {
        let mut edge = Edge::new(scratch, ALWAYS, Always);
        let steps = edge.programs.map_mut(names::GATE_STEPS).unwrap();
        ProgramArray::try_from(steps).unwrap().clear_index(&0).unwrap();
        for (source, wanted) in [(VISITOR, PASS), (STRANGER, DROP)] {
            assert_eq!(edge.run(&ipv4(source, EDGE, 6).segment(SYN, 1, 0, &OPTIONS)).0, wanted);
        }
        assert_eq!(edge.status().passed.packets, 1);
    });
}

#[test]
fn where_listeners_take_no_cookies_the_gate_says_so_and_sends_none() {
    in_scratch("where_listeners_take_no_cookies_the_gate_says_so_and_sends_none", |scratch| {
        let mut edge = Edge::new(scratch, ALWAYS, Never);
        let applied = edge.kernel.apply(&desired(ALWAYS)).unwrap();
        let why = applied.no_syn_cookies.unwrap();
        assert!(why.contains("net.ipv4.tcp_syncookies is 0") && why.contains("sysctl -w"), "{why}");
        assert_eq!(edge.run(&ipv4(VISITOR, EDGE, 6).segment(SYN, 1, 0, &OPTIONS)).0, PASS);
        // What isn't proved is not checked either.
        assert_eq!(edge.run(&ipv4(VISITOR, EDGE, 6).segment(ACK, 1, 1, &[])).0, PASS);
        assert!(edge.status().syn_flood.unwrap().off);

        assert_eq!(edge.kernel.apply(&desired(SynCookies::OFF)).unwrap().no_syn_cookies, None);
        set(AfterOverflow);
        assert_eq!(edge.kernel.apply(&desired(ALWAYS)).unwrap().no_syn_cookies, None);
    });
}

/// What `net.ipv4.tcp_syncookies` says: when listeners take cookies.
#[derive(Clone, Copy)]
enum Setting {
    Never = 0,
    AfterOverflow = 1,
    Always = 2,
}

use Setting::{AfterOverflow, Always, Never};

/// In the namespace of this thread.
fn set(setting: Setting) {
    std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", (setting as u8).to_string()).unwrap();
}

/// The gate with listeners behind it.
struct Edge {
    listeners: Vec<TcpListener>,
    programs: Ebpf,
    kernel: Kernel,
}

impl Edge {
    fn new(scratch: &Scratch, syn_cookies: SynCookies, setting: Setting) -> Self {
        set(setting);
        let mut kernel = Kernel::open(&scratch.bpffs).unwrap();
        kernel.apply(&desired(syn_cookies)).unwrap();
        let mut programs = programs_over(&scratch.bpffs);
        let xdp: &mut Xdp = programs.program_mut(names::GATE_XDP).unwrap().try_into().unwrap();
        xdp.load().unwrap();
        Self { listeners: listeners(), programs, kernel }
    }

    /// What the program returns, and the frame that it leaves.
    fn run(&mut self, packet: &Packet) -> (u32, Vec<u8>) {
        let xdp: &mut Xdp = self.programs.program_mut(names::GATE_XDP).unwrap().try_into().unwrap();
        let mut after = vec![0; packet.0.len() + 64];
        let ran = xdp
            .test_run(TestRunOptions {
                data_in: Some(&packet.0),
                data_out: Some(&mut after),
                ..TestRunOptions::default()
            })
            .unwrap();
        after.truncate(ran.data_size_out as usize);
        (ran.return_value, after)
    }

    fn repeat(&mut self, packet: &Packet, times: u32) {
        let xdp: &mut Xdp = self.programs.program_mut(names::GATE_XDP).unwrap().try_into().unwrap();
        let run = TestRunOptions { data_in: Some(&packet.0), repeat: times, ..TestRunOptions::default() };
        xdp.test_run(run).unwrap();
    }

    fn status(&self) -> EntrypointStatus {
        self.status_of("https")
    }

    fn status_of(&self, name: &str) -> EntrypointStatus {
        let status = self.kernel.status().unwrap();
        status.entrypoints.into_iter().find(|entrypoint| entrypoint.name == name).unwrap()
    }
}

/// One for each family, as the daemon binds them.
fn listeners() -> Vec<TcpListener> {
    let any = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
    let listener = |address: IpAddr| {
        let to = SocketAddr::new(address, PORT);
        let socket =
            socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None).unwrap();
        if address.is_ipv6() {
            socket.set_only_v6(true).unwrap();
        }
        socket.set_reuse_address(true).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&to.into()).unwrap();
        socket.listen(128).unwrap();
        socket.into()
    };
    any.map(listener).into()
}

fn desired(syn_cookies: SynCookies) -> Desired {
    let everybody_sane = ["192.0.2.0/24", "2001:db8:c1::/48"];
    // And whom no answer must be sent to.
    let strange = ["0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::/64", "ff00::/8", "203.0.113.1/32"];
    let prefixes = everybody_sane.iter().chain(&strange).map(|prefix| prefix.parse().unwrap()).collect();
    let lists = vec![NamedList { name: "visitors".into(), cdn: false, prefixes }];
    let guarded = |entrypoint: &str, port: u16| Guarded {
        entrypoint: entrypoint.into(),
        bind: vec![format!("{EDGE}:{port}").parse().unwrap(), format!("[{EDGE6}]:{port}").parse().unwrap()],
        protocols: vec![Protocol::Tcp, Protocol::Udp],
        lists: lists.clone(),
        shadow: false,
        limit: None,
        syn_cookies,
    };
    Desired {
        generation: 1,
        interfaces: Vec::new(),
        mode: KernelMode::Auto,
        log: false,
        guarded: vec![guarded("https", PORT), guarded("other", 8080)],
    }
}

impl Packet {
    /// A TCP segment with options.
    fn segment(self, flags: u8, sequence: u32, acknowledgement: u32, options: &[u8]) -> Self {
        let words = (5 + options.len() / 4) as u8;
        self.then(&40_000_u16.to_be_bytes())
            .then(&PORT.to_be_bytes())
            .then(&sequence.to_be_bytes())
            .then(&acknowledgement.to_be_bytes())
            .then(&[words << 4, flags, 0xfa, 0xf0, 0, 0, 0, 0])
            .then(options)
    }

    /// What is between the addresses of stations and the IP header.
    fn tags(&self) -> &[u8] {
        let ip = self.0.iter().position(|byte| matches!(byte, 0x45..=0x4f | 0x60)).unwrap();
        &self.0[12..ip]
    }
}
