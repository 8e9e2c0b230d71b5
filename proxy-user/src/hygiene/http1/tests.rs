//! What passes and what does not, as a table; and what passes is read by httparse just so.

use proptest::prelude::*;

use super::*;

const LIMITS: HeadLimits = HeadLimits { fields: 100, size: 65_536 };

fn scanned(stream: &[u8]) -> Scanned {
    Scanner::new(LIMITS).scan(stream)
}

/// What a stream comes to that is shown in pieces of one to three bytes, as [`super::super::stream`] shows it.
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

#[test]
fn what_is_well_formed_passes_in_one_piece_and_in_many() {
    for (stream, heads) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 1),
        ("GET / HTTP/1.0\r\n\r\n", 1),
        ("GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n", 2),
        ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n", 2),
        ("POST / HTTP/1.1\r\ncontent-length:  3\t\r\n\r\n\r\n\rGET / HTTP/1.1\r\n\r\n", 2),
        ("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\r\n\r\n", 2),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            2,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nA;x=\"y\"\r\n0123456789\r\n00\r\nA: b\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            2,
        ),
        ("GET / HTTP/1.1\r\nX: \t a\tb \u{e4}\r\nEmpty:\r\n\r\n", 1),
        ("OPTIONS * HTTP/1.1\r\n\r\n", 1),
        ("M-SEARCH http://a/ HTTP/1.1\r\n\r\n", 1),
    ] {
        let mut scanner = Scanner::new(LIMITS);
        assert_eq!(scanner.scan(stream.as_bytes()), Scanned::Whole, "{stream:?}");
        assert_eq!((scanner.heads(), scanner.phase()), (heads, Phase::Idle), "{stream:?}");
        for piece in 1..=3 {
            assert_eq!(in_pieces(stream.as_bytes(), piece), Ok(stream.len()), "{stream:?} by {piece}");
        }
    }
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    let chunked = |rest: &str| format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{rest}");
    let field = |field: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
    for (stream, fault) in [
        ("GET / HTTP/1.1\nHost: a\n\n".to_owned(), Fault::LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n".to_owned(), Fault::LineEnd),
        ("GET / HTTP/1.1\rHost: a\r\n\r\n".to_owned(), Fault::LineEnd),
        (field("A: b\rC: d"), Fault::LineEnd),
        (field("A: b\0c"), Fault::ControlByte),
        (field("A\0: b"), Fault::ControlByte),
        (field("A: b\x7f"), Fault::ControlByte),
        (field("A: b\x0bc"), Fault::ControlByte),
        (field("A: b\r\n c"), Fault::FoldedLine),
        (field("A: b\r\n\tc: d"), Fault::FoldedLine),
        (field("A : b"), Fault::FieldName),
        (field("A\t: b"), Fault::FieldName),
        (field(": b"), Fault::FieldName),
        (field("A b: c"), Fault::FieldName),
        (field("Ab"), Fault::FieldName),
        (field("Ä: b"), Fault::FieldName),
        (field("Content-Length : 5"), Fault::FieldName),
        (field("Content-Length: 5\r\nContent-Length: 6"), Fault::ContentLength),
        (field("Content-Length: 5\r\ncontent-length: 5"), Fault::ContentLength),
        (field("Content-Length: 5, 5"), Fault::ContentLength),
        (field("Content-Length: +5"), Fault::ContentLength),
        (field("Content-Length: -5"), Fault::ContentLength),
        (field("Content-Length: 0x5"), Fault::ContentLength),
        (field("Content-Length: 5 5"), Fault::ContentLength),
        (field("Content-Length: "), Fault::ContentLength),
        (field("Content-Length: 18446744073709551616"), Fault::ContentLength),
        (field("Content-Length: 18446744073709551615"), Fault::ContentLength),
        (field("Content-Length: 5\r\nTransfer-Encoding: chunked"), Fault::TwoLengths),
        (field("Transfer-Encoding: chunked\r\nContent-Length: 5"), Fault::TwoLengths),
        (field("Transfer-Encoding: gzip, chunked"), Fault::TransferEncoding),
        (field("Transfer-Encoding: chunked, gzip"), Fault::TransferEncoding),
        (field("Transfer-Encoding: chunked, chunked"), Fault::TransferEncoding),
        (field("Transfer-Encoding: identity"), Fault::TransferEncoding),
        (field("Transfer-Encoding: xchunked"), Fault::TransferEncoding),
        (field("Transfer-Encoding: \"chunked\""), Fault::TransferEncoding),
        (field("Transfer-Encoding: chunked;q=1"), Fault::TransferEncoding),
        (field("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), Fault::TransferEncoding),
        (field("Transfer-Encoding:"), Fault::TransferEncoding),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), Fault::TransferEncoding),
        ("GET /\r\n".to_owned(), Fault::RequestLine),
        ("GET  / HTTP/1.1\r\n\r\n".to_owned(), Fault::RequestLine),
        ("GET /  HTTP/1.1\r\n\r\n".to_owned(), Fault::RequestLine),
        ("GET / HTTP/1.1 \r\n\r\n".to_owned(), Fault::RequestLine),
        ("GET\t/ HTTP/1.1\r\n\r\n".to_owned(), Fault::RequestLine),
        (" GET / HTTP/1.1\r\n\r\n".to_owned(), Fault::RequestLine),
        ("G(T / HTTP/1.1\r\n\r\n".to_owned(), Fault::RequestLine),
        ("GET / http/1.1\r\n\r\n".to_owned(), Fault::RequestLine),
        ("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n".to_owned(), Fault::RequestLine),
        ("GET / HTTP/0.9\r\n\r\n".to_owned(), Fault::Version),
        ("GET / HTTP/1.2\r\n\r\n".to_owned(), Fault::Version),
        ("GET / HTTP/2.0\r\n\r\n".to_owned(), Fault::Version),
        ("GET / HTTP/1.10\r\n\r\n".to_owned(), Fault::Version),
        ("GET a HTTP/1.1\r\n\r\n".to_owned(), Fault::Target),
        ("GET /\0 HTTP/1.1\r\n\r\n".to_owned(), Fault::ControlByte),
        (chunked("5\nabcde\r\n"), Fault::Chunk),
        (chunked("5\r\nabcdeX"), Fault::Chunk),
        (chunked("5\r\nabcde\n"), Fault::Chunk),
        (chunked("0x5\r\n"), Fault::Chunk),
        (chunked("+5\r\n"), Fault::Chunk),
        (chunked("-1\r\n"), Fault::Chunk),
        (chunked(" 5\r\n"), Fault::Chunk),
        (chunked("5 \r\n"), Fault::Chunk),
        (chunked("5 ;x\r\n"), Fault::Chunk),
        (chunked("\r\n"), Fault::Chunk),
        (chunked(";x\r\n"), Fault::Chunk),
        (chunked("5\rabcde"), Fault::Chunk),
        (chunked("5;a\nabcde"), Fault::Chunk),
        (chunked("5;a\0\r\nabcde"), Fault::Chunk),
        (chunked("10000000000000000\r\n"), Fault::Chunk),
        (chunked("0000000000000005\r\nabcde"), Fault::Chunk),
        (chunked(&format!("5;{}\r\n", "x".repeat(5000))), Fault::Chunk),
        (chunked("0\r\nA : b\r\n\r\n"), Fault::FieldName),
        (chunked("0\r\nA: b\n\r\n"), Fault::LineEnd),
        (chunked("0\r\nContent-Length: 5\r\n\r\n"), Fault::ContentLength),
        (chunked("0\r\nTransfer-Encoding: chunked\r\n\r\n"), Fault::TransferEncoding),
    ] {
        let found = match scanned(stream.as_bytes()) {
            Scanned::BadHead(_, fault) | Scanned::BadBody(_, fault) => Some(fault),
            _ => None,
        };
        assert_eq!(found, Some(fault), "{stream:?}");
        for piece in 1..=3 {
            assert_eq!(in_pieces(stream.as_bytes(), piece), Err(fault), "{stream:?} by {piece}");
        }
    }
}

