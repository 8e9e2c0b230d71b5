//! The PROXY protocol (versions 1 and 2, as HAProxy's `proxy-protocol.txt` has it): how a TCP proxy tells the next one
//! whose connection it carries. Reading and writing it is pure; [`receive`] is the only part that waits.
//!
//! Strict, since it decides who a client is: a header that isn't exactly right ends the connection.

mod crc;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str,
};

use tokio::{io::AsyncReadExt, net::TcpStream};

/// What version 2 begins with. No text protocol has it.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The longest header of version 1, with its line end.
const LONGEST_LINE: usize = 107;

/// The longest header of version 2 that is taken, without its first 16 bytes: addresses and some TLVs.
const LONGEST_REST: usize = 4096;

/// TLV type of a checksum over the whole header.
const CHECKSUM: u8 = 3;

/// Whose connection it is, and whereto.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// The two ways of writing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    V1,
    V2,
}

/// Why a header is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("it begins like neither version")]
    NoHeader,
    #[error("its line is not of version 1's form")]
    Line,
    #[error("its line is longer than 107 bytes")]
    LongLine,
    #[error("its version or command is unknown")]
    Command,
    #[error("its address family is not that of a TCP connection")]
    Family,
    #[error("its length does not fit what it says")]
    Length,
    #[error("its checksum is wrong")]
    Checksum,
}

/// Why a connection begins without a header.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    #[error("it can't be read: {0}")]
    Broke(#[from] io::Error),
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Reads a header from the beginning of a connection, and not a byte more. `None`: the proxy speaks for itself.
///
/// # Errors
/// When there is none.
pub async fn receive(stream: &mut TcpStream) -> Result<Option<Ends>, Missing> {
    let mut begin = [0; SIGNATURE.len()];
    stream.read_exact(&mut begin).await?;
    if begin == SIGNATURE {
        let mut rest = [0; 4];
        stream.read_exact(&mut rest).await?;
        let mut header = [&begin[..], &rest].concat();
        let length = rest_length(&header)?;
        header.resize(header.len() + length, 0);
        stream.read_exact(&mut header[16..]).await?;
        return Ok(version_2(&header)?);
    }
    if !begin.starts_with(b"PROXY ") {
        return Err(Malformed::NoHeader.into());
    }
    let mut line = begin.to_vec();
    while !line.ends_with(b"\n") {
        // Looked at first: what stands behind the line is not ours to take.
        let mut more = [0; LONGEST_LINE];
        let room = LONGEST_LINE.saturating_sub(line.len());
        if room == 0 {
            return Err(Malformed::LongLine.into());
        }
        let seen = stream.peek(&mut more[..room]).await?;
        if seen == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let take = more[..seen].iter().position(|&byte| byte == b'\n').map_or(seen, |end| end + 1);
        stream.read_exact(&mut more[..take]).await?;
        line.extend_from_slice(&more[..take]);
    }
    Ok(version_1(&line)?)
}

/// Reads a header of version 1: one whole line.
///
/// # Errors
/// When it is anything else.
pub fn version_1(line: &[u8]) -> Result<Option<Ends>, Malformed> {
    if line.len() > LONGEST_LINE {
        return Err(Malformed::LongLine);
    }
    let text =
        line.strip_suffix(b"\r\n").and_then(|line| line.strip_prefix(b"PROXY ")).ok_or(Malformed::Line)?;
    let text = str::from_utf8(text).map_err(|_| Malformed::Line)?;
    if text.contains(['\r', '\n', '\0']) {
        return Err(Malformed::Line);
    }
    let mut words = text.split(' ');
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(None);
    }
    let addresses = [words.next(), words.next()];
    let ports = [words.next(), words.next()];
    if words.next().is_some() {
        return Err(Malformed::Line);
    }
    let address = |text: Option<&str>| -> Option<IpAddr> {
        match family? {
            "TCP4" => text?.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let port = |text: Option<&str>| -> Option<u16> {
        let text = text?;
        let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        text.parse().ok().filter(|_| plain)
    };
    let end = |index: usize| Some(SocketAddr::new(address(addresses[index])?, port(ports[index])?));
    match (end(0), end(1)) {
        (Some(source), Some(destination)) => Ok(Some(Ends { source, destination })),
        _ => Err(Malformed::Line),
    }
}

/// How long a header of version 2 is behind its first 16 bytes.
fn rest_length(header: &[u8]) -> Result<usize, Malformed> {
    let [.., high, low] = header else { return Err(Malformed::Length) };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length > LONGEST_REST { Err(Malformed::Length) } else { Ok(length) }
}

/// Reads a whole header of version 2.
///
/// # Errors
/// When it is anything else.
pub fn version_2(header: &[u8]) -> Result<Option<Ends>, Malformed> {
    let rest = header.strip_prefix(&SIGNATURE).ok_or(Malformed::NoHeader)?;
    let (&[command, family, high, low], rest) = rest.split_first_chunk().ok_or(Malformed::Length)?;
    if rest.len() != rest_length(&[high, low])? {
        return Err(Malformed::Length);
    }
    let local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed::Command),
    };
    let (ends, tlvs) = match family {
        // Unspecified, or a unix socket's: there is no address to know.
        0x00 => (None, &[][..]),
        0x11 => {
            let (bytes, tlvs) = rest.split_first_chunk::<12>().ok_or(Malformed::Length)?;
            let [a, b, c, d, e, f, g, h, ports @ ..] = *bytes;
            (Some(ends([a, b, c, d].into(), [e, f, g, h].into(), ports)), tlvs)
        }
        0x21 => {
            let (bytes, tlvs) = rest.split_first_chunk::<36>().ok_or(Malformed::Length)?;
            let half = |from: usize| -> [u8; 16] { std::array::from_fn(|index| bytes[from + index]) };
            (Some(ends(half(0).into(), half(16).into(), [bytes[32], bytes[33], bytes[34], bytes[35]])), tlvs)
        }
        0x31 => (None, rest.get(216..).ok_or(Malformed::Length)?),
        // What a proxy says of itself need not be that of a TCP connection.
        _ if local => (None, &[][..]),
        _ => return Err(Malformed::Family),
    };
    check(header, tlvs)?;
    Ok(ends.filter(|_| !local))
}

