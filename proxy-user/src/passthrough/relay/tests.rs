use std::{
    collections::hash_map::DefaultHasher,
    hash::Hasher,
    sync::atomic::{AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

/// A client, a server, and a relay between them.
async fn through() -> (TcpStream, TcpStream, tokio::task::JoinHandle<(Ended, Carried)>) {
    let ((client, one), (other, server)) = (pair().await, pair().await);
    let relaying = tokio::task::spawn_local(async move {
        let carried = Carried::default();
        let moved = AtomicU64::new(0);
        let tell = |bytes: u64| {
            moved.fetch_add(bytes, Ordering::Relaxed);
        };
        let ended = relay(&one, &other, &Pipes::default(), &carried, [&tell, &tell]).await;
        assert_eq!(moved.load(Ordering::Relaxed), carried.to_server.get() + carried.to_client.get());
        if let Ended::Broken(side, _) = &ended {
            pass_reset_on(if *side == Side::Client { &other } else { &one }).await;
        }
        (ended, carried)
    });
    (client, server, relaying)
}

async fn local(test: impl Future<Output = ()>) {
    tokio::task::LocalSet::new().run_until(test).await;
}

/// The same bytes whoever asks, different at each place.
fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..length).map(|_| random.u8(..)).collect()
}

fn sum(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

#[tokio::test]
async fn bytes_arrive_as_they_were_both_ways_at_once() {
    local(async {
        for (seed, (up, down)) in
            [(0, 1), (1, 0), (517, 3000), (70_000, 5_000_000), (3_000_000, 100), (1_000_003, 999_983)]
                .into_iter()
                .enumerate()
        {
            let (client, server, relaying) = through().await;
            let talk = |stream: TcpStream, says: Vec<u8>| async move {
                let (mut reads, mut writes) = stream.into_split();
                let writing = async move {
                    writes.write_all(&says).await.unwrap();
                    writes.shutdown().await.unwrap();
                };
                let mut heard = Vec::new();
                let (read, ()) = tokio::join!(reads.read_to_end(&mut heard), writing);
                read.unwrap();
                heard
            };
            let (ups, downs) = (pattern(seed as u64, up), pattern(99, down));
            let (sums, expected) = ((sum(&ups), sum(&downs)), (up as u64, down as u64));
            let (to_client, to_server) = tokio::join!(talk(client, ups), talk(server, downs));
            assert_eq!((sum(&to_server), sum(&to_client)), sums, "{up} up, {down} down");
            let (ended, carried) = relaying.await.unwrap();
            assert!(matches!(ended, Ended::Closed(_)), "{ended:?}");
            assert_eq!((carried.to_server.get(), carried.to_client.get()), expected);
        }
    })
    .await;
}

#[tokio::test]
async fn one_side_may_have_said_all_and_still_listen() {
    local(async {
        let (mut client, mut server, relaying) = through().await;
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = Vec::new();
        server.read_to_end(&mut question).await.unwrap();
        assert_eq!(question, b"question");
        for _ in 0..3 {
            server.write_all(b"answer").await.unwrap();
            let mut answer = [0; 6];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"answer");
        }
        server.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        assert!(matches!(relaying.await.unwrap().0, Ended::Closed(Side::Client)));
    })
    .await;
}

#[tokio::test]
async fn a_reset_goes_on_to_the_other_side() {
    local(async {
        for breaks in [Side::Client, Side::Server] {
            for said_all in [false, true] {
                let (client, server, relaying) = through().await;
                let (mut one, mut other) = match breaks {
                    Side::Client => (client, server),
                    Side::Server => (server, client),
                };
                if said_all {
                    one.shutdown().await.unwrap();
                    assert_eq!(other.read(&mut [0; 1]).await.unwrap(), 0);
                }
                socket2::SockRef::from(&one).set_linger(Some(Duration::ZERO)).unwrap();
                drop(one);
                let (ended, _) = relaying.await.unwrap();
                assert!(matches!(ended, Ended::Broken(side, _) if side == breaks), "{ended:?} {said_all}");
                if !said_all {
                    let error = other.read(&mut [0; 1]).await.unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_said_before_a_reset_still_arrives() {
    local(async {
        let (mut client, mut server, relaying) = through().await;
        let answer = pattern(1, 100_000);
        server.write_all(&answer).await.unwrap();
        let mut heard = vec![0; answer.len()];
        client.read_exact(&mut heard[..1000]).await.unwrap();
        socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
        // What the server's own kernel has not sent yet is lost with it: it must be on its way.
        while unsent(&server) > 0 {
            tokio::task::yield_now().await;
        }
        drop(server);
        let (ended, _) = relaying.await.unwrap();
        assert!(matches!(ended, Ended::Broken(Side::Server, _)), "{ended:?}");
        client.read_exact(&mut heard[1000..]).await.unwrap();
        assert_eq!(sum(&heard), sum(&answer));
    })
    .await;
}

/// Who doesn't read holds up who writes: between the two, no more is held than sockets and a pipe take.
#[tokio::test]
async fn a_reader_that_stops_stops_the_writer() {
    local(async {
        let (client, mut server, relaying) = through().await;
        let chunk = vec![7; 1 << 20];
        let mut written = 0;
        while let Ok(more) = tokio::time::timeout(Duration::from_millis(300), server.write(&chunk)).await {
            written += more.unwrap();
            assert!(written < 64 << 20, "it has no end");
        }
        drop((client, server));
        relaying.await.unwrap();
    })
    .await;
}
