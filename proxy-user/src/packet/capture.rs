//! Packets out of a capture file: pcap or pcapng, as tcpdump, Wireshark and dumpcap write them.
//!
//! Only what it takes to get at the first packets. Captures without Ethernet headers (`tcpdump -i any`) are given one.

const PCAP_MICROSECONDS: u32 = 0xa1b2_c3d4;
const PCAP_NANOSECONDS: u32 = 0xa1b2_3c4d;
const PCAPNG_SECTION: u32 = 0x0a0d_0d0a;
const PCAPNG_ORDER: u32 = 0x1a2b_3c4d;
const PCAPNG_INTERFACE: u32 = 1;
const PCAPNG_SIMPLE: u32 = 3;
const PCAPNG_ENHANCED: u32 = 6;

const ETHERNET: u16 = 1;
const RAW_IP: u16 = 101;
const LINUX_SLL: u16 = 113;
const LINUX_SLL2: u16 = 276;

/// A packet of a capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// Ethernet header included.
    pub frame: Vec<u8>,
    /// The capture holds only its beginning.
    pub cut: bool,
}

/// The first `limit` packets.
///
/// # Errors
/// With what is wrong about the file.
pub fn read(file: &[u8], limit: usize) -> Result<Vec<Captured>, String> {
    let magic: [u8; 4] = *file.first_chunk().ok_or("it is too short for a capture")?;
    match (u32::from_le_bytes(magic), u32::from_be_bytes(magic)) {
        (PCAP_MICROSECONDS | PCAP_NANOSECONDS, _) => pcap(Reader { bytes: file, big: false }, limit),
        (_, PCAP_MICROSECONDS | PCAP_NANOSECONDS) => pcap(Reader { bytes: file, big: true }, limit),
        (PCAPNG_SECTION, _) => pcapng(file, limit),
        _ => Err("it is neither a pcap nor a pcapng file".into()),
    }
}

fn pcap(file: Reader<'_>, limit: usize) -> Result<Vec<Captured>, String> {
    // The upper bits of the field say other things.
    let link = file.u16(if file.big { 22 } else { 20 })?;
    let mut packets = Vec::new();
    let mut at = 24;
    while at < file.bytes.len() && packets.len() < limit {
        let (captured, length) = (file.u32(at + 8)?, file.u32(at + 12)?);
        let bytes = file.slice(at + 16, captured as usize)?;
        packets.push(Captured { frame: framed(link, bytes)?, cut: captured < length });
        at += 16 + captured as usize;
    }
    Ok(packets)
}

fn pcapng(file: &[u8], limit: usize) -> Result<Vec<Captured>, String> {
    let mut reader = Reader { bytes: file, big: false };
    let mut interfaces: Vec<(u16, u32)> = Vec::new();
    let mut packets = Vec::new();
    let mut at = 0;
    while at < file.len() && packets.len() < limit {
        if reader.u32(at)? == PCAPNG_SECTION {
            // Each section says how it orders bytes, and counts its interfaces anew.
            reader.big = Reader { bytes: file, big: true }.u32(at + 8)? == PCAPNG_ORDER;
            interfaces.clear();
        }
        let (kind, length) = (reader.u32(at)?, reader.u32(at + 4)? as usize);
        if length < 12 {
            return Err(format!("the block at byte {at} claims to be {length} bytes long"));
        }
        match kind {
            PCAPNG_INTERFACE => interfaces.push((reader.u16(at + 8)?, reader.u32(at + 12)?)),
            PCAPNG_ENHANCED => {
                let interface = reader.u32(at + 8)? as usize;
                let (link, _) =
                    *interfaces.get(interface).ok_or("a packet of an interface that isn't there")?;
                let (captured, whole) = (reader.u32(at + 20)?, reader.u32(at + 24)?);
                let bytes = reader.slice(at + 28, captured as usize)?;
                packets.push(Captured { frame: framed(link, bytes)?, cut: captured < whole });
            }
            PCAPNG_SIMPLE => {
                let (link, limit) = *interfaces.first().ok_or("a packet of an interface that isn't there")?;
                let whole = reader.u32(at + 8)?;
                let captured = if limit == 0 { whole } else { whole.min(limit) };
                let bytes = reader.slice(at + 12, captured as usize)?;
                packets.push(Captured { frame: framed(link, bytes)?, cut: captured < whole });
            }
            _ => {}
        }
        at += length;
    }
    Ok(packets)
}

/// A packet with an Ethernet header, whatever it was captured with.
fn framed(link: u16, packet: &[u8]) -> Result<Vec<u8>, String> {
    let with = |ether_type: [u8; 2], packet: &[u8]| {
        let mut frame = vec![0; 12];
        frame.extend(ether_type);
        frame.extend(packet);
        frame
    };
    let too_short = || "a packet is shorter than its header".to_owned();
    match link {
        ETHERNET => Ok(packet.to_vec()),
        RAW_IP => {
            let version = packet.first().ok_or_else(too_short)? >> 4;
            Ok(with(if version == 6 { [0x86, 0xdd] } else { [0x08, 0x00] }, packet))
        }
        LINUX_SLL => match packet {
            [_, _, _, _, _, _, _, _, _, _, _, _, _, _, high, low, rest @ ..] => Ok(with([*high, *low], rest)),
            _ => Err(too_short()),
        },
        LINUX_SLL2 => match packet {
            [high, low, rest @ ..] if rest.len() >= 18 => Ok(with([*high, *low], &rest[18..])),
            _ => Err(too_short()),
        },
        other => {
            Err(format!("its packets are of link type {other}; Ethernet, raw IP and Linux cooked are known"))
        }
    }
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    bytes: &'a [u8],
    big: bool,
}

