//! Any bytes at all, received in pieces of any size: they are read as if they had come in one, and the first head is read
//! by httparse just so.
#![no_main]

use bytes::BytesMut;
use http::request::Parts;
use libfuzzer_sys::fuzz_target;
use proxy_user::hygiene::{
    Fault,
    http1::{HeadLimits, Piece, Reader},
};

const LIMITS: HeadLimits = HeadLimits { fields: 20, size: 65_536 };

fuzz_target!(|bytes: &[u8]| {
    let Some((piece, stream)) = bytes.split_first() else { return };
    let whole = read(stream, stream.len());
    assert_eq!(read(stream, usize::from(*piece)), whole);
    let Some(first) = whole.requests.first() else { return };
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut fields);
    assert!(matches!(request.parse(stream), Ok(httparse::Status::Complete(_))));
    assert_eq!(request.method, Some(first.method.as_str()));
    let theirs = request.headers.iter().map(|field| field.value);
    assert!(theirs.eq(request.headers.iter().filter_map(|field| {
        let nth = request.headers.iter().take_while(|other| !std::ptr::eq(*other, field));
        let before = nth.filter(|other| other.name.eq_ignore_ascii_case(field.name)).count();
        first.headers.get_all(field.name).iter().nth(before).map(http::HeaderValue::as_bytes)
    })));
});

/// What a stream comes to.
#[derive(Debug, Default)]
struct Read {
    requests: Vec<Parts>,
    data: Vec<u8>,
    taken: usize,
    fault: Option<Fault>,
}

impl PartialEq for Read {
    fn eq(&self, other: &Self) -> bool {
        let said =
            |parts: &Parts| (parts.method.clone(), parts.uri.clone(), parts.version, parts.headers.clone());
        // Where in a refused stream the fault is found depends on what came before it was looked at.
        (self.fault.is_some() || self.taken == other.taken)
            && self.fault == other.fault
            && self.data == other.data
            && self.requests.iter().map(said).eq(other.requests.iter().map(said))
    }
}

fn read(stream: &[u8], piece: usize) -> Read {
    let mut reader = Reader::new(LIMITS);
    let (mut received, mut read) = (BytesMut::new(), Read::default());
    for piece in stream.chunks(piece.max(1)) {
        received.extend_from_slice(piece);
        loop {
            if reader.is_in_body() {
                match reader.body(&mut received) {
                    Ok(Piece::Short) => break,
                    Ok(Piece::Data(data)) => read.data.extend_from_slice(&data),
                    Ok(Piece::Trailers(_) | Piece::Over) => {}
                    Err(fault) => return Read { fault: Some(fault), ..read },
                }
            } else {
                match reader.head(&mut received) {
                    Ok(Some(asked)) => read.requests.push(asked.parts),
                    Ok(None) => break,
                    Err(fault) => {
                        let _ = reader.refused(&received);
                        return Read { fault: Some(fault), ..read };
                    }
                }
            }
        }
    }
    read.taken = stream.len() - received.len();
    read
}
