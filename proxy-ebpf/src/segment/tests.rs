//! Headers are shifted as another reader of them expects, and their checksums fit.

extern crate std;

use std::{vec, vec::Vec};

use proptest::prelude::*;

use super::*;

const NOP: u8 = option::NOTHING;
const BY: Shift = Shift {
    ports: u32::from_ne_bytes([0x12, 0x34, 0x01, 0xbb]),
    sequence: 1000,
    acknowledgement: u32::MAX - 99,
    time: 50,
    echo: 70,
    scale_from: 7,
    scale_to: 9,
};

fn tcp(flags: u8, options: &[u8]) -> Vec<u8> {
    assert!(options.len().is_multiple_of(4));
    let words = 5 + options.len() / 4;
    let mut bytes = vec![0xc0, 0x00, 0x20, 0x00];
    bytes.extend(2_000_000_000_u32.to_be_bytes());
    bytes.extend(500_u32.to_be_bytes());
    bytes.extend([(words << 4) as u8, flags, 0x40, 0x00, 0xab, 0xcd, 0, 0]);
    bytes.extend(options);
    bytes
}

fn time_option(time: u32, echo: u32) -> Vec<u8> {
    [vec![8, 10], time.to_be_bytes().to_vec(), echo.to_be_bytes().to_vec()].concat()
}

fn shifted(bytes: &[u8], by: &Shift) -> Result<(Vec<u8>, Shifted), Unreadable> {
    // What an earlier header has left in the room must not matter.
    let mut header = Header { bytes: [0x5a; Header::ROOM], at: 0 };
    header.bytes[..bytes.len()].copy_from_slice(bytes);
    let shifted = shift(&mut header, bytes.len() as u32, by)?;
    assert!(header.bytes[bytes.len()..].iter().all(|byte| *byte == 0x5a), "it wrote behind the header");
    Ok((header.bytes[..bytes.len()].to_vec(), shifted))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

#[test]
fn ports_numbers_windows_and_times_are_shifted_and_nothing_else() {
    let before = tcp(Tcp::ACK, &[&[NOP, NOP][..], &time_option(100, 200)].concat());
    let (after, shifted) = shifted(&before, &BY).unwrap();
    assert_eq!(after[..4], [0x12, 0x34, 0x01, 0xbb]);
    assert_eq!(word(&after, 4), 2_000_001_000);
    assert_eq!(word(&after, 8), 400);
    assert_eq!(after[12..14], before[12..14]);
    // 0x4000 << 7 >> 9
    assert_eq!(after[14..16], [0x10, 0x00]);
    assert_eq!(after[16..20], before[16..20]);
    assert_eq!((word(&after, 24), word(&after, 28)), (150, 270));
    assert!(!shifted.selective);
}

#[test]
fn options_may_come_in_any_order_and_at_any_place() {
    let block = |from: u32, to: u32| [from.to_be_bytes(), to.to_be_bytes()].concat();
    // As Linux, BSD and macOS send them; then at odd places, with what nobody knows in between.
    let blocks = [&[5, 26][..], &block(500, 600), &block(700, 800), &block(900, 1000)].concat();
    let usual = [&[NOP, NOP][..], &time_option(1, 2), &[NOP, NOP], &blocks].concat();
    let odd = [&[253, 3, 9][..], &time_option(1, 2), &[5, 10], &block(500, 600), &[0]].concat();
    for (options, time, first) in [(usual, 24, 36), (odd, 25, 35)] {
        let (after, shifted) = shifted(&tcp(Tcp::ACK, &options), &BY).unwrap();
        assert_eq!((word(&after, time), word(&after, time + 4)), (51, 72));
        assert_eq!((word(&after, first), word(&after, first + 4)), (400, 500));
        assert!(shifted.selective);
        if first == 36 {
            assert_eq!((word(&after, 52), word(&after, 56)), (800, 900));
        }
    }
}

#[test]
fn a_reset_without_an_acknowledgement_acknowledges_nothing() {
    let (after, _) = shifted(&tcp(Tcp::RST, &[]), &BY).unwrap();
    assert_eq!((word(&after, 4), word(&after, 8)), (2_000_001_000, 500));
}

#[test]
fn a_syn_has_the_window_that_it_says_and_echoes_nothing() {
    let (after, _) = shifted(&tcp(Tcp::SYN, &[&[NOP, NOP][..], &time_option(1, 0)].concat()), &BY).unwrap();
    assert_eq!(after[14..16], [0x40, 0x00]);
    assert_eq!(word(&after, 28), 0);
}

#[test]
fn a_window_that_is_too_large_for_the_field_is_the_largest_that_fits() {
    let by = Shift { scale_from: 14, scale_to: 0, ..BY };
    let (after, _) = shifted(&tcp(Tcp::ACK, &[]), &by).unwrap();
    assert_eq!(after[14..16], [0xff, 0xff]);
}

#[test]
fn options_that_do_not_fit_are_refused() {
    for options in [[8, 10, 0, 0], [8, 0, 0, 0], [5, 1, 0, 0], [NOP, NOP, NOP, 8], [2, 255, 0, 0]] {
        assert_eq!(shifted(&tcp(Tcp::ACK, &options), &BY), Err(Unreadable), "{options:?}");
    }
}

#[test]
fn what_a_syn_says_is_found() {
    let options = [&[2, 4, 5, 180, 4, 2][..], &time_option(77, 0), &[NOP, 3, 3, 7]].concat();
    let bytes = tcp(Tcp::SYN, &options);
    let mut header = Header::empty();
    header.bytes[..bytes.len()].copy_from_slice(&bytes);
    let said = Opening { time: Some(77), longest: 1460 };
    assert_eq!(opening(&mut header, bytes.len() as u32), Ok(said));
    let mut bare = Header::empty();
    bare.bytes[..20].copy_from_slice(&tcp(Tcp::SYN, &[]));
    assert_eq!(opening(&mut bare, 20), Ok(Opening::default()));
}

/// The whole sum over a header, its checksum field included.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| u64::from(u16::from_ne_bytes([word[0], word[1]])));
    let sum: u64 = words.sum();
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

proptest! {
    #[test]
    fn any_header_is_refused_or_keeps_its_checksum_right(
        fixed in proptest::collection::vec(any::<u8>(), 20),
        options in proptest::collection::vec(any::<u8>(), 0..=10).prop_map(|words| {
            words.into_iter().flat_map(|seed| [seed % 9, seed / 9 % 20, seed, !seed]).collect::<Vec<_>>()
        }),
        numbers in any::<[u32; 5]>(),
        scales in any::<[u8; 2]>(),
    ) {
        let bytes = [fixed, options].concat();
        let [ports, sequence, acknowledgement, time, echo] = numbers;
        let [scale_from, scale_to] = scales;
        let by = Shift { ports, sequence, acknowledgement, time, echo, scale_from, scale_to };
        if let Ok((mut after, Shifted { difference, .. })) = shifted(&bytes, &by) {
            let checksum = u16::from_ne_bytes([bytes[16], bytes[17]]);
            let mended = Sum::none().with(difference).mend(checksum);
            prop_assert_eq!(&after[16..18], &bytes[16..18]);
            after[16..18].copy_from_slice(&mended.to_ne_bytes());
            // Zero and minus zero are the same sum.
            let [before, now] = [sum(&bytes), sum(&after)].map(|sum| if sum == 0xffff { 0 } else { sum });
            prop_assert_eq!(before, now);
        }
    }
}