impl<'a> Reader<'a> {
    fn u32(self, at: usize) -> Result<u32, String> {
        let bytes = *self.slice(at, 4)?.first_chunk().ok_or("it ends in the middle")?;
        Ok(if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn u16(self, at: usize) -> Result<u16, String> {
        let bytes = *self.slice(at, 2)?.first_chunk().ok_or("it ends in the middle")?;
        Ok(if self.big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn slice(self, at: usize, length: usize) -> Result<&'a [u8], String> {
        let end = at.checked_add(length);
        end.and_then(|end| self.bytes.get(at..end))
            .ok_or_else(|| format!("it ends in the middle, at byte {at}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRAME: [u8; 20] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00, 0x45, 1, 2, 3, 4, 5];

    fn words(words: &[u32], big: bool) -> Vec<u8> {
        words.iter().flat_map(|word| if big { word.to_be_bytes() } else { word.to_le_bytes() }).collect()
    }

    fn pcap(link: u32, packet: &[u8], whole: u32, big: bool) -> Vec<u8> {
        // The version's two halves are equal enough for a reader that doesn't look at them.
        let mut file = words(&[PCAP_MICROSECONDS, 0x0002_0004, 0, 0, 65_535, link], big);
        for second in 0..3 {
            file.extend(words(&[second, 0, packet.len() as u32, whole], big));
            file.extend(packet);
        }
        file
    }

    fn block(kind: u32, body: &[u8], big: bool) -> Vec<u8> {
        let padded = body.len().next_multiple_of(4);
        let length = 12 + padded as u32;
        let mut block = words(&[kind, length], big);
        block.extend(body);
        block.resize(8 + padded, 0);
        block.extend(words(&[length], big));
        block
    }

    fn pcapng(big: bool) -> Vec<u8> {
        let mut file = block(PCAPNG_SECTION, &words(&[PCAPNG_ORDER, 0, u32::MAX, u32::MAX], big), big);
        let link = if big { [0, 1, 0, 0] } else { [1, 0, 0, 0] };
        file.extend(block(PCAPNG_INTERFACE, &[&link[..], &[0; 4]].concat(), big));
        // A block of statistics, which is nobody's packet.
        file.extend(block(5, &[0; 12], big));
        let header = words(&[0, 0, 0, 20, 60], big);
        file.extend(block(PCAPNG_ENHANCED, &[&header[..], &FRAME].concat(), big));
        file.extend(block(PCAPNG_SIMPLE, &[&words(&[20], big)[..], &FRAME].concat(), big));
        file
    }

    #[test]
    fn pcap_of_either_byte_order_is_read_up_to_the_limit() {
        for big in [false, true] {
            let file = pcap(1, &FRAME, 20, big);
            let expected = Captured { frame: FRAME.to_vec(), cut: false };
            assert_eq!(read(&file, 2), Ok(vec![expected.clone(), expected.clone()]));
            assert_eq!(read(&file, 9).map(|packets| packets.len()), Ok(3));
        }
    }

    #[test]
    fn pcapng_of_either_byte_order_is_read() {
        for big in [false, true] {
            let frame = FRAME.to_vec();
            let expected = vec![Captured { frame: frame.clone(), cut: true }, Captured { frame, cut: false }];
            assert_eq!(read(&pcapng(big), 9), Ok(expected));
        }
    }

    #[test]
    fn captures_without_ethernet_headers_get_one() {
        let ip = &FRAME[14..];
        let cooked = [&[0; 14][..], &[0x08, 0x00], ip].concat();
        let cooked2 = [&[0x08, 0x00][..], &[0; 18], ip].concat();
        for (link, packet) in [(101, ip), (113, &cooked), (276, &cooked2)] {
            let packets = read(&pcap(link, packet, 6, false), 1).unwrap();
            assert_eq!(packets[0].frame[12..], FRAME[12..], "link type {link}");
        }
        let fault = read(&pcap(105, ip, 6, false), 1).unwrap_err();
        assert!(fault.starts_with("its packets are of link type 105"), "{fault}");
    }

    #[test]
    fn what_is_no_capture_is_told() {
        assert_eq!(read(b"", 1), Err("it is too short for a capture".into()));
        assert_eq!(read(b"#!/bin/sh", 1), Err("it is neither a pcap nor a pcapng file".into()));
        let file = pcap(1, &FRAME, 20, false);
        assert_eq!(read(&file[..50], 9), Err("it ends in the middle, at byte 40".into()));
    }

    proptest! {
        #[test]
        fn a_damaged_file_is_survived(at in 0..200_usize, byte: u8, big: bool) {
            for mut file in [pcapng(big), pcap(1, &FRAME, 20, big)] {
                if let Some(spot) = file.get_mut(at) {
                    *spot = byte;
                }
                let _ = read(&file, 100);
            }
        }
    }
}
