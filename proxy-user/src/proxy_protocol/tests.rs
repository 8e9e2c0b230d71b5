//! Headers that are right, and all the ways in which they are not.

use proptest::prelude::*;

use super::*;

fn ends(source: &str, destination: &str) -> Option<Ends> {
    Some(Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
}

#[test]
fn lines_of_version_1_are_read() {
    for (line, expected) in [
        ("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", ends("192.0.2.1:56324", "198.51.100.1:443")),
        ("PROXY TCP6 2001:db8::1 ::1 0 65535\r\n", ends("[2001:db8::1]:0", "[::1]:65535")),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN ffff::1 whatever 1 2\r\n", None),
    ] {
        assert_eq!(version_1(line.as_bytes()), Ok(expected), "{line:?}");
    }
}

#[test]
fn lines_that_are_not_exactly_right_are_refused() {
    for line in [
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443",
        "PROXY  TCP4 192.0.2.1 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 192.0.2.1  198.51.100.1 56324 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 \r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 1\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 +1 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 01 443\r\n",
        "PROXY TCP4 192.0.2.01 198.51.100.1 1 443\r\n",
        "PROXY TCP4 2001:db8::1 ::1 1 443\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.1 1 443\r\n",
        "PROXY UDP4 192.0.2.1 198.51.100.1 1 443\r\n",
        "PROXY\r\n",
        "PROXY \r\n",
        "proxy TCP4 192.0.2.1 198.51.100.1 1 443\r\n",
        "GET / HTTP/1.1\r\n",
        "PROXY UNKNOWN \r\n\r\n",
    ] {
        assert_eq!(version_1(line.as_bytes()), Err(Malformed::Line), "{line:?}");
    }
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
    assert_eq!(version_1(long.as_bytes()), Err(Malformed::LongLine));
}

fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, rest].concat()
}

const TCP4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];

#[test]
fn headers_of_version_2_are_read() {
    let named = ends("192.0.2.1:56324", "198.51.100.1:443");
    let with_tlv = [&TCP4[..], &[0x02, 0, 1, b'a', 0x20, 0, 0]].concat();
    for (header, expected) in [
        (header(0x21, 0x11, &TCP4), named),
        (header(0x21, 0x11, &with_tlv), named),
        (header(0x20, 0x11, &TCP4), None),
        (header(0x20, 0x00, &[]), None),
        (header(0x21, 0x00, &[1, 2, 3]), None),
        (header(0x21, 0x31, &[0; 216]), None),
        (header(0x20, 0xff, &[1]), None),
    ] {
        assert_eq!(version_2(&header), Ok(expected), "{header:x?}");
    }
}

#[test]
fn headers_that_contradict_themselves_are_refused() {
    let mut short = header(0x21, 0x11, &TCP4);
    short.pop();
    for (header, expected) in [
        (header(0x11, 0x11, &TCP4), Malformed::Command),
        (header(0x22, 0x11, &TCP4), Malformed::Command),
        (header(0x21, 0x12, &TCP4), Malformed::Family),
        (header(0x21, 0x21, &TCP4), Malformed::Length),
        (header(0x21, 0x11, &TCP4[..11]), Malformed::Length),
        (header(0x21, 0x11, &[&TCP4[..], &[2, 0]].concat()), Malformed::Length),
        (header(0x21, 0x11, &[&TCP4[..], &[2, 0, 9, 1]].concat()), Malformed::Length),
        (header(0x21, 0x11, &[&TCP4[..], &[3, 0, 4, 1, 2, 3, 4]].concat()), Malformed::Checksum),
        (header(0x21, 0x11, &[&TCP4[..], &[3, 0, 1, 1]].concat()), Malformed::Length),
        (header(0x21, 0x31, &[0; 215]), Malformed::Length),
        (header(0x21, 0x11, &[&TCP4[..], &[0; 5000]].concat()), Malformed::Length),
        (short, Malformed::Length),
    ] {
        assert_eq!(version_2(&header), Err(expected), "{header:x?}");
    }
}

#[test]
fn a_checksum_that_is_right_passes() {
    let mut with_sum = header(0x21, 0x11, &[&TCP4[..], &[3, 0, 4, 0, 0, 0, 0]].concat());
    let sum = crc::crc32c(&with_sum).to_be_bytes();
    let at = with_sum.len() - 4;
    with_sum[at..].copy_from_slice(&sum);
    assert_eq!(version_2(&with_sum), Ok(ends("192.0.2.1:56324", "198.51.100.1:443")));
    with_sum[20] ^= 1;
    assert_eq!(version_2(&with_sum), Err(Malformed::Checksum));
}

#[test]
fn ends_of_two_families_are_told_in_one() {
    let mixed = ends("192.0.2.1:1", "[2001:db8::1]:2");
    assert_eq!(written(Version::V1, mixed), b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 1 2\r\n");
    assert_eq!(version_2(&written(Version::V2, mixed)), Ok(ends("[::ffff:192.0.2.1]:1", "[2001:db8::1]:2")));
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_it_was(source: SocketAddr, destination: SocketAddr) {
        prop_assume!(source.is_ipv4() == destination.is_ipv4());
        // A header carries neither flow labels nor scopes, nor IPv4 in IPv6's clothes.
        let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
        let ends = Ends { source: plain(source), destination: plain(destination) };
        prop_assume!(ends.source.is_ipv4() == ends.destination.is_ipv4());
        let line = written(Version::V1, Some(ends));
        prop_assert!(line.len() <= LONGEST_LINE);
        prop_assert_eq!(version_1(&line), Ok(Some(ends)));
        prop_assert_eq!(version_2(&written(Version::V2, Some(ends))), Ok(Some(ends)));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = version_1(&bytes);
        let _ = version_2(&bytes);
        let _ = version_2(&[&SIGNATURE[..], &bytes].concat());
        let _ = version_1(&[b"PROXY ", &bytes[..], b"\r\n"].concat());
    }
}