#[test]
fn a_fault_is_found_where_its_head_begins() {
    let good = "POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nok";
    let stream = format!("{good}GET /b HTTP/1.1\r\nA : b\r\n\r\n");
    let mut scanner = Scanner::new(LIMITS);
    assert_eq!(scanner.scan(stream.as_bytes()), Scanned::BadHead(good.len(), Fault::FieldName));
    assert_eq!(scanner.heads(), 1);
    let line = scanner.request_line(&stream.as_bytes()[good.len()..]);
    assert_eq!(line, Some((&b"GET"[..], &b"/b"[..], true)));
}

#[test]
fn heads_are_limited_in_size_and_number_of_fields() {
    let limits = HeadLimits { fields: 3, size: 200 };
    let of = |stream: &str| Scanner::new(limits).scan(stream.as_bytes());
    let head = |fields: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(fields));
    assert_eq!(of(&head(3)), Scanned::Whole);
    assert_eq!(of(&head(4)), Scanned::BadHead(0, Fault::TooManyFields));
    let long = "x".repeat(200);
    assert_eq!(of(&format!("GET /{long}")), Scanned::BadHead(0, Fault::TargetTooLong));
    assert_eq!(of(&format!("GET / HTTP/1.1\r\nA: {long}")), Scanned::BadHead(0, Fault::HeadTooLarge));
    assert_eq!(of(&format!("GET / HTTP/1.1\r\nA: {long}\r\n\r\n")), Scanned::BadHead(0, Fault::HeadTooLarge));
    let trailers =
        format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{}", "A: b\r\n".repeat(4));
    let body = trailers.find("A: b").unwrap();
    assert_eq!(of(&trailers), Scanned::BadBody(body, Fault::TooManyFields));
}

