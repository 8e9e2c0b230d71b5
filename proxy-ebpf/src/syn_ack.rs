//! The gate's own answer to a SYN: IP and TCP header.
//!
//! The answer is never longer than what it answers: it has the one option that a SYN practically always has (MSS), and
//! only if the SYN has options at all. No window scale, no SACK, no timestamps: a cookie can't carry them.
//!
//! All is done by words that hold their bytes in their order, as they lie on the wire: byte by byte, the kernel's
//! small stack would not do.

/// Headers as words that hold their bytes in their order.
pub type Ipv4Words = [u32; 5];
pub type Ipv6Words = [u32; 10];
/// With as many options as a SYN usually has.
pub type TcpWords = [u32; 10];

/// What a SYN says, as far as its answer needs it, in words as they lie in the SYN.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    pub ports: u32,
    pub sequence: u32,
}

/// What the answer says.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// Our sequence number.
    pub cookie: u32,
    /// The longest segment that we take. `None`: no option.
    pub mss: Option<u16>,
}

/// The IPv4 and TCP header of an answer. Without the option the last word isn't part of it.
pub type AnswerV4 = [u32; IPV4 + TCP + OPTION];
/// The IPv6 and TCP header, likewise.
pub type AnswerV6 = [u32; IPV6 + TCP + OPTION];

/// The MSS option, in bytes.
pub const OPTION_BYTES: usize = OPTION * 4;

/// In words.
const IPV4: usize = 5;
const IPV6: usize = 10;
const TCP: usize = 5;
const OPTION: usize = 1;

/// What we take before the listener itself says how much: twenty full segments on Ethernet, more than any client
/// sends at first.
const WINDOW: u16 = 29_200;
const HOPS: u8 = 64;
const SYN_ACK: u8 = 0x12;
const PROTOCOL: u8 = proxy_common::scope::TCP;

/// Answers a SYN with this IP header.
#[inline(always)]
pub fn v4(bytes: &mut AnswerV4, syn: &Ipv4Words, opening: Opening, answer: Answer) {
    let (source, destination) = (syn[3], syn[4]);
    let tcp_length = length(answer);
    let [high, low] = (IPV4 as u16 * 4 + tcp_length).to_be_bytes();
    bytes[0] = word([0x45, 0, high, low]);
    bytes[1] = word([0, 0, 0x40, 0]); // Don't fragment: then it needs no identification.
    bytes[3] = destination;
    bytes[4] = source;
    let sum = sum(&[bytes[0], bytes[1], word([HOPS, PROTOCOL, 0, 0]), destination, source]);
    let [high, low] = folded(sum);
    bytes[2] = word([HOPS, PROTOCOL, high, low]);

    let addresses = u64::from(destination) + u64::from(source);
    let tcp = tcp(opening, answer, addresses, tcp_length);
    [bytes[5], bytes[6], bytes[7], bytes[8], bytes[9], bytes[10]] = tcp;
}

/// As [`v4`].
#[inline(always)]
pub fn v6(bytes: &mut AnswerV6, syn: &Ipv6Words, opening: Opening, answer: Answer) {
    let tcp_length = length(answer);
    let [high, low] = tcp_length.to_be_bytes();
    bytes[0] = word([0x60, 0, 0, 0]);
    bytes[1] = word([high, low, PROTOCOL, HOPS]);
    [bytes[2], bytes[3], bytes[4], bytes[5]] = [syn[6], syn[7], syn[8], syn[9]];
    [bytes[6], bytes[7], bytes[8], bytes[9]] = [syn[2], syn[3], syn[4], syn[5]];

    let addresses = sum(&[syn[2], syn[3], syn[4], syn[5], syn[6], syn[7], syn[8], syn[9]]);
    let tcp = tcp(opening, answer, addresses, tcp_length);
    [bytes[10], bytes[11], bytes[12], bytes[13], bytes[14], bytes[15]] = tcp;
}

/// Whether an answer to this source could reach one host, and not many or ourselves. The stack throws away what comes
/// from anywhere else.
#[inline(always)]
#[must_use]
pub fn can_be_answered_v4(syn: &Ipv4Words) -> bool {
    const LOOPBACK: u8 = 127;
    const MULTICAST: u8 = 224;
    let [first, ..] = syn[3].to_ne_bytes();
    first != 0 && first != LOOPBACK && first < MULTICAST
}

/// As [`can_be_answered_v4`].
#[inline(always)]
#[must_use]
pub fn can_be_answered_v6(syn: &Ipv6Words) -> bool {
    const MULTICAST: u8 = 0xff;
    let [first, ..] = syn[2].to_ne_bytes();
    // What begins with zeros is nobody, ourselves, or IPv4 in disguise.
    first != MULTICAST && (syn[2] | syn[3]) != 0
}

/// `addresses`: the sum of those of the pseudo-header. The rest of that is the same for both families.
#[inline(always)]
fn tcp(opening: Opening, answer: Answer, addresses: u64, length: u16) -> [u32; TCP + OPTION] {
    let ports = opening.ports.rotate_left(16); // Either half lies where the other did.
    let sequence = answer.cookie.to_be();
    let acknowledgement = u32::from_be(opening.sequence).wrapping_add(1).to_be();
    let [window_high, window_low] = WINDOW.to_be_bytes();
    let flags_and_window = word([(length as u8 / 4) << 4, SYN_ACK, window_high, window_low]);
    let option = match answer.mss {
        Some(mss) => {
            let [high, low] = mss.to_be_bytes();
            word([2, OPTION_BYTES as u8, high, low])
        }
        None => 0,
    };
    let [high, low] = length.to_be_bytes();
    let pseudo = addresses + u64::from(word([0, PROTOCOL, high, low]));
    let sum = sum(&[ports, sequence, acknowledgement, flags_and_window, option]) + pseudo;
    let [high, low] = folded(sum);
    [ports, sequence, acknowledgement, flags_and_window, word([high, low, 0, 0]), option]
}

/// Of the TCP header, in bytes.
#[inline(always)]
fn length(answer: Answer) -> u16 {
    let words = if answer.mss.is_some() { TCP + OPTION } else { TCP };
    words as u16 * 4
}

#[inline(always)]
fn word(bytes: [u8; 4]) -> u32 {
    u32::from_ne_bytes(bytes)
}

/// The sum of all words. Few enough not to overflow, and in whatever order bytes have (RFC 1071).
#[inline(always)]
fn sum<const N: usize>(words: &[u32; N]) -> u64 {
    let mut sum = 0;
    let mut at = 0;
    while at < N {
        sum += u64::from(words[at]);
        at += 1;
    }
    sum
}

/// The checksum, as it lies in the header.
#[inline(always)]
fn folded(sum: u64) -> [u8; 2] {
    let mut sum = sum;
    let mut round = 0;
    while round < 4 {
        sum = (sum & 0xffff) + (sum >> 16);
        round += 1;
    }
    (!(sum as u16)).to_ne_bytes()
}

#[cfg(test)]
mod tests;
