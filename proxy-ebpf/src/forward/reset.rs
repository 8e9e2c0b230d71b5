//! The reset that a client gets whose server is dead, made from the client's own segment, so that it connects again at once.
//!
//! The checksum's place is the same in the answer as it was in the segment, and so is what the kernel believes of it: where
//! that was still the sender's offloaded sum, whoever sends the answer will finish it. So the answer first has the sum of
//! its pseudo-header there, which is right in that case; and [`Answer::unfinished`] is what the helper that changes checksums
//! is told then, which it does only in the other.

use proxy_common::{flow::Segment, scope::TCP};

use super::{
    Ends, TRANSPORT_V4, TRANSPORT_V6,
    checksum::{Difference, fold},
};

const IPV4: usize = 5;
const IPV6: usize = 10;
const HEADER: usize = 5;
const HEADER_BYTES: u8 = HEADER as u8 * 4;
const HOPS: u8 = 64;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// In the TCP header, in words.
const CHECKSUM: usize = 4;

/// An answer, in words as they lie on the wire.
pub struct Answer<const N: usize> {
    pub words: [u32; N],
    /// What is missing in the checksum unless somebody else finishes it.
    pub unfinished: Difference,
}

pub type AnswerV4 = Answer<{ IPV4 + HEADER }>;
pub type AnswerV6 = Answer<{ IPV6 + HEADER }>;

/// How long the frame is.
pub const LENGTH_V4: usize = TRANSPORT_V4 + HEADER * 4;
pub const LENGTH_V6: usize = TRANSPORT_V6 + HEADER * 4;

/// Answers a segment without IP options that came in with these ends.
#[inline(always)]
#[must_use]
pub fn v4(ends: &Ends, segment: &Segment) -> AnswerV4 {
    let back = ends.backwards();
    let (source, destination) = (back.source[3], back.destination[3]);
    let tcp = tcp(&back, segment, u64::from(source) + u64::from(destination));
    let mut ip = [
        word([0x45, 0, 0, (IPV4 * 4) as u8 + HEADER_BYTES]),
        word([0, 0, 0x40, 0]), // Don't fragment: then it needs no identification.
        word([HOPS, TCP, 0, 0]),
        source,
        destination,
    ];
    let [high, low] = (!fold(sum(&ip))).to_ne_bytes();
    ip[2] = word([HOPS, TCP, high, low]);
    let [a, b, c, d, e] = ip;
    let [f, g, h, i, j] = tcp.words;
    Answer { words: [a, b, c, d, e, f, g, h, i, j], unfinished: tcp.unfinished }
}

/// As [`v4`], without extension headers.
#[inline(always)]
#[must_use]
pub fn v6(ends: &Ends, segment: &Segment) -> AnswerV6 {
    let back = ends.backwards();
    let ([a, b, c, d], [e, f, g, h]) = (back.source, back.destination);
    let tcp = tcp(&back, segment, sum(&back.source) + sum(&back.destination));
    let [i, j, k, l, m] = tcp.words;
    let (first, second) = (word([0x60, 0, 0, 0]), word([0, HEADER_BYTES, TCP, HOPS]));
    Answer { words: [first, second, a, b, c, d, e, f, g, h, i, j, k, l, m], unfinished: tcp.unfinished }
}

/// RFC 9293, 3.10.7.1: as if there were no connection. `addresses`: their sum.
#[inline(always)]
fn tcp(back: &Ends, segment: &Segment, addresses: u64) -> Answer<HEADER> {
    let (sequence, acknowledges, flags) =
        if segment.ack { (segment.acknowledges, 0, RST) } else { (0, segment.end, RST | ACK) };
    let pseudo = fold(addresses + u64::from(word([0, TCP, 0, HEADER_BYTES])));
    let mut words =
        [back.ports(), sequence.to_be(), acknowledges.to_be(), word([(HEADER as u8) << 4, flags, 0, 0]), 0];
    // The helper takes what is there for the finished checksum of something, the complement of its sum.
    let unfinished = Difference::sum(sum(&words) + 2 * u64::from(pseudo));
    let [high, low] = pseudo.to_ne_bytes();
    words[CHECKSUM] = word([high, low, 0, 0]);
    Answer { words, unfinished }
}

#[inline(always)]
pub(super) fn word(bytes: [u8; 4]) -> u32 {
    u32::from_ne_bytes(bytes)
}

#[inline(always)]
pub(super) fn sum<const N: usize>(words: &[u32; N]) -> u64 {
    let mut sum = 0;
    let mut at = 0;
    while at < N {
        sum += u64::from(words[at]);
        at += 1;
    }
    sum
}

#[cfg(test)]
mod tests;