#[test]
fn what_follows_a_wish_to_switch_waits_for_the_answer() {
    let wish = "GET / HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut scanner = Scanner::new(LIMITS);
    assert_eq!(scanner.scan(&[wish.as_bytes(), b"\x81\x05"].concat()), Scanned::Asked(wish.len()));
    scanner.stays();
    assert_eq!(scanner.scan(b"GET / HTTP/1.1\r\n\r\n"), Scanned::Whole);
    for no_wish in [
        "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nConnection: Upgrade\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        assert_eq!(scanned(no_wish.as_bytes()), Scanned::Whole, "{no_wish:?}");
    }
}

/// Pieces of which heads are made, good and bad ones.
fn heads() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        "GET",
        "POST",
        " ",
        "/",
        "*",
        "http://a/",
        " HTTP/1.1",
        " HTTP/1.0",
        "\r\n",
        "\r\n",
        "\r\n\r\n",
        "\n",
        "\r",
        "Host",
        ":",
        ": ",
        "a",
        "Content-Length: ",
        "5",
        "Transfer-Encoding: ",
        "chunked",
        ",",
        "\t",
        "\0",
        "\u{e4}",
        "Connection: upgrade",
        "Upgrade: x",
        ";",
        "%",
        "{",
        "GET / HTTP/1.1\r\nHost: a\r\n",
    ]);
    prop::collection::vec(pieces, 0..24).prop_map(|pieces| pieces.concat().into_bytes())
}

/// Where the first head ends for httparse, as hyper asks it.
fn httparse_end(stream: &[u8]) -> Option<usize> {
    let mut fields = [httparse::EMPTY_HEADER; 128];
    match httparse::Request::new(&mut fields).parse(stream) {
        Ok(httparse::Status::Complete(end)) => Some(end),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_head_that_passes_is_one_for_httparse_and_ends_at_the_same_byte(
        stream in prop_oneof![heads(), prop::collection::vec(any::<u8>(), 0..64)],
        good: bool,
    ) {
        let stream = if good { [&b"GET /x HTTP/1.1\r\nHost: a\r\n"[..], &stream].concat() } else { stream };
        let mut head = head::Head::default();
        match head.read(&stream, LIMITS) {
            Ok(Some(end)) => prop_assert_eq!(httparse_end(&stream), Some(end)),
            Ok(None) => prop_assert_eq!(httparse_end(&stream), None),
            Err(_) => {}
        }
    }

    #[test]
    fn pieces_change_nothing(stream in heads(), piece in 1usize..9) {
        let mut scanner = Scanner::new(LIMITS);
        let whole = match scanner.scan(&stream) {
            Scanned::Whole => Ok(stream.len()),
            Scanned::Hold(at) | Scanned::Asked(at) => Ok(at),
            Scanned::BadHead(_, fault) | Scanned::BadBody(_, fault) => Err(fault),
        };
        prop_assert_eq!(in_pieces(&stream, piece), whole);
    }
}
