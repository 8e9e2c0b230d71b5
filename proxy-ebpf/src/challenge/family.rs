//! What differs between IPv4 and IPv6 where handshakes are proved.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{
        bpf_check_mtu, bpf_tcp_raw_check_syncookie_ipv4, bpf_tcp_raw_check_syncookie_ipv6,
        bpf_tcp_raw_gen_syncookie_ipv4, bpf_tcp_raw_gen_syncookie_ipv6,
    },
};
use proxy_common::scope::{self, ScopeKey};
use proxy_ebpf::{
    gate,
    syn_ack::{self, Answer, AnswerV4, AnswerV6, Ipv4Words, Ipv6Words, Opening, TcpWords},
};

/// Where the device doesn't say.
const ETHERNET_MTU: u32 = 1500;

/// What differs between IPv4 and IPv6.
pub trait Family {
    type Ip: Copy;
    /// Also room for what is needed before it: the kernel's stack is small.
    type Answer;
    /// In bytes.
    const TUPLE: usize;
    const NO_HEADER: Self::Ip;
    const NO_ANSWER: Self::Answer;

    /// Longest segment: what the device carries, without the two headers.
    fn mss(ctx: *mut xdp_md) -> u16;
    fn can_be_answered(ip: &Self::Ip) -> bool;
    /// Addresses and ports, as the kernel wants them to look a socket up.
    fn tuple(room: &mut Self::Answer, ip: &Self::Ip, tcp: &TcpWords);
    /// The address and port that was asked for.
    fn listener(ip: &Self::Ip, tcp: &TcpWords) -> ScopeKey;
    fn cookie(ip: &mut Self::Ip, tcp: &mut TcpWords, tcp_length: u32) -> Option<u32>;
    fn holds_a_cookie(ip: &mut Self::Ip, tcp: &mut TcpWords) -> bool;
    fn answer(bytes: &mut Self::Answer, ip: &Self::Ip, opening: Opening, answer: Answer);
}

pub struct V4;
pub struct V6;

impl Family for V4 {
    type Ip = Ipv4Words;
    type Answer = AnswerV4;
    const NO_HEADER: Ipv4Words = [0; 5];
    const NO_ANSWER: AnswerV4 = [0; 11];
    const TUPLE: usize = 12;

    #[inline(always)]
    fn mss(ctx: *mut xdp_md) -> u16 {
        mss(ctx, 20 + 20)
    }

    #[inline(always)]
    fn can_be_answered(ip: &Ipv4Words) -> bool {
        syn_ack::can_be_answered_v4(ip)
    }

    #[inline(always)]
    fn tuple(room: &mut AnswerV4, ip: &Ipv4Words, tcp: &TcpWords) {
        [room[0], room[1], room[2]] = [ip[3], ip[4], tcp[0]];
    }

    #[inline(always)]
    fn listener(ip: &Ipv4Words, tcp: &TcpWords) -> ScopeKey {
        gate::key_v4([ip[4]], scope::TCP, destination(tcp))
    }

    #[inline(always)]
    fn cookie(ip: &mut Ipv4Words, tcp: &mut TcpWords, tcp_length: u32) -> Option<u32> {
        // SAFETY: the headers are as long as the helper wants them, and as is said.
        let cookie = unsafe {
            bpf_tcp_raw_gen_syncookie_ipv4(ip.as_mut_ptr().cast(), tcp.as_mut_ptr().cast(), tcp_length)
        };
        (cookie > 0).then_some(cookie as u32)
    }

    #[inline(always)]
    fn holds_a_cookie(ip: &mut Ipv4Words, tcp: &mut TcpWords) -> bool {
        // SAFETY: as above.
        unsafe { bpf_tcp_raw_check_syncookie_ipv4(ip.as_mut_ptr().cast(), tcp.as_mut_ptr().cast()) == 0 }
    }

    #[inline(always)]
    fn answer(bytes: &mut AnswerV4, ip: &Ipv4Words, opening: Opening, answer: Answer) {
        syn_ack::v4(bytes, ip, opening, answer);
    }
}

impl Family for V6 {
    type Ip = Ipv6Words;
    type Answer = AnswerV6;
    const NO_HEADER: Ipv6Words = [0; 10];
    const NO_ANSWER: AnswerV6 = [0; 16];
    const TUPLE: usize = 36;

    #[inline(always)]
    fn mss(ctx: *mut xdp_md) -> u16 {
        mss(ctx, 40 + 20)
    }

    #[inline(always)]
    fn can_be_answered(ip: &Ipv6Words) -> bool {
        syn_ack::can_be_answered_v6(ip)
    }

    #[inline(always)]
    fn tuple(room: &mut AnswerV6, ip: &Ipv6Words, tcp: &TcpWords) {
        [room[0], room[1], room[2], room[3]] = [ip[2], ip[3], ip[4], ip[5]];
        [room[4], room[5], room[6], room[7]] = [ip[6], ip[7], ip[8], ip[9]];
        room[8] = tcp[0];
    }

    #[inline(always)]
    fn listener(ip: &Ipv6Words, tcp: &TcpWords) -> ScopeKey {
        gate::key_v6([ip[6], ip[7], ip[8], ip[9]], scope::TCP, destination(tcp))
    }

    #[inline(always)]
    fn cookie(ip: &mut Ipv6Words, tcp: &mut TcpWords, tcp_length: u32) -> Option<u32> {
        // SAFETY: as for IPv4.
        let cookie = unsafe {
            bpf_tcp_raw_gen_syncookie_ipv6(ip.as_mut_ptr().cast(), tcp.as_mut_ptr().cast(), tcp_length)
        };
        (cookie > 0).then_some(cookie as u32)
    }

    #[inline(always)]
    fn holds_a_cookie(ip: &mut Ipv6Words, tcp: &mut TcpWords) -> bool {
        // SAFETY: as for IPv4.
        unsafe { bpf_tcp_raw_check_syncookie_ipv6(ip.as_mut_ptr().cast(), tcp.as_mut_ptr().cast()) == 0 }
    }

    #[inline(always)]
    fn answer(bytes: &mut AnswerV6, ip: &Ipv6Words, opening: Opening, answer: Answer) {
        syn_ack::v6(bytes, ip, opening, answer);
    }
}

#[inline(always)]
fn mss(ctx: *mut xdp_md, headers: u32) -> u16 {
    let mss = mtu(ctx).saturating_sub(headers);
    if mss > u32::from(u16::MAX) { u16::MAX } else { mss as u16 }
}

#[inline(always)]
fn mtu(ctx: *mut xdp_md) -> u32 {
    let mut mtu = 0_u32;
    // SAFETY: of the device that the frame came from (0); the helper writes four bytes.
    let asked = unsafe { bpf_check_mtu(ctx.cast(), 0, &raw mut mtu, 0, 0) };
    // Positive: it knows the device, and the frame is too long for it. Of no interest here.
    if asked < 0 || mtu == 0 { ETHERNET_MTU } else { mtu }
}

/// The port that the segment is for.
#[inline(always)]
fn destination(tcp: &TcpWords) -> u16 {
    let [_, _, high, low] = tcp[0].to_ne_bytes();
    u16::from_be_bytes([high, low])
}
