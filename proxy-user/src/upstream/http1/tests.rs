//! Whole exchanges over loopback, with servers that keep to the rules and servers that don't.

use http::{Method, Request, StatusCode};
use proptest::prelude::*;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    runtime::Builder,
};

use super::*;

/// Runs a server that does as it is told by `serve` with one connection, and a client that does `ask` with its end.
fn over_loopback<S, C, T>(serve: impl FnOnce(TcpStream) -> S, ask: impl FnOnce(Box<Connection>) -> C) -> T
where
    S: Future<Output = ()>,
    C: Future<Output = T>,
{
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let server = listener.accept().await.unwrap().0;
        tokio::join!(serve(server), ask(Connection::new(Stream::Plain(client)))).1
    })
}

fn get() -> request::Parts {
    Request::get("/").header("host", "a.example").body(()).unwrap().into_parts().0
}

/// What a server receives up to the empty line.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// The answer's body to its end, or the fault that ended it.
async fn read_body(connection: &mut Connection) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    while let Some(frame) = poll_fn(|cx| connection.poll_frame(cx)).await {
        if let Ok(data) = frame?.into_data() {
            body.extend_from_slice(&data);
        }
    }
    Ok(body)
}

/// Asks once, of a server that sends `answer` to whatever it is asked and closes.
fn asked(answer: &'static [u8]) -> Result<(StatusCode, Vec<u8>), Fault> {
    over_loopback(
        |mut server| async move {
            read_head(&mut server).await;
            server.write_all(answer).await.unwrap();
        },
        |mut connection| async move {
            let head = connection.exchange(&get(), RequestBody::Empty, Early::default()).await?;
            Ok((head.status, read_body(&mut connection).await?))
        },
    )
}

#[test]
fn a_connection_is_good_for_one_request_after_the_other() {
    let answer = |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let bodies = over_loopback(
        |mut server| async move {
            for body in ["one", "", "three"] {
                assert_eq!(read_head(&mut server).await, "GET / HTTP/1.1\r\nhost: a.example\r\n\r\n");
                server.write_all(answer(body).as_bytes()).await.unwrap();
            }
        },
        |mut connection| async move {
            let mut bodies = Vec::new();
            for _ in 0..3 {
                assert!(connection.is_quiet());
                connection.exchange(&get(), RequestBody::Empty, Early::default()).await.unwrap();
                bodies.push(read_body(&mut connection).await.unwrap());
                assert!(connection.is_reusable());
            }
            bodies
        },
    );
    assert_eq!(bodies, [&b"one"[..], b"", b"three"]);
}

#[test]
fn what_comes_before_the_answer_proper_is_not_taken_for_it() {
    let answer = asked(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n\
          HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
    );
    assert_eq!(answer.unwrap(), (StatusCode::OK, b"hi".to_vec()));
}

#[test]
fn an_answer_without_a_length_ends_when_the_server_closes() {
    assert_eq!(asked(b"HTTP/1.1 200 OK\r\n\r\nall of it").unwrap().1, b"all of it");
}

#[test]
fn an_answer_that_breaks_off_is_no_answer() {
    for answer in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        assert!(matches!(asked(answer), Err(Fault::Closed)), "{answer:?}");
    }
}

#[test]
fn a_server_that_switches_unasked_is_refused() {
    assert!(matches!(
        asked(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        Err(Fault::Malformed(Malformed::Unasked))
    ));
}

#[test]
fn what_follows_an_answer_spoils_the_connection() {
    let reusable = over_loopback(
        |mut server| async move {
            read_head(&mut server).await;
            server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhiHTTP/1.1 200").await.unwrap();
        },
        |mut connection| async move {
            connection.exchange(&get(), RequestBody::Empty, Early::default()).await.unwrap();
            read_body(&mut connection).await.unwrap();
            connection.is_reusable()
        },
    );
    assert!(!reusable);
}

#[test]
fn a_connection_that_the_server_closed_is_not_quiet() {
    let quiet = over_loopback(
        |server| async move { drop(server) },
        |mut connection| async move {
            // The close has arrived once a read sees it.
            assert_eq!(connection.stream.read(&mut [0; 1]).await.unwrap(), 0);
            connection.is_quiet()
        },
    );
    assert!(!quiet);
}

#[test]
fn after_a_switch_what_came_behind_the_head_is_read_first() {
    let read = over_loopback(
        |mut server| async move {
            read_head(&mut server).await;
            server.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\nfirst ").await.unwrap();
            server.write_all(b"second").await.unwrap();
        },
        |mut connection| async move {
            let mut head = get();
            head.headers.insert(header::UPGRADE, http::HeaderValue::from_static("x"));
            connection.exchange(&head, RequestBody::Empty, Early::default()).await.unwrap();
            let mut read = String::new();
            connection.read_to_string(&mut read).await.unwrap();
            read
        },
    );
    assert_eq!(read, "first second");
}

/// The outcome of reading `sent`, cut into pieces of `step` bytes: head and body, or the fault.
fn understood(sent: &[u8], step: usize) -> Result<Option<(String, Vec<u8>)>, String> {
    let (mut received, mut searched) = (BytesMut::new(), 0);
    let mut head = None;
    let mut body = Vec::new();
    for piece in sent.chunks(step) {
        received.extend_from_slice(piece);
        if head.is_none() {
            head = answer::take(&mut received, &mut searched, &Method::GET).map_err(|why| why.to_string())?;
        }
        let Some(head) = &mut head else { continue };
        loop {
            match head.framing.next(&mut received).map_err(|why| why.to_string())? {
                Piece::Data(data) => body.extend_from_slice(&data),
                Piece::Trailers(_) => {}
                Piece::Short | Piece::Over => break,
            }
        }
    }
    Ok(head.map(|head| (format!("{:?}", head.parts), body)))
}

proptest! {
    #[test]
    fn nonsense_is_understood_the_same_however_it_is_cut(
        start in prop::sample::select(vec!["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]),
        rest in "([A-Za-z0-9:;, \t\r\n]|\r\n|Content-Length: |[0-9a-f]{1,3}\r\n){0,60}",
        step in 1_usize..9,
    ) {
        let sent = [start.as_bytes(), rest.as_bytes()].concat();
        let (whole, cut) = (understood(&sent, usize::MAX), understood(&sent, step));
        // Cut to pieces, a fault may show before what would have been a fault otherwise is there.
        prop_assert!(whole == cut || (whole.is_err() && cut.is_err()), "{:?}\n{:?}", whole, cut);
    }
}

#[test]
fn reads_grow_with_what_comes_and_shrink_again() {
    let full = |read| next_read(read, read, read);
    let grown: Vec<_> = std::iter::successors(Some(FIRST_READ), |read| Some(full(*read))).take(6).collect();
    assert_eq!(grown, [8, 16, 32, 64, 128, 128].map(|kib| kib * 1024));
    // What is within reason leaves it as it is.
    assert_eq!(next_read(LARGEST_READ, LARGEST_READ / 8, LARGEST_READ), LARGEST_READ);
    assert_eq!(next_read(LARGEST_READ, 200, LARGEST_READ), LARGEST_READ / 2);
    assert_eq!(next_read(FIRST_READ, 200, FIRST_READ), FIRST_READ);
}
