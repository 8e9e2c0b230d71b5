//! The answer against a reading of the standards: RFC 791, 793, 1071 and 8200, byte by byte.

extern crate std;

use std::vec::Vec;

use proptest::prelude::*;

use super::*;

/// The Internet checksum as RFC 1071 defines it, over 16-bit numbers in network order. 0 over what carries its own.
fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = parts.concat();
    let mut sum = 0_u64;
    for two in bytes.chunks(2) {
        sum += u64::from(u16::from_be_bytes([two[0], two[1]]));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_ne_bytes(bytes.try_into().unwrap());
    }
    words
}

fn opening(ports: [u8; 4], sequence: u32) -> Opening {
    Opening { ports: u32::from_ne_bytes(ports), sequence: sequence.to_be() }
}

/// The TCP header of an answer to `opening`.
fn check_tcp(tcp: &[u8], ports: [u8; 4], sequence: u32, answer: Answer, pseudo: &[u8]) {
    assert_eq!(checksum(&[pseudo, tcp]), 0);
    assert_eq!(tcp[..4], [ports[2], ports[3], ports[0], ports[1]]);
    assert_eq!(tcp[4..8], answer.cookie.to_be_bytes());
    assert_eq!(tcp[8..12], sequence.wrapping_add(1).to_be_bytes());
    assert_eq!((usize::from(tcp[12] >> 4) * 4, tcp[12] & 0x0f, tcp[13]), (tcp.len(), 0, 0x12));
    assert_eq!((&tcp[14..16], &tcp[18..20]), (&29_200_u16.to_be_bytes()[..], &[0, 0][..]));
    match answer.mss {
        Some(mss) => assert_eq!(tcp[20..], [[2, 4], mss.to_be_bytes()].concat()),
        None => assert_eq!(tcp.len(), 20),
    }
}

proptest! {
    #[test]
    fn an_ipv4_answer_is_what_the_standards_want(
        syn in any::<[u8; 20]>(),
        ports in any::<[u8; 4]>(),
        sequence in any::<u32>(),
        cookie in any::<u32>(),
        mss in any::<Option<u16>>(),
    ) {
        let answer = Answer { cookie, mss };
        let mut whole = [0; 11];
        v4(&mut whole, &words(&syn), opening(ports, sequence), answer);
        let whole = bytes(&whole);
        let length = usize::from(u16::from_be_bytes([whole[2], whole[3]]));
        prop_assert_eq!(length, if mss.is_some() { 44 } else { 40 });
        let (ip, tcp) = whole[..length].split_at(20);
        prop_assert_eq!(checksum(&[ip]), 0);
        prop_assert_eq!(&ip[..2], &[0x45, 0]);
        prop_assert_eq!(&ip[4..10], &[0, 0, 0x40, 0, 64, 6]);
        prop_assert_eq!((&ip[12..16], &ip[16..]), (&syn[16..], &syn[12..16]));
        let pseudo = [&ip[12..], &[0, 6, 0, tcp.len() as u8]].concat();
        check_tcp(tcp, ports, sequence, answer, &pseudo);
    }

    #[test]
    fn an_ipv6_answer_is_what_the_standards_want(
        syn in any::<[[u8; 20]; 2]>(),
        ports in any::<[u8; 4]>(),
        sequence in any::<u32>(),
        cookie in any::<u32>(),
        mss in any::<Option<u16>>(),
    ) {
        let (syn, answer) = (syn.concat(), Answer { cookie, mss });
        let mut whole = [0; 16];
        v6(&mut whole, &words(&syn), opening(ports, sequence), answer);
        let whole = bytes(&whole);
        let (ip, rest) = whole.split_at(40);
        let length = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
        prop_assert_eq!(length, if mss.is_some() { 24 } else { 20 });
        prop_assert_eq!((&ip[..4], &ip[6..8]), (&[0x60, 0, 0, 0][..], &[6, 64][..]));
        prop_assert_eq!((&ip[8..24], &ip[24..]), (&syn[24..], &syn[8..24]));
        let pseudo = [&ip[8..], &[0, 0, 0, length as u8, 0, 0, 0, 6]].concat();
        check_tcp(&rest[..length], ports, sequence, answer, &pseudo);
    }

    #[test]
    fn whom_no_answer_may_reach_gets_none(source in any::<u32>(), source6 in any::<u128>()) {
        let v4 = std::net::Ipv4Addr::from(source);
        let mut syn = [0; 5];
        syn[3] = u32::from_ne_bytes(v4.octets());
        let one_host = !v4.is_loopback() && v4.octets()[0] != 0 && v4.octets()[0] < 224;
        prop_assert_eq!(can_be_answered_v4(&syn), one_host, "{}", v4);

        let v6 = std::net::Ipv6Addr::from(source6);
        let mut syn = [0; 10];
        syn[2..6].copy_from_slice(&words::<4>(&v6.octets()));
        prop_assert_eq!(can_be_answered_v6(&syn), !v6.is_multicast() && source6 >> 64 != 0, "{}", v6);
    }
}

#[test]
fn ourselves_nobody_and_ipv4_in_disguise_get_no_answer() {
    for source in ["::", "::1", "::ffff:192.0.2.1", "ff02::1"] {
        let address: std::net::Ipv6Addr = source.parse().unwrap();
        let mut syn = [0; 10];
        syn[2..6].copy_from_slice(&words::<4>(&address.octets()));
        assert!(!can_be_answered_v6(&syn), "{source}");
    }
}
