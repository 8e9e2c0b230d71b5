//! The ICMP error that says how long a packet may be, in the place of the packet.
//!
//! It comes from the address that the packet was sent to, and quotes as much of it as its sender needs to know it again.
//!
//! The kernel may still believe that a checksum is to be finished in it, as in `reset.rs`: the sum over all from the ICMP header
//! on, and at the place where the packet's TCP or UDP had it. What comes out there is what should stand there, if it
//! holds the sum of the pseudo-header before: an ICMP message whose checksum is right sums up to nothing else. So that
//! is what is put there ([`Answer::at`]), and the helper that changes checksums is told what makes it right where nobody
//! finishes anything.

use super::{
    Address, NETWORK, TRANSPORT_V4, TRANSPORT_V6,
    checksum::{Difference, fold},
    reset::{sum, word},
    rewrite::{CHECKSUM_TCP, CHECKSUM_UDP},
};

const IPV4: usize = 5;
const IPV6: usize = 10;
const ICMP: usize = 2;
/// Of the transport header.
const QUOTED: usize = 2;

const ICMP_PROTOCOL: u8 = 1;
const ICMPV6_PROTOCOL: u8 = 58;
const HOPS: u8 = 64;

/// What is quoted, as words: the IP header without options and what follows.
pub type QuoteV4 = [u32; IPV4 + QUOTED];
pub type QuoteV6 = [u32; IPV6 + QUOTED];

pub type WordsV4 = [u32; IPV4 + ICMP + IPV4 + QUOTED];
pub type WordsV6 = [u32; IPV6 + ICMP + IPV6 + QUOTED];

/// How long the frame is.
pub const LENGTH_V4: usize = NETWORK + size_of::<WordsV4>();
pub const LENGTH_V6: usize = NETWORK + size_of::<WordsV6>();

/// Where the kernel may finish a checksum, and what is missing there unless it does.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub at: usize,
    pub unfinished: Difference,
}

/// Destination unreachable: fragmentation needed.
#[inline(always)]
pub fn v4(words: &mut WordsV4, quote: &QuoteV4, is_tcp: bool, mtu: u16) -> Answer {
    const KIND: [u8; 2] = [3, 4];
    let (sender, us) = (quote[3], quote[4]);
    words[0] = word([0x45, 0, 0, size_of::<WordsV4>() as u8]);
    words[1] = word([0, 0, 0x40, 0]); // Don't fragment: then it needs no identification.
    words[2] = word([HOPS, ICMP_PROTOCOL, 0, 0]);
    words[3] = us;
    words[4] = sender;
    let [high, low] = (!fold(sum(&[words[0], words[1], words[2], us, sender]))).to_ne_bytes();
    words[2] = word([HOPS, ICMP_PROTOCOL, high, low]);

    let [high, low] = mtu.to_be_bytes();
    let mtu = word([0, 0, high, low]);
    let [high, low] =
        (!fold(u64::from(word([KIND[0], KIND[1], 0, 0])) + u64::from(mtu) + sum(quote))).to_ne_bytes();
    words[IPV4] = word([KIND[0], KIND[1], high, low]);
    words[IPV4 + 1] = mtu;
    let mut at = 0;
    while at < quote.len() {
        words[IPV4 + ICMP + at] = quote[at];
        at += 1;
    }
    let (at, in_icmp) = place(is_tcp);
    Answer { at: TRANSPORT_V4 + at, unfinished: leave(&mut words[IPV4 + in_icmp], is_tcp, 0) }
}

/// Packet too big.
#[inline(always)]
pub fn v6(words: &mut WordsV6, quote: &QuoteV6, is_tcp: bool, mtu: u16) -> Answer {
    const KIND: u8 = 2;
    const LENGTH: u8 = (size_of::<WordsV6>() - IPV6 * 4) as u8;
    let sender: Address = [quote[2], quote[3], quote[4], quote[5]];
    let us: Address = [quote[6], quote[7], quote[8], quote[9]];
    words[0] = word([0x60, 0, 0, 0]);
    words[1] = word([0, LENGTH, ICMPV6_PROTOCOL, HOPS]);
    [words[2], words[3], words[4], words[5]] = us;
    [words[6], words[7], words[8], words[9]] = sender;

    let pseudo = fold(sum(&us) + sum(&sender) + u64::from(word([0, ICMPV6_PROTOCOL, 0, LENGTH])));
    let [high, low] = mtu.to_be_bytes();
    let mtu = word([0, 0, high, low]);
    let all = u64::from(word([KIND, 0, 0, 0])) + u64::from(mtu) + sum(quote) + u64::from(pseudo);
    let [high, low] = (!fold(all)).to_ne_bytes();
    words[IPV6] = word([KIND, 0, high, low]);
    words[IPV6 + 1] = mtu;
    let mut at = 0;
    while at < quote.len() {
        words[IPV6 + ICMP + at] = quote[at];
        at += 1;
    }
    let (at, in_icmp) = place(is_tcp);
    Answer { at: TRANSPORT_V6 + at, unfinished: leave(&mut words[IPV6 + in_icmp], is_tcp, pseudo) }
}

/// Where the packet's own checksum was: in bytes from the ICMP header on, and the word that this lies in.
#[inline(always)]
const fn place(is_tcp: bool) -> (usize, usize) {
    if is_tcp { (CHECKSUM_TCP, CHECKSUM_TCP / 4) } else { (CHECKSUM_UDP, CHECKSUM_UDP / 4) }
}

/// Puts the sum of the pseudo-header into the half of a word where a checksum may be finished. TCP's is in the first half,
/// UDP's in the second.
#[inline(always)]
fn leave(at: &mut u32, is_tcp: bool, pseudo: u16) -> Difference {
    let [a, b, c, d] = at.to_ne_bytes();
    let [high, low] = pseudo.to_ne_bytes();
    let should_be;
    if is_tcp {
        should_be = u16::from_ne_bytes([a, b]);
        *at = word([high, low, c, d]);
    } else {
        should_be = u16::from_ne_bytes([c, d]);
        *at = word([a, b, high, low]);
    }
    Difference::sum(u64::from(pseudo) + u64::from(!should_be))
}

#[cfg(test)]
mod tests;
