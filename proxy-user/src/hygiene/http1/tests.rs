//! What passes and what does not, as a table; and what passes is read by httparse just so.

use proptest::prelude::*;

use super::*;

const LIMITS: HeadLimits = HeadLimits { fields: 100, size: 65_536 };

/// What a stream comes to that is received in pieces of so many bytes: the requests in it, whether it ends within a body,
/// and how much of it was taken.
fn read(limits: HeadLimits, stream: &[u8], piece: usize) -> Result<(usize, bool, usize), Fault> {
    let mut reader = Reader::new(limits);
    let (mut received, mut requests) = (BytesMut::new(), 0);
    for piece in stream.chunks(piece.max(1)) {
        received.extend_from_slice(piece);
        loop {
            if reader.is_in_body() {
                match reader.body(&mut received)? {
                    Piece::Short => break,
                    Piece::Data(_) | Piece::Trailers(_) | Piece::Over => {}
                }
            } else if reader.head(&mut received)?.is_some() {
                requests += 1;
            } else {
                break;
            }
        }
    }
    Ok((requests, reader.is_in_body(), stream.len() - received.len()))
}

fn whole(stream: &[u8]) -> Result<(usize, bool, usize), Fault> {
    read(LIMITS, stream, stream.len())
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
        for piece in [stream.len(), 1, 2, 3] {
            let expected = Ok((heads, false, stream.len()));
            assert_eq!(read(LIMITS, stream.as_bytes(), piece), expected, "{stream:?} by {piece}");
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
        for piece in [stream.len(), 1, 2, 3] {
            assert_eq!(read(LIMITS, stream.as_bytes(), piece), Err(fault), "{stream:?} by {piece}");
        }
    }
}

#[test]
fn a_request_is_read_as_it_was_written() {
    let sent = "\r\nPUT /a?b=%20 HTTP/1.1\r\nHost:a.example\r\nX-Much: \t b  c \t\r\nx-much:\r\nÄ\r\n";
    let (good, bad) = sent.split_at(sent.len() - 4);
    let mut received = BytesMut::from(format!("{good}X: \u{e4}\r\nContent-Length: 2\r\n\r\nok").as_bytes());
    let mut reader = Reader::new(LIMITS);
    let Parts { method, uri, version, headers, .. } = reader.head(&mut received).unwrap().unwrap().parts;
    assert_eq!((method.as_str(), uri.to_string(), version), ("PUT", "/a?b=%20".to_owned(), Version::HTTP_11));
    let fields: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    assert_eq!(
        fields,
        [
            ("host", &b"a.example"[..]),
            ("x-much", b"b  c"),
            ("x-much", b""),
            ("x", "\u{e4}".as_bytes()),
            ("content-length", b"2"),
        ]
    );
    assert_eq!(reader.left(), Some(2));
    assert_eq!(reader.body(&mut received), Ok(Piece::Data("ok".into())));
    assert_eq!(reader.body(&mut received), Ok(Piece::Over));
    assert_eq!(whole(format!("{good}{bad}").as_bytes()), Err(Fault::FieldName));
}

#[test]
fn trailers_come_behind_the_chunks_they_follow() {
    let sent = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\nGET";
    let (mut reader, mut received) = (Reader::new(LIMITS), BytesMut::from(sent));
    assert!(reader.head(&mut received).unwrap().is_some());
    assert_eq!((reader.is_in_body(), reader.left()), (true, None));
    assert_eq!(reader.body(&mut received), Ok(Piece::Data("ok".into())));
    let Ok(Piece::Trailers(trailers)) = reader.body(&mut received) else { panic!("no trailers") };
    assert_eq!(trailers["x-sum"], "1");
    assert_eq!((reader.body(&mut received), &received[..]), (Ok(Piece::Over), &b"GET"[..]));
}

#[test]
fn a_refused_head_is_known_by_its_request_line_if_that_is_good() {
    for (sent, known) in [
        ("GET /b HTTP/1.1\r\nA : b\r\n\r\n", ("GET", "/b", Version::HTTP_11)),
        ("GET /b HTTP/1.0\r\nA : b\r\n\r\n", ("GET", "/b", Version::HTTP_10)),
        ("GET /b HTTP/3.1\r\nA: b\r\n\r\n", ("-", "*", Version::HTTP_11)),
        ("CONNECT a:1 HTTP/1.1\r\nA : b\r\n\r\n", ("-", "*", Version::HTTP_11)),
        ("GET http://[a/ HTTP/1.1\r\nA: b\r\n\r\n", ("-", "*", Version::HTTP_11)),
    ] {
        let (mut reader, mut received) = (Reader::new(LIMITS), BytesMut::from(sent));
        assert!(reader.head(&mut received).is_err(), "{sent:?}");
        let Parts { method, uri, version, .. } = reader.refused(&received);
        assert_eq!((method.as_str(), &*uri.to_string(), version), known, "{sent:?}");
    }
}

#[test]
fn heads_are_limited_in_size_and_number_of_fields() {
    let limits = HeadLimits { fields: 3, size: 200 };
    let of = |stream: &str| read(limits, stream.as_bytes(), stream.len()).map(|(requests, ..)| requests);
    let head = |fields: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(fields));
    assert_eq!(of(&head(3)), Ok(1));
    assert_eq!(of(&head(4)), Err(Fault::TooManyFields));
    let long = "x".repeat(200);
    assert_eq!(of(&format!("GET /{long}")), Err(Fault::TargetTooLong));
    assert_eq!(of(&format!("GET / HTTP/1.1\r\nA: {long}")), Err(Fault::HeadTooLarge));
    assert_eq!(of(&format!("GET / HTTP/1.1\r\nA: {long}\r\n\r\n")), Err(Fault::HeadTooLarge));
    let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
    assert_eq!(of(&format!("{chunked}{}", "A: b\r\n".repeat(4))), Err(Fault::TooManyFields));
}

#[test]
fn what_a_client_wishes_of_its_connection_is_noted() {
    let none = Wishes::default();
    for (field, wishes) in [
        ("A: close", none),
        ("Connection: x, Close", Wishes { close: true, ..none }),
        ("connection: Keep-Alive", Wishes { keep_alive: true, ..none }),
        ("Connection: closed", none),
        ("Expect: 100-Continue", Wishes { expects: true, ..none }),
        ("Expect: 200-ok", none),
        ("TE: gzip;q=0.5, trailers", Wishes { trailers: true, ..none }),
        ("TE: gzip", none),
    ] {
        let mut received = BytesMut::from(format!("GET / HTTP/1.1\r\n{field}\r\n\r\n").as_bytes());
        let asked = Reader::new(LIMITS).head(&mut received).unwrap().unwrap();
        assert_eq!(asked.wishes, wishes, "{field}");
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

/// Where the first head ends for httparse.
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
        prop_assert_eq!(read(LIMITS, &stream, piece), whole(&stream));
    }
}
