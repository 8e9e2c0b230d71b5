//! Any bytes at all, in pieces of any size: the scanner comes to the same verdict as on the whole, and what passes is read
//! by httparse just so.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy_user::hygiene::{
    Fault,
    http1::{HeadLimits, Scanned, Scanner},
};

const LIMITS: HeadLimits = HeadLimits { fields: 20, size: 65_536 };

fuzz_target!(|bytes: &[u8]| {
    let Some((piece, stream)) = bytes.split_first() else { return };
    let mut scanner = Scanner::new(LIMITS);
    let whole = match scanner.scan(stream) {
        Scanned::Whole => Ok(stream.len()),
        Scanned::Hold(at) | Scanned::Asked(at) => Ok(at),
        Scanned::BadHead(_, fault) | Scanned::BadBody(_, fault) => Err(fault),
    };
    assert_eq!(in_pieces(stream, usize::from(*piece).max(1)), whole);
    // The first head ends for httparse where it ends here.
    if whole.is_ok() && scanner.heads() > 0 {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        assert!(matches!(httparse::Request::new(&mut fields).parse(stream), Ok(httparse::Status::Complete(_))));
    }
});

fn in_pieces(stream: &[u8], piece: usize) -> Result<usize, Fault> {
    let mut scanner = Scanner::new(LIMITS);
    let (mut held, mut passed) = (Vec::new(), 0);
    for piece in stream.chunks(piece) {
        held.extend_from_slice(piece);
        match scanner.scan(&held) {
            Scanned::Whole => {
                passed += held.len();
                held.clear();
            }
            Scanned::Hold(at) => {
                passed += at;
                held.drain(..at);
            }
            Scanned::Asked(at) => return Ok(passed + at),
            Scanned::BadHead(_, fault) | Scanned::BadBody(_, fault) => return Err(fault),
        }
    }
    Ok(passed)
}
