//! Every kind of packet, and its verdict. `docs/gate.md` shows this table to operators.

use proxy_common::verdict::DropReason::{
    self, Blocked, ConnectionRate, ExtensionHeaders, Malformed, NotListed, PacketRate, SplitHeader,
    Truncated, VlanTags,
};

use crate::packet::{Packet, TCP, UDP, ethernet, ipv4, ipv6};

/// TCP is guarded at port 443 of these, UDP at port 4433.
pub const EDGE: &str = "203.0.113.1";
pub const EDGE6: &str = "2001:db8:ed9e::1";
pub const TCP_PORT: u16 = 443;
pub const UDP_PORT: u16 = 4433;
/// Not guarded.
const OTHER: &str = "203.0.113.2";
const OTHER6: &str = "2001:db8:ed9e::2";
pub const LISTED: &str = "192.0.2.10";
pub const LISTED6: &str = "2001:db8:c1::10";
pub const STRANGER: &str = "198.51.100.10";
pub const STRANGER6: &str = "2001:db8:bad::10";

/// TCP is guarded there too, for the CDN beside the visitors, with limits of 3 packets or 2 connections a minute, all
/// at once; and with those limits for the CDN's addresses too.
pub const PACKETS_PORT: u16 = 8001;
pub const CONNECTIONS_PORT: u16 = 8002;
pub const PACKETS_CDN_PORT: u16 = 8003;
pub const CONNECTIONS_CDN_PORT: u16 = 8004;
/// Connections are limited there for whoever comes, and nobody has to be listed.
pub const OPEN: &str = "203.0.113.3";
pub const OPEN6: &str = "2001:db8:ed9e::3";
pub const OPEN_PORT: u16 = 8080;
/// On the CDN's list.
pub const CDN: &str = "100.64.0.10";
const CDN6: &str = "2001:db8:cd::10";
/// All listed, and blocked: as it says.
pub const BLOCKED: &str = "192.0.2.66/32";
pub const BLOCKED6: &str = "2001:db8:c1:66::/64";
/// Blocked, and the end is past.
pub const BLOCKED_ONCE: &str = "192.0.2.67/32";
/// The CDN has one of the addresses in it.
pub const BLOCKED_AROUND_CDN: &str = "100.64.0.0/16";
/// And this one is meant for the CDN's addresses.
pub const BLOCKED_CDN: &str = "100.64.0.77/32";

const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;
const RST: u8 = 0x04;
const VLAN: u16 = 0x8100;
const PROVIDER_VLAN: u16 = 0x88a8;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const MORE_FRAGMENTS: u16 = 0x2000;
const DO_NOT_FRAGMENT: u16 = 0x4000;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ESP: u8 = 50;
const AUTHENTICATION: u8 = 51;
const ICMPV6: u8 = 58;
const NOTHING: u8 = 59;
const OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Passed, and counted nowhere: none of the gate's business.
    Untouched,
    /// Passed, and counted for its entrypoint.
    Admitted,
    /// Dropped, and counted for its entrypoint.
    Dropped(DropReason),
    /// Dropped, and counted under no entrypoint: the port can't be read.
    DroppedForAddress(DropReason),
}

use Verdict::{Admitted, Dropped, DroppedForAddress, Untouched};

pub struct Case {
    pub name: &'static str,
    /// What came right before it, from sources that nothing was heard of.
    pub before: Vec<Packet>,
    pub packet: Packet,
    pub verdict: Verdict,
}

pub struct Group {
    pub title: &'static str,
    pub cases: Vec<Case>,
}

pub fn table() -> Vec<Group> {
    vec![
        group("Plain", plain()),
        group("Not guarded", not_guarded()),
        group("Control messages", control_messages()),
        group("Strange addresses", strange_addresses()),
        group("VLAN tags and other Ethernet types", ethernet_types()),
        group("IPv4 options", ipv4_options()),
        group("IPv6 extension headers", ipv6_extensions()),
        group("IPv4 fragments", ipv4_fragments()),
        group("IPv6 fragments", ipv6_fragments()),
        group("Cut short", cut_short()),
        group("Lengths that lie", lengths_that_lie()),
        group("Blocked sources", blocked()),
        group("An entrypoint without allowlists", open()),
        after("At most 3 packets of a source at once", packet_rates()),
        after("At most 2 new connections of a source at once", connection_rates()),
    ]
}

fn after(title: &'static str, cases: Vec<(&'static str, Vec<Packet>, Packet, Verdict)>) -> Group {
    let cases = cases.into_iter();
    let cases = cases.map(|(name, before, packet, verdict)| Case { name, before, packet, verdict });
    Group { title, cases: cases.collect() }
}

fn group(title: &'static str, cases: Vec<(&'static str, Packet, Verdict)>) -> Group {
    let cases =
        cases.into_iter().map(|(name, packet, verdict)| Case { name, before: Vec::new(), packet, verdict });
    Group { title, cases: cases.collect() }
}