fn ends(source: IpAddr, destination: IpAddr, ports: [u8; 4]) -> Ends {
    let [a, b, c, d] = ports;
    Ends {
        source: SocketAddr::new(source, u16::from_be_bytes([a, b])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([c, d])),
    }
}

/// Walks through the TLVs, which must fill the header exactly; a checksum among them must be right.
fn check(header: &[u8], mut tlvs: &[u8]) -> Result<(), Malformed> {
    while !tlvs.is_empty() {
        let (&[kind, high, low], rest) = tlvs.split_first_chunk().ok_or(Malformed::Length)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, after) = rest.split_at_checked(length).ok_or(Malformed::Length)?;
        if kind == CHECKSUM {
            let told: [u8; 4] = value.try_into().map_err(|_| Malformed::Length)?;
            let at = header.len() - after.len() - told.len();
            let mut blanked = header.to_vec();
            blanked[at..at + told.len()].fill(0);
            if crc::crc32c(&blanked) != u32::from_be_bytes(told) {
                return Err(Malformed::Checksum);
            }
        }
        tlvs = after;
    }
    Ok(())
}

/// A header; without `ends`, one that says that the proxy speaks for itself.
pub fn written(version: Version, ends: Option<Ends>) -> Vec<u8> {
    match version {
        Version::V1 => written_1(ends),
        Version::V2 => written_2(ends),
    }
}

fn written_1(ends: Option<Ends>) -> Vec<u8> {
    let Some(ends) = ends else { return b"PROXY UNKNOWN\r\n".to_vec() };
    let (source, destination) = alike(ends);
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let ports = (ends.source.port(), ends.destination.port());
    format!("PROXY {family} {source} {destination} {} {}\r\n", ports.0, ports.1).into_bytes()
}

fn written_2(ends: Option<Ends>) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    let Some(ends) = ends else {
        header.extend_from_slice(&[0x20, 0, 0, 0]);
        return header;
    };
    match alike(ends) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            header.extend_from_slice(&[0x21, 0x11, 0, 12]);
            header.extend_from_slice(&source.octets());
            header.extend_from_slice(&destination.octets());
        }
        (source, destination) => {
            header.extend_from_slice(&[0x21, 0x21, 0, 36]);
            header.extend_from_slice(&in_ipv6(source).octets());
            header.extend_from_slice(&in_ipv6(destination).octets());
        }
    }
    header.extend_from_slice(&ends.source.port().to_be_bytes());
    header.extend_from_slice(&ends.destination.port().to_be_bytes());
    header
}

/// Both of one family, since a header has only one.
fn alike(ends: Ends) -> (IpAddr, IpAddr) {
    match (ends.source.ip().to_canonical(), ends.destination.ip().to_canonical()) {
        both @ (IpAddr::V4(_), IpAddr::V4(_)) | both @ (IpAddr::V6(_), IpAddr::V6(_)) => both,
        (source, destination) => (in_ipv6(source).into(), in_ipv6(destination).into()),
    }
}

fn in_ipv6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests;
