//! Any bytes at all as a server's answer, received in pieces of any size: they are read as if they had come in one, and
//! nothing panics. The first byte is the size of the pieces.
#![no_main]

use bytes::BytesMut;
use http::{HeaderMap, Method, StatusCode};
use libfuzzer_sys::fuzz_target;
use proxy_user::upstream::http1::{Framing, Malformed, Piece, answer};

fuzz_target!(|bytes: &[u8]| {
    let Some((piece, stream)) = bytes.split_first() else { return };
    assert_eq!(read(stream, usize::from(*piece)), read(stream, stream.len()));
});

/// What an answer comes to.
#[derive(Debug, Default, PartialEq)]
struct Read {
    head: Option<(StatusCode, HeaderMap, bool)>,
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    over: bool,
    fault: Option<Malformed>,
}

fn read(stream: &[u8], piece: usize) -> Read {
    let (mut received, mut searched, mut read) = (BytesMut::new(), 0, Read::default());
    let mut framing: Option<Framing> = None;
    for piece in stream.chunks(piece.max(1)) {
        received.extend_from_slice(piece);
        if framing.is_none() {
            match answer::take(&mut received, &mut searched, &Method::GET) {
                Ok(None) => continue,
                Ok(Some(head)) => {
                    framing = Some(head.framing);
                    read.head = Some((head.parts.status, head.parts.headers, head.keeps_alive));
                }
                Err(fault) => {
                    read.fault = Some(fault);
                    return read;
                }
            }
        }
        let Some(framing) = &mut framing else { continue };
        loop {
            match framing.next(&mut received) {
                Ok(Piece::Short) => break,
                Ok(Piece::Data(data)) => read.data.extend_from_slice(&data),
                Ok(Piece::Trailers(trailers)) => read.trailers = Some(trailers),
                Ok(Piece::Over) => {
                    read.over = true;
                    return read;
                }
                Err(fault) => {
                    read.fault = Some(fault);
                    return read;
                }
            }
        }
    }
    read
}