type Cases = Vec<(&'static str, Packet, Verdict)>;

fn tcp4(source: &str, port: u16) -> Packet {
    ipv4(source, EDGE, TCP).tcp(port, SYN)
}

fn tcp6(source: &str, port: u16) -> Packet {
    ipv6(source, EDGE6, TCP).tcp(port, SYN)
}

fn plain() -> Cases {
    vec![
        ("IPv4 TCP, source listed", tcp4(LISTED, TCP_PORT), Admitted),
        ("IPv4 TCP, source not listed", tcp4(STRANGER, TCP_PORT), Dropped(NotListed)),
        ("IPv6 TCP, source listed", tcp6(LISTED6, TCP_PORT), Admitted),
        ("IPv6 TCP, source not listed", tcp6(STRANGER6, TCP_PORT), Dropped(NotListed)),
        ("IPv4 UDP, source listed", ipv4(LISTED, EDGE, UDP).udp(UDP_PORT), Admitted),
        ("IPv4 UDP, source not listed", ipv4(STRANGER, EDGE, UDP).udp(UDP_PORT), Dropped(NotListed)),
        ("IPv6 UDP, source listed", ipv6(LISTED6, EDGE6, UDP).udp(UDP_PORT), Admitted),
        ("IPv6 UDP, source not listed", ipv6(STRANGER6, EDGE6, UDP).udp(UDP_PORT), Dropped(NotListed)),
        (
            "IPv4 TCP in the middle of a connection, source not listed",
            ipv4(STRANGER, EDGE, TCP).tcp(TCP_PORT, ACK),
            Dropped(NotListed),
        ),
        (
            "IPv4 TCP in the middle of a connection, source listed",
            ipv4(LISTED, EDGE, TCP).tcp(TCP_PORT, ACK),
            Admitted,
        ),
        (
            "IPv4 TCP reset, source not listed",
            ipv4(STRANGER, EDGE, TCP).tcp(TCP_PORT, RST),
            Dropped(NotListed),
        ),
        (
            "IPv4 TCP without any flag, source not listed",
            ipv4(STRANGER, EDGE, TCP).tcp(TCP_PORT, 0),
            Dropped(NotListed),
        ),
        (
            "IPv4 TCP, source listed, padded to Ethernet's least",
            tcp4(LISTED, TCP_PORT).padded(&[0; 6]),
            Admitted,
        ),
        (
            "IPv4 TCP with \"don't fragment\", source listed",
            ethernet(IPV4).ipv4(LISTED, EDGE, TCP, &[], DO_NOT_FRAGMENT).tcp(TCP_PORT, SYN),
            Admitted,
        ),
        (
            "IPv4 TCP from the guarded port to the guarded port, source not listed",
            ipv4(STRANGER, EDGE, TCP).then(&[0x01, 0xbb, 0x01, 0xbb]).then(&[0; 16]),
            Dropped(NotListed),
        ),
    ]
}

fn not_guarded() -> Cases {
    let from_443 = |packet: Packet| packet.then(&[0x01, 0xbb, 0xc7, 0x38]).then(&[0; 16]);
    vec![
        ("IPv4 TCP to SSH", tcp4(STRANGER, 22), Untouched),
        ("IPv6 TCP to SSH", tcp6(STRANGER6, 22), Untouched),
        ("IPv4 TCP to port 0", tcp4(STRANGER, 0), Untouched),
        ("IPv4 TCP to the port beside the guarded one", tcp4(STRANGER, TCP_PORT + 1), Untouched),
        ("IPv4 TCP to another address", ipv4(STRANGER, OTHER, TCP).tcp(TCP_PORT, SYN), Untouched),
        ("IPv6 TCP to another address", ipv6(STRANGER6, OTHER6, TCP).tcp(TCP_PORT, SYN), Untouched),
        ("IPv4 UDP to a port that is guarded for TCP", ipv4(STRANGER, EDGE, UDP).udp(TCP_PORT), Untouched),
        ("IPv6 UDP to a port that is guarded for TCP", ipv6(STRANGER6, EDGE6, UDP).udp(TCP_PORT), Untouched),
        ("IPv4 TCP to a port that is guarded for UDP", tcp4(STRANGER, UDP_PORT), Untouched),
        (
            "IPv4 answer to the host's own connection to somebody's port 443",
            from_443(ipv4(STRANGER, EDGE, TCP)),
            Untouched,
        ),
        (
            "IPv6 answer to the host's own connection to somebody's port 443",
            from_443(ipv6(STRANGER6, EDGE6, TCP)),
            Untouched,
        ),
        (
            "IPv4 answer of a name server",
            ipv4(STRANGER, EDGE, UDP).then(&[0, 53, 0xc7, 0x38, 0, 8, 0, 0]),
            Untouched,
        ),
        ("IPv4 SCTP", ipv4(STRANGER, EDGE, 132).tcp(TCP_PORT, 0), Untouched),
        ("IPv4 UDP-Lite", ipv4(STRANGER, EDGE, 136).udp(UDP_PORT), Untouched),
        ("IPv4 DCCP", ipv4(STRANGER, EDGE, 33).tcp(TCP_PORT, 0), Untouched),
        ("IPv4 GRE", ipv4(STRANGER, EDGE, 47).then(&[0; 24]), Untouched),
        ("IPv4 ESP", ipv4(STRANGER, EDGE, ESP).then(&[0; 24]), Untouched),
        (
            "IPv4 authentication header",
            ipv4(STRANGER, EDGE, AUTHENTICATION).authentication(TCP, 6).tcp(TCP_PORT, SYN),
            Untouched,
        ),
        ("IPv4 in IPv4", ipv4(STRANGER, EDGE, 4).then(&tcp4(STRANGER, TCP_PORT).0[14..]), Untouched),
        ("IPv6 in IPv4", ipv4(STRANGER, EDGE, 41).then(&tcp6(STRANGER6, TCP_PORT).0[14..]), Untouched),
        ("IPv6 ESP", ipv6(STRANGER6, EDGE6, ESP).then(&[0; 24]), Untouched),
        ("IPv6 SCTP", ipv6(STRANGER6, EDGE6, 132).tcp(TCP_PORT, 0), Untouched),
        ("VRRP", ipv4(STRANGER, "224.0.0.18", 112).then(&[0; 20]), Untouched),
        ("OSPF", ipv4(STRANGER, "224.0.0.5", 89).then(&[0; 24]), Untouched),
        ("DHCP", ipv4("0.0.0.0", "255.255.255.255", UDP).then(&[0, 67, 0, 68, 0, 8, 0, 0]), Untouched),
    ]
}

fn control_messages() -> Cases {
    // What the host sent, as an error message carries it: from the guarded port to the stranger.
    let sent4 = ipv4(EDGE, STRANGER, TCP).then(&[0x01, 0xbb, 0x9c, 0x40, 0, 0, 0, 1]);
    let sent6 = ipv6(EDGE6, STRANGER6, TCP).then(&[0x01, 0xbb, 0x9c, 0x40, 0, 0, 0, 1]);
    // What the stranger sent, as if the host's own port had been the source.
    let received4 = tcp4(STRANGER, TCP_PORT);
    let icmp = |kind: u8, code: u8| ipv4(STRANGER, EDGE, 1).then(&[kind, code, 0, 0, 0, 0, 0x05, 0x00]);
    let icmp6 = |kind: u8| ipv6(STRANGER6, EDGE6, ICMPV6).then(&[kind, 0, 0, 0, 0, 0, 0x05, 0x00]);
    vec![
        ("ARP", ethernet(0x0806).then(&[0; 28]), Untouched),
        ("ICMP echo", icmp(8, 0), Untouched),
        (
            "ICMP \"fragmentation needed\" about a guarded connection",
            icmp(3, 4).then(&sent4.0[14..]),
            Untouched,
        ),
        ("ICMP \"port unreachable\" about a guarded connection", icmp(3, 3).then(&sent4.0[14..]), Untouched),
        (
            "ICMP \"time exceeded\" that carries a stranger's packet",
            icmp(11, 0).then(&received4.0[14..]),
            Untouched,
        ),
        ("IGMP", ipv4(STRANGER, "224.0.0.1", 2).then(&[0x11, 0, 0, 0, 0, 0, 0, 0]), Untouched),
        ("ICMPv6 echo", icmp6(128), Untouched),
        ("ICMPv6 \"packet too big\" about a guarded connection", icmp6(2).then(&sent6.0[14..]), Untouched),
        ("ICMPv6 \"unreachable\" about a guarded connection", icmp6(1).then(&sent6.0[14..]), Untouched),
        (
            "ICMPv6 router advertisement",
            ipv6("fe80::1", "ff02::1", ICMPV6).then(&[134, 0, 0, 0, 64, 0, 0, 0]),
            Untouched,
        ),
        ("ICMPv6 neighbour solicitation", icmp6(135).then(&[0; 16]), Untouched),
        ("ICMPv6 neighbour advertisement", icmp6(136).then(&[0; 16]), Untouched),
        (
            "multicast listener report behind a hop-by-hop header",
            ipv6("fe80::1", "ff02::16", HOP_BY_HOP).extension(ICMPV6, 1).then(&[143, 0, 0, 0, 0, 0, 0, 0]),
            Untouched,
        ),
    ]
}

fn strange_addresses() -> Cases {
    let mapped = "::ffff:203.0.113.1";
    vec![
        ("IPv4 to everybody", ipv4(STRANGER, "255.255.255.255", TCP).tcp(TCP_PORT, SYN), Untouched),
        (
            "IPv4 to a subnet's broadcast address",
            ipv4(STRANGER, "203.0.113.255", UDP).udp(UDP_PORT),
            Untouched,
        ),
        ("IPv4 to a multicast group", ipv4(STRANGER, "224.0.0.251", UDP).udp(UDP_PORT), Untouched),
        ("IPv6 to a multicast group", ipv6(STRANGER6, "ff02::1", UDP).udp(UDP_PORT), Untouched),
        ("IPv4 to the loopback address", ipv4(STRANGER, "127.0.0.1", TCP).tcp(TCP_PORT, SYN), Untouched),
        ("IPv4 to 0.0.0.0", ipv4(STRANGER, "0.0.0.0", TCP).tcp(TCP_PORT, SYN), Untouched),
        ("IPv4 from the host's own address", tcp4(EDGE, TCP_PORT), Dropped(NotListed)),
        ("IPv4 from the loopback address", tcp4("127.0.0.1", TCP_PORT), Dropped(NotListed)),
        ("IPv4 from 0.0.0.0", tcp4("0.0.0.0", TCP_PORT), Dropped(NotListed)),
        ("IPv4 from a multicast group", tcp4("224.0.0.1", TCP_PORT), Dropped(NotListed)),
        ("IPv6 from the host's own address", tcp6(EDGE6, TCP_PORT), Dropped(NotListed)),
        ("IPv6 from the loopback address", tcp6("::1", TCP_PORT), Dropped(NotListed)),
        ("IPv6 from ::", tcp6("::", TCP_PORT), Dropped(NotListed)),
        ("IPv6 from a link-local address", tcp6("fe80::1", TCP_PORT), Dropped(NotListed)),
        (
            "IPv6 from a listed IPv4 address in IPv6 form: no host sends that",
            tcp6("::ffff:192.0.2.10", TCP_PORT),
            Dropped(NotListed),
        ),
        (
            "IPv6 to a guarded IPv4 address in IPv6 form: no host sends that",
            ipv6(STRANGER6, mapped, TCP).tcp(TCP_PORT, SYN),
            Dropped(NotListed),
        ),
        ("the first address of a listed prefix", tcp4("192.0.2.0", TCP_PORT), Admitted),
        ("the last address of a listed prefix", tcp4("192.0.2.255", TCP_PORT), Admitted),
        ("the address before a listed prefix", tcp4("192.0.1.255", TCP_PORT), Dropped(NotListed)),
        ("the address behind a listed prefix", tcp4("192.0.3.0", TCP_PORT), Dropped(NotListed)),
        (
            "the last address of a listed IPv6 prefix",
            tcp6("2001:db8:c1:ffff:ffff:ffff:ffff:ffff", TCP_PORT),
            Admitted,
        ),
        ("the address behind a listed IPv6 prefix", tcp6("2001:db8:c2::", TCP_PORT), Dropped(NotListed)),
    ]
}

fn blocked() -> Cases {
    let from4 = |source, flags| ipv4(source, EDGE, TCP).tcp(PACKETS_CDN_PORT, flags);
    vec![
        ("IPv4 TCP SYN of a blocked source that is listed", tcp4("192.0.2.66", TCP_PORT), Dropped(Blocked)),
        (
            "IPv4 TCP in the middle of a connection, source blocked",
            ipv4("192.0.2.66", EDGE, TCP).tcp(TCP_PORT, ACK),
            Dropped(Blocked),
        ),
        ("IPv4 UDP, source blocked", ipv4("192.0.2.66", EDGE, UDP).udp(UDP_PORT), Dropped(Blocked)),
        (
            "first IPv4 fragment, source blocked",
            ethernet(IPV4).ipv4("192.0.2.66", EDGE, TCP, &[], MORE_FRAGMENTS).tcp(TCP_PORT, SYN),
            Dropped(Blocked),
        ),
        ("IPv4 TCP to SSH, source blocked", tcp4("192.0.2.66", 22), Untouched),
        ("the address beside a blocked one", tcp4("192.0.2.65", TCP_PORT), Admitted),
        ("IPv4 TCP, a block of whose source has ended", tcp4("192.0.2.67", TCP_PORT), Admitted),
        ("IPv6 TCP, first address of a blocked /64", tcp6("2001:db8:c1:66::", TCP_PORT), Dropped(Blocked)),
        (
            "IPv6 TCP, last address of a blocked /64",
            tcp6("2001:db8:c1:66:ffff:ffff:ffff:ffff", TCP_PORT),
            Dropped(Blocked),
        ),
        ("IPv6 TCP, the address behind a blocked /64", tcp6("2001:db8:c1:67::", TCP_PORT), Admitted),
        (
            "IPv4 TCP of a stranger is not listed, blocked or not",
            tcp4("100.64.9.9", TCP_PORT),
            Dropped(NotListed),
        ),
        ("IPv4 TCP of a CDN's address within a block", from4(CDN, SYN), Admitted),
        (
            "IPv4 TCP of a CDN's address, whose block is meant for CDNs too",
            from4("100.64.0.77", SYN),
            Dropped(Blocked),
        ),
    ]
}

fn open() -> Cases {
    let tcp = |source, flags| ipv4(source, OPEN, TCP).tcp(OPEN_PORT, flags);
    vec![
        ("IPv4 TCP, whoever it is", tcp(STRANGER, SYN), Admitted),
        ("IPv6 TCP, whoever it is", ipv6(STRANGER6, OPEN6, TCP).tcp(OPEN_PORT, SYN), Admitted),
        ("IPv4 TCP of a blocked source", tcp("192.0.2.66", SYN), Dropped(Blocked)),
        (
            "IPv6 TCP of a blocked source",
            ipv6("2001:db8:c1:66::1", OPEN6, TCP).tcp(OPEN_PORT, SYN),
            Dropped(Blocked),
        ),
        ("IPv4 TCP to another port of that address", ipv4(STRANGER, OPEN, TCP).tcp(22, SYN), Untouched),
        // Nobody has to be listed: there is nothing to hide.
        ("IPv4 TCP whose port can't be read", ipv4(STRANGER, OPEN, TCP).then(&[0x9c, 0x40]), Untouched),
        (
            "IPv4 TCP of a blocked source, whose port can't be read",
            ipv4("192.0.2.66", OPEN, TCP).then(&[0x9c]),
            Untouched,
        ),
        (
            "IPv6 with more extension headers than are walked",
            (0..9)
                .fold(ipv6(STRANGER6, OPEN6, OPTIONS), |packet, _| packet.extension(OPTIONS, 1))
                .extension(TCP, 1)
                .tcp(OPEN_PORT, SYN),
            Untouched,
        ),
        ("later IPv4 fragment", ethernet(IPV4).ipv4(STRANGER, OPEN, TCP, &[], 100).then(&[0; 64]), Untouched),
    ]
}

type CasesAfter = Vec<(&'static str, Vec<Packet>, Packet, Verdict)>;

fn packet_rates() -> CasesAfter {
    let tcp = |source, flags| ipv4(source, EDGE, TCP).tcp(PACKETS_PORT, flags);
    let tcp_v6 = |source| ipv6(source, EDGE6, TCP).tcp(PACKETS_PORT, ACK);
    let fragment = |more| {
        ethernet(IPV4)
            .ipv4(LISTED, EDGE, TCP, &[], if more { MORE_FRAGMENTS } else { 100 })
            .tcp(PACKETS_PORT, ACK)
    };
    let times = |count: usize, packet: &Packet| vec![packet.clone(); count];
    let three = times(3, &tcp(LISTED, ACK));
    vec![
        ("IPv4, the 3rd at once", times(2, &tcp(LISTED, ACK)), tcp(LISTED, ACK), Admitted),
        ("IPv4, the 4th at once", three.clone(), tcp(LISTED, ACK), Dropped(PacketRate)),
        ("IPv4, the 4th is a SYN", three.clone(), tcp(LISTED, SYN), Dropped(PacketRate)),
        ("IPv4, the 4th is a SYN with ACK", three.clone(), tcp(LISTED, SYN_ACK), Dropped(PacketRate)),
        ("IPv4, the 1st of the address beside", three.clone(), tcp("192.0.2.11", ACK), Admitted),
        ("IPv4, the 4th, to an entrypoint without limits", three.clone(), tcp4(LISTED, TCP_PORT), Admitted),
        ("IPv4, the 4th, of a stranger", three.clone(), tcp(STRANGER, ACK), Dropped(NotListed)),
        ("IPv4, the 4th is a first fragment", three.clone(), fragment(true), Dropped(PacketRate)),
        ("IPv4, the 4th is a later fragment: it has no port", three, fragment(false), Untouched),
        (
            "IPv4, after three first fragments",
            times(3, &fragment(true)),
            tcp(LISTED, ACK),
            Dropped(PacketRate),
        ),
        ("IPv4, after three later fragments", times(3, &fragment(false)), tcp(LISTED, ACK), Admitted),
        (
            "IPv6, the 4th of a /64, each of another address",
            vec![tcp_v6("2001:db8:c1::1"), tcp_v6("2001:db8:c1::2"), tcp_v6("2001:db8:c1:0:ffff::3")],
            tcp_v6("2001:db8:c1::4"),
            Dropped(PacketRate),
        ),
        (
            "IPv6, the 1st of the /64 beside",
            times(3, &tcp_v6("2001:db8:c1::1")),
            tcp_v6("2001:db8:c1:1::1"),
            Admitted,
        ),
        ("IPv4 of a CDN's address, the 4th", times(3, &tcp(CDN, ACK)), tcp(CDN, ACK), Admitted),
        ("IPv6 of a CDN's address, the 4th", times(3, &tcp_v6(CDN6)), tcp_v6(CDN6), Admitted),
        (
            "IPv4 of a CDN's address, the 4th, where the limit is meant for CDNs too",
            times(3, &ipv4(CDN, EDGE, TCP).tcp(PACKETS_CDN_PORT, ACK)),
            ipv4(CDN, EDGE, TCP).tcp(PACKETS_CDN_PORT, ACK),
            Dropped(PacketRate),
        ),
    ]
}

fn connection_rates() -> CasesAfter {
    let tcp = |source, flags| ipv4(source, EDGE, TCP).tcp(CONNECTIONS_PORT, flags);
    let tcp_v6 = |source, flags| ipv6(source, EDGE6, TCP).tcp(CONNECTIONS_PORT, flags);
    let of_cdn = || ipv4(CDN, EDGE, TCP).tcp(CONNECTIONS_CDN_PORT, SYN);
    let to_open = |source| ipv4(source, OPEN, TCP).tcp(OPEN_PORT, SYN);
    let times = |count: usize, packet: &Packet| vec![packet.clone(); count];
    let two = times(2, &tcp(LISTED, SYN));
    vec![
        ("IPv4, the 2nd SYN at once", times(1, &tcp(LISTED, SYN)), tcp(LISTED, SYN), Admitted),
        ("IPv4, the 3rd SYN at once", two.clone(), tcp(LISTED, SYN), Dropped(ConnectionRate)),
        ("IPv4, a packet of a connection after two SYNs", two.clone(), tcp(LISTED, ACK), Admitted),
        ("IPv4, SYN with ACK after two SYNs: it opens none", two.clone(), tcp(LISTED, SYN_ACK), Admitted),
        ("IPv4, a reset after two SYNs", two.clone(), tcp(LISTED, RST), Admitted),
        ("IPv4, a SYN after many ACKs", times(20, &tcp(LISTED, ACK)), tcp(LISTED, SYN), Admitted),
        ("IPv4, a SYN of the address beside", two.clone(), tcp("192.0.2.11", SYN), Admitted),
        (
            "IPv4, the 3rd SYN is a first fragment",
            two.clone(),
            ethernet(IPV4).ipv4(LISTED, EDGE, TCP, &[], MORE_FRAGMENTS).tcp(CONNECTIONS_PORT, SYN),
            Dropped(ConnectionRate),
        ),
        (
            "IPv4, a first fragment that ends before its flags counts as a SYN",
            two,
            ethernet(IPV4)
                .ipv4(LISTED, EDGE, TCP, &[], MORE_FRAGMENTS)
                .then(&[0x9c, 0x40, 0x1f, 0x42, 0, 0, 0, 1]),
            Dropped(ConnectionRate),
        ),
        (
            "IPv6, the 3rd SYN of a /64, each of another address",
            vec![tcp_v6("2001:db8:c1::1", SYN), tcp_v6("2001:db8:c1::2", SYN)],
            tcp_v6("2001:db8:c1:0:1::", SYN),
            Dropped(ConnectionRate),
        ),
        (
            "IPv6, a SYN of the /64 beside",
            times(2, &tcp_v6("2001:db8:c1::1", SYN)),
            tcp_v6("2001:db8:c1:1::1", SYN),
            Admitted,
        ),
        ("IPv4 of a CDN's address, the 3rd SYN", times(2, &tcp(CDN, SYN)), tcp(CDN, SYN), Admitted),
        (
            "IPv4 of a CDN's address, the 3rd SYN, where the limit is meant for CDNs too",
            times(2, &of_cdn()),
            of_cdn(),
            Dropped(ConnectionRate),
        ),
        (
            "IPv4, the 3rd SYN to an entrypoint without allowlists",
            times(2, &to_open(STRANGER)),
            to_open(STRANGER),
            Dropped(ConnectionRate),
        ),
    ]
}

fn ethernet_types() -> Cases {
    let tagged = |tags: &[(u16, u16)], source: &str| {
        let types = tags.iter().skip(1).map(|(kind, _)| *kind).chain([IPV4]);
        let packet = tags
            .iter()
            .zip(types)
            .fold(ethernet(tags[0].0), |packet, ((_, number), next)| packet.tag(*number, next));
        packet.ipv4(source, EDGE, TCP, &[], 0).tcp(TCP_PORT, SYN)
    };
    vec![
        ("one tag, source listed", tagged(&[(VLAN, 100)], LISTED), Admitted),
        ("one tag, source not listed", tagged(&[(VLAN, 100)], STRANGER), Dropped(NotListed)),
        (
            "one tag, IPv6, source not listed",
            ethernet(VLAN).vlan(IPV6).ipv6(STRANGER6, EDGE6, TCP).tcp(TCP_PORT, SYN),
            Dropped(NotListed),
        ),
        ("one 802.1ad tag, source not listed", tagged(&[(PROVIDER_VLAN, 100)], STRANGER), Dropped(NotListed)),
        (
            "one tag with a priority and no VLAN, source not listed",
            tagged(&[(VLAN, 0xe000)], STRANGER),
            Dropped(NotListed),
        ),
        ("802.1ad and 802.1Q, source listed", tagged(&[(PROVIDER_VLAN, 7), (VLAN, 100)], LISTED), Admitted),
        (
            "802.1ad and 802.1Q, source not listed",
            tagged(&[(PROVIDER_VLAN, 7), (VLAN, 100)], STRANGER),
            Dropped(NotListed),
        ),
        (
            "two tags with a priority and no VLAN, source not listed",
            tagged(&[(VLAN, 0), (VLAN, 0)], STRANGER),
            Dropped(NotListed),
        ),
        (
            "three tags that each name a VLAN",
            tagged(&[(PROVIDER_VLAN, 5), (VLAN, 6), (VLAN, 7)], STRANGER),
            Untouched,
        ),
        (
            "three tags that name no VLAN",
            tagged(&[(VLAN, 0), (VLAN, 0), (VLAN, 0)], LISTED),
            DroppedForAddress(VlanTags),
        ),
        (
            "three tags, the last names no VLAN",
            tagged(&[(VLAN, 5), (VLAN, 6), (VLAN, 0)], STRANGER),
            DroppedForAddress(VlanTags),
        ),
        (
            "five tags, the first names no VLAN",
            tagged(&[(VLAN, 0), (VLAN, 5), (VLAN, 6), (VLAN, 7), (VLAN, 8)], STRANGER),
            DroppedForAddress(VlanTags),
        ),
        ("one tag, ARP behind it", ethernet(VLAN).vlan(0x0806).then(&[0; 28]), Untouched),
        ("a tag cut short", ethernet(VLAN).then(&[0]), Untouched),
        (
            "the older tag type 0x9100",
            ethernet(0x9100).vlan(IPV4).ipv4(STRANGER, EDGE, TCP, &[], 0).tcp(TCP_PORT, SYN),
            Untouched,
        ),
        (
            "IPv4 behind LLC and SNAP",
            ethernet(0x0030).then(&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0]).padded(&tcp4(STRANGER, TCP_PORT).0[14..]),
            Untouched,
        ),
        (
            "IPv4 behind an MPLS label",
            ethernet(0x8847).then(&[0, 0, 0x01, 64]).padded(&tcp4(STRANGER, TCP_PORT).0[14..]),
            Untouched,
        ),
        (
            "IPv4 in PPPoE",
            ethernet(0x8864).then(&[0x11, 0, 0, 1, 0, 42, 0, 0x21]).padded(&tcp4(STRANGER, TCP_PORT).0[14..]),
            Untouched,
        ),
        ("LLDP", ethernet(0x88cc).then(&[0; 28]), Untouched),
        ("Ethernet alone", ethernet(IPV4), Untouched),
    ]
}

fn ipv4_options() -> Cases {
    let with =
        |options: &[u8], source: &str| ethernet(IPV4).ipv4(source, EDGE, TCP, options, 0).tcp(TCP_PORT, SYN);
    // A loose source route by way of us, to the other address.
    let route = [0x83, 7, 4, 203, 0, 113, 2, 0];
    vec![
        ("one word of no-operations, source listed", with(&[1; 4], LISTED), Admitted),
        ("one word of no-operations, source not listed", with(&[1; 4], STRANGER), Dropped(NotListed)),
        ("router alert, source not listed", with(&[0x94, 4, 0, 0], STRANGER), Dropped(NotListed)),
        ("as many options as there can be, source listed", with(&[1; 40], LISTED), Admitted),
        ("as many options as there can be, source not listed", with(&[1; 40], STRANGER), Dropped(NotListed)),
        ("a source route, source not listed", with(&route, STRANGER), Dropped(NotListed)),
        ("options that are garbage, source not listed", with(&[0xff; 12], STRANGER), Dropped(NotListed)),
        (
            "UDP behind options, source not listed",
            ethernet(IPV4).ipv4(STRANGER, EDGE, UDP, &[1; 8], 0).udp(UDP_PORT),
            Dropped(NotListed),
        ),
        (
            "a header length below the least",
            tcp4(LISTED, TCP_PORT).with_header_words(4),
            DroppedForAddress(Malformed),
        ),
        ("a header length of 0", tcp4(STRANGER, TCP_PORT).with_header_words(0), DroppedForAddress(Malformed)),
        (
            "a header length below the least, to another address",
            ipv4(STRANGER, OTHER, TCP).tcp(TCP_PORT, SYN).with_header_words(4),
            Untouched,
        ),
        (
            "a header length beyond the packet",
            tcp4(LISTED, TCP_PORT).with_header_words(15),
            DroppedForAddress(Truncated),
        ),
        (
            "a header length beyond the packet, to another address",
            ipv4(STRANGER, OTHER, TCP).tcp(TCP_PORT, SYN).with_header_words(15),
            Untouched,
        ),
    ]
}

fn extensions(source: &str, destination: &str, count: usize) -> Packet {
    let first = ipv6(source, destination, OPTIONS);
    (1..count).fold(first, |packet, _| packet.extension(OPTIONS, 1)).extension(TCP, 1).tcp(TCP_PORT, SYN)
}

fn ipv6_extensions() -> Cases {
    let behind = |kind, source| ipv6(source, EDGE6, kind).extension(TCP, 1).tcp(TCP_PORT, SYN);
    vec![
        ("hop-by-hop, source listed", behind(HOP_BY_HOP, LISTED6), Admitted),
        ("hop-by-hop, source not listed", behind(HOP_BY_HOP, STRANGER6), Dropped(NotListed)),
        ("destination options, source not listed", behind(OPTIONS, STRANGER6), Dropped(NotListed)),
        (
            "a routing header, source listed",
            ipv6(LISTED6, EDGE6, ROUTING).extension(TCP, 3).tcp(TCP_PORT, SYN),
            Admitted,
        ),
        ("a routing header, source not listed", behind(ROUTING, STRANGER6), Dropped(NotListed)),
        ("a mobility header, source not listed", behind(MOBILITY, STRANGER6), Dropped(NotListed)),
        (
            "an authentication header, source not listed",
            ipv6(STRANGER6, EDGE6, AUTHENTICATION).authentication(TCP, 6).tcp(TCP_PORT, SYN),
            Dropped(NotListed),
        ),
        (
            "an authentication header, source listed",
            ipv6(LISTED6, EDGE6, AUTHENTICATION).authentication(TCP, 6).tcp(TCP_PORT, SYN),
            Admitted,
        ),
        (
            "hop-by-hop and long destination options, source not listed",
            ipv6(STRANGER6, EDGE6, HOP_BY_HOP).extension(OPTIONS, 2).extension(TCP, 9).tcp(TCP_PORT, SYN),
            Dropped(NotListed),
        ),
        (
            "UDP behind hop-by-hop, source not listed",
            ipv6(STRANGER6, EDGE6, HOP_BY_HOP).extension(UDP, 1).udp(UDP_PORT),
            Dropped(NotListed),
        ),
        ("six of them, source listed", extensions(LISTED6, EDGE6, 6), Admitted),
        ("six of them, source not listed", extensions(STRANGER6, EDGE6, 6), Dropped(NotListed)),
        ("seven of them", extensions(LISTED6, EDGE6, 7), DroppedForAddress(ExtensionHeaders)),
        ("seven of them, to another address", extensions(STRANGER6, OTHER6, 7), Untouched),
        ("one cut short", ipv6(LISTED6, EDGE6, OPTIONS).then(&[TCP]), DroppedForAddress(Truncated)),
        (
            "one that leads beyond the packet",
            ipv6(LISTED6, EDGE6, OPTIONS).then(&[TCP, 200, 0, 0, 0, 0, 0, 0]),
            DroppedForAddress(Truncated),
        ),
        (
            "one that leads beyond the packet, to another address",
            ipv6(STRANGER6, OTHER6, OPTIONS).then(&[TCP, 200, 0, 0, 0, 0, 0, 0]),
            Untouched,
        ),
        ("\"no next header\"", ipv6(STRANGER6, EDGE6, NOTHING), Untouched),
        (
            "\"no next header\" behind an extension header",
            ipv6(STRANGER6, EDGE6, OPTIONS).extension(NOTHING, 1),
            Untouched,
        ),
        (
            "ESP behind an extension header",
            ipv6(STRANGER6, EDGE6, OPTIONS).extension(ESP, 1).then(&[0; 16]),
            Untouched,
        ),
        (
            "ICMPv6 behind an extension header",
            ipv6(STRANGER6, EDGE6, OPTIONS).extension(ICMPV6, 1).then(&[128, 0, 0, 0, 0, 0, 0, 0]),
            Untouched,
        ),
        ("a next header that nobody knows", ipv6(STRANGER6, EDGE6, 253).then(&[0; 16]), Untouched),
    ]
}

fn ipv4_fragments() -> Cases {
    let fragment = |source, fragment| ethernet(IPV4).ipv4(source, EDGE, TCP, &[], fragment);
    vec![
        ("first, source listed", fragment(LISTED, MORE_FRAGMENTS).tcp(TCP_PORT, SYN), Admitted),
        (
            "first, source not listed",
            fragment(STRANGER, MORE_FRAGMENTS).tcp(TCP_PORT, SYN),
            Dropped(NotListed),
        ),
        ("first, for SSH", fragment(STRANGER, MORE_FRAGMENTS).tcp(22, SYN), Untouched),
        (
            "first, as short as it can be, source not listed",
            fragment(STRANGER, MORE_FRAGMENTS).then(&[0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 1]),
            Dropped(NotListed),
        ),
        (
            "first, too short for its port",
            fragment(LISTED, MORE_FRAGMENTS).then(&[0x9c, 0x40]),
            DroppedForAddress(SplitHeader),
        ),
        (
            "first, too short for its port, a port in the padding",
            fragment(STRANGER, MORE_FRAGMENTS).padded(&[0x9c, 0x40, 0, 22, 0, 0, 0, 0]),
            DroppedForAddress(SplitHeader),
        ),
        (
            "first, too short for its port, to another address",
            ethernet(IPV4).ipv4(STRANGER, OTHER, TCP, &[], MORE_FRAGMENTS).then(&[0x9c, 0x40]),
            Untouched,
        ),
        (
            "first, UDP, source not listed",
            ethernet(IPV4).ipv4(STRANGER, EDGE, UDP, &[], MORE_FRAGMENTS).udp(UDP_PORT),
            Dropped(NotListed),
        ),
        (
            "later: nothing is put together without the first",
            fragment(STRANGER, MORE_FRAGMENTS | 3).then(&[0; 24]),
            Untouched,
        ),
        ("last", fragment(STRANGER, 3).then(&[0; 24]), Untouched),
        (
            "second, at the least offset",
            fragment(STRANGER, MORE_FRAGMENTS | 1).then(&[0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 1]),
            Untouched,
        ),
    ]
}

fn ipv6_fragments() -> Cases {
    let fragment = |source, next, offset, more| ipv6(source, EDGE6, FRAGMENT).fragment(next, offset, more);
    // The chain goes on in the next fragment; what lies behind this one says otherwise.
    let ssh_in_the_padding = [0x9c, 0x40, 0, 22, 0, 0, 0, 0];
    let esp_in_the_padding = [ESP, 0, 0, 0, 0, 0, 0, 0];
    vec![
        ("first, source listed", fragment(LISTED6, TCP, 0, true).tcp(TCP_PORT, SYN), Admitted),
        (
            "first, source not listed",
            fragment(STRANGER6, TCP, 0, true).tcp(TCP_PORT, SYN),
            Dropped(NotListed),
        ),
        ("the only one, source listed", fragment(LISTED6, TCP, 0, false).tcp(TCP_PORT, SYN), Admitted),
        (
            "the only one, source not listed",
            fragment(STRANGER6, TCP, 0, false).tcp(TCP_PORT, SYN),
            Dropped(NotListed),
        ),
        ("first, for SSH", fragment(STRANGER6, TCP, 0, true).tcp(22, SYN), Untouched),
        (
            "first, its port in the second",
            fragment(STRANGER6, OPTIONS, 0, true).extension(TCP, 1),
            DroppedForAddress(SplitHeader),
        ),
        (
            "first, its port in the second, a port in the padding",
            fragment(STRANGER6, OPTIONS, 0, true).extension(TCP, 1).padded(&ssh_in_the_padding),
            DroppedForAddress(SplitHeader),
        ),
        (
            "first, an extension header in the second, another in the padding",
            fragment(STRANGER6, OPTIONS, 0, true).extension(OPTIONS, 1).padded(&esp_in_the_padding),
            DroppedForAddress(SplitHeader),
        ),
        (
            "first, its port in the second, to another address",
            ipv6(STRANGER6, OTHER6, FRAGMENT).fragment(OPTIONS, 0, true).extension(TCP, 1),
            Untouched,
        ),
        (
            "first, behind hop-by-hop, source not listed",
            ipv6(STRANGER6, EDGE6, HOP_BY_HOP)
                .extension(FRAGMENT, 1)
                .fragment(TCP, 0, true)
                .tcp(TCP_PORT, SYN),
            Dropped(NotListed),
        ),
        (
            "later: nothing is put together without the first",
            fragment(STRANGER6, TCP, 3, true).then(&[0; 24]),
            Untouched,
        ),
        ("last", fragment(STRANGER6, TCP, 3, false).then(&[0; 24]), Untouched),
        (
            "a fragment header cut short",
            ipv6(LISTED6, EDGE6, FRAGMENT).then(&[TCP, 0, 0]),
            DroppedForAddress(Truncated),
        ),
    ]
}

fn cut_short() -> Cases {
    vec![
        ("IPv4, before the port", tcp4(LISTED, TCP_PORT).cut(18), DroppedForAddress(Truncated)),
        ("IPv4, in the middle of the port", tcp4(LISTED, TCP_PORT).cut(17), DroppedForAddress(Truncated)),
        (
            "IPv4, right behind the port, source not listed",
            tcp4(STRANGER, TCP_PORT).cut(16),
            Dropped(NotListed),
        ),
        ("IPv4, right behind the port, source listed", tcp4(LISTED, TCP_PORT).cut(16), Admitted),
        ("IPv4, right behind the header", ipv4(LISTED, EDGE, TCP), DroppedForAddress(Truncated)),
        ("IPv4, before the port, to another address", ipv4(STRANGER, OTHER, TCP), Untouched),
        ("IPv4, inside of the destination address", ipv4(STRANGER, EDGE, TCP).cut(2), Untouched),
        (
            "IPv4, inside of the options",
            ethernet(IPV4).ipv4(LISTED, EDGE, TCP, &[1; 8], 0).cut(4),
            DroppedForAddress(Truncated),
        ),
        (
            "IPv4 UDP, before the port",
            ipv4(LISTED, EDGE, UDP).udp(UDP_PORT).cut(6),
            DroppedForAddress(Truncated),
        ),
        ("IPv6, before the port", tcp6(LISTED6, TCP_PORT).cut(18), DroppedForAddress(Truncated)),
        (
            "IPv6, right behind the port, source not listed",
            tcp6(STRANGER6, TCP_PORT).cut(16),
            Dropped(NotListed),
        ),
        ("IPv6, right behind the header", ipv6(LISTED6, EDGE6, TCP), DroppedForAddress(Truncated)),
        ("IPv6, before the port, to another address", ipv6(STRANGER6, OTHER6, TCP), Untouched),
        ("IPv6, inside of the destination address", ipv6(STRANGER6, EDGE6, TCP).cut(2), Untouched),
    ]
}

fn lengths_that_lie() -> Cases {
    vec![
        (
            "IPv4, longer than the frame, source not listed",
            tcp4(STRANGER, TCP_PORT).with_ip_length(1500),
            Dropped(NotListed),
        ),
        (
            "IPv4, longer than the frame, source listed: the stack discards it",
            tcp4(LISTED, TCP_PORT).with_ip_length(1500),
            Admitted,
        ),
        (
            "IPv4, ends before its port",
            tcp4(LISTED, TCP_PORT).with_ip_length(22),
            DroppedForAddress(Truncated),
        ),
        (
            "IPv4, ends right behind its port, source listed",
            tcp4(LISTED, TCP_PORT).with_ip_length(24),
            Admitted,
        ),
        (
            "IPv4, shorter than its own header",
            tcp4(LISTED, TCP_PORT).with_ip_length(10),
            DroppedForAddress(Truncated),
        ),
        (
            "IPv4, shorter than its own header, to another address",
            ipv4(STRANGER, OTHER, TCP).tcp(TCP_PORT, SYN).with_ip_length(10),
            Untouched,
        ),
        (
            "IPv4, length 0, source listed: the kernel's own bundles have it",
            tcp4(LISTED, TCP_PORT).with_ip_length(0),
            Admitted,
        ),
        ("IPv4, length 0, source not listed", tcp4(STRANGER, TCP_PORT).with_ip_length(0), Dropped(NotListed)),
        (
            "IPv4, shorter than the frame, SSH in the padding",
            ipv4(STRANGER, EDGE, TCP).padded(&tcp4(STRANGER, 22).0[34..]),
            DroppedForAddress(Truncated),
        ),
        (
            "IPv6, longer than the frame, source not listed",
            tcp6(STRANGER6, TCP_PORT).with_ip_length(1500),
            Dropped(NotListed),
        ),
        (
            "IPv6, ends before its port",
            tcp6(LISTED6, TCP_PORT).with_ip_length(42),
            DroppedForAddress(Truncated),
        ),
        (
            "IPv6, ends right behind its port, source listed",
            tcp6(LISTED6, TCP_PORT).with_ip_length(44),
            Admitted,
        ),
        (
            "IPv6, length 0, source listed: the kernel's own bundles have it",
            tcp6(LISTED6, TCP_PORT).with_ip_length(40),
            Admitted,
        ),
        (
            "IPv6, length 0, source not listed",
            tcp6(STRANGER6, TCP_PORT).with_ip_length(40),
            Dropped(NotListed),
        ),
        (
            "IPv6, ends inside of an extension header, ESP in the padding",
            ipv6(STRANGER6, EDGE6, OPTIONS)
                .then(&[OPTIONS])
                .padded(&[0, 0, 0, 0, 0, 0, 0, ESP, 0, 0, 0, 0, 0, 0, 0]),
            DroppedForAddress(Truncated),
        ),
        (
            "IPv4 with version 6 in its header, source not listed",
            version(tcp4(STRANGER, TCP_PORT), 6),
            Dropped(NotListed),
        ),
        (
            "IPv6 with version 4 in its header, source not listed",
            version(tcp6(STRANGER6, TCP_PORT), 4),
            Dropped(NotListed),
        ),
    ]
}

fn version(mut packet: Packet, version: u8) -> Packet {
    packet.0[14] = (version << 4) | (packet.0[14] & 0x0f);
    packet
}
