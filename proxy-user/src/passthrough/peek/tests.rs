use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

const NEVER: Duration = Duration::from_secs(30);

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.set_nodelay(true).unwrap();
    (client, listener.accept().await.unwrap().0)
}

/// A hello with an extension of this size, and whether its records are as short as can be.
fn hello_of(padding: usize, record: usize) -> Vec<u8> {
    let name = b"\0\0\0\x0e\0\x0c\0\0\x09a.example";
    let length = u16::try_from(padding).unwrap().to_be_bytes();
    let extensions = [&[0xfa, 0xfa][..], &length, &vec![0; padding], name].concat();
    let body = [
        &[3, 3][..],
        &[1; 32],
        &[0, 0, 2, 0x13, 1, 1, 0],
        &u16::try_from(extensions.len()).unwrap().to_be_bytes(),
        &extensions,
    ]
    .concat();
    let message = [&[1][..], &u32::try_from(body.len()).unwrap().to_be_bytes()[1..], &body].concat();
    message
        .chunks(record)
        .flat_map(|piece| {
            [&[22, 3, 1][..], &u16::try_from(piece.len()).unwrap().to_be_bytes(), piece].concat()
        })
        .collect()
}

/// However it comes, the name is found, and all of it is still there to be read.
#[tokio::test]
async fn a_hello_is_found_and_left_where_it_was() {
    for (padding, record, piece) in [
        (0, 9999, 9999),
        (0, 9999, 1),
        (100, 1, 3),
        (20_000, 16_384, 1400),
        (60_000, 16_384, 4000),
        (40_000, 500, 10_000),
    ] {
        let (mut client, mut server) = pair().await;
        let hello = hello_of(padding, record);
        let sent = hello.clone();
        let sending = tokio::spawn(async move {
            for piece in sent.chunks(piece) {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            client
        });
        let looked = super::hello(&server, &Pipes::default(), NEVER).await;
        let Looked::Hello(found) = looked else { panic!("{looked:?} of {padding} {record} {piece}") };
        assert_eq!(found.name.as_deref(), Some("a.example"));
        let mut read = vec![0; hello.len()];
        server.read_exact(&mut read).await.unwrap();
        assert_eq!(read, hello);
        // What comes later wakes whoever waits for a single byte.
        let mut client = sending.await.unwrap();
        client.write_all(b"!").await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), b'!');
    }
}

#[tokio::test]
async fn whoever_leaves_or_says_something_else_is_not_waited_for() {
    let (client, server) = pair().await;
    drop(client);
    assert!(matches!(super::hello(&server, &Pipes::default(), NEVER).await, Looked::Closed));
    let (mut client, server) = pair().await;
    client.write_all(&hello_of(0, 99)[..50]).await.unwrap();
    client.shutdown().await.unwrap();
    assert!(matches!(super::hello(&server, &Pipes::default(), NEVER).await, Looked::Closed));
    let (mut client, server) = pair().await;
    client.write_all(b"SSH-2.0-x\r\n").await.unwrap();
    assert!(matches!(
        super::hello(&server, &Pipes::default(), NEVER).await,
        Looked::Other(Unreadable::NotTls)
    ));
    let (_client, server) = pair().await;
    assert!(matches!(super::hello(&server, &Pipes::default(), Duration::ZERO).await, Looked::Late));
}
