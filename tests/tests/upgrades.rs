//! Connections that switch from HTTP to something else (WebSocket): a raw client, a raw server, Weir between them.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::ensure;
use nix::sys::signal::Signal;
use weir_lab::{
    lab::{
        addresses::HTTP,
        stand::{PATIENCE, Stand},
        wait,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// Where the server listens, on the edge's own loopback.
const SWITCHING: &str = "127.0.0.1:7000";

/// A server that switches every connection to a protocol that echoes, and tells the request it got first.
fn switching_server(stand: &Stand) -> Done {
    let listener = stand.lab.edge.run(|| TcpListener::bind(SWITCHING))??;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that breaks ends its thread, and shows in the test.
            thread::spawn(move || switch_and_echo(stream));
        }
    });
    Ok(())
}

fn switch_and_echo(mut stream: TcpStream) -> std::io::Result<()> {
    let head = read_head(&mut stream)?;
    stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")?;
    stream.write_all(head.to_lowercase().as_bytes())?;
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => stream.write_all(&buffer[..read])?,
        }
    }
}

/// Byte by byte, so that nothing behind the head is taken.
fn read_head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn connect(stand: &Stand, to: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = stand.lab.visitor.run(|| TcpStream::connect(to))??;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(stream)
}

/// A stand whose port 80 leads to the switching server, and a connection that has switched.
fn switched() -> anyhow::Result<(Stand, TcpStream)> {
    let stand = Stand::up_with(|_, toml| {
        toml + &format!(
            "\n[entrypoint.http]\nbind = [\"{HTTP}\"]\n\n[service.switching]\nservers = [\"{SWITCHING}\"]\n\
             \n[[route]]\nentrypoint = \"http\"\nservice = \"switching\"\n"
        )
    })?;
    switching_server(&stand)?;
    let mut stream = connect(&stand, HTTP)?;
    stream.write_all(
        b"GET /chat HTTP/1.1\r\nHost: chat.example\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
          Keep-Alive: timeout=1\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n",
    )?;
    let head = read_head(&mut stream)?.to_lowercase();
    ensure!(head.starts_with("http/1.1 101 "), "not switched:\n{head}");
    ensure!(head.contains("upgrade: echo\r\n") && head.contains("connection: upgrade\r\n"), "{head}");
    let seen = read_head(&mut stream)?;
    ensure!(seen.contains("connection: upgrade\r\n") && seen.contains("upgrade: websocket\r\n"), "{seen}");
    ensure!(seen.contains("sec-websocket-key: ") && !seen.contains("keep-alive: "), "{seen}");
    Ok((stand, stream))
}

fn echoes(stream: &mut TcpStream, text: &str) -> Done {
    stream.write_all(text.as_bytes())?;
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back)?;
    ensure!(back == text.as_bytes(), "{text:?} came back as {:?}", String::from_utf8_lossy(&back));
    Ok(())
}

/// Waits until the switching server has so many requests to work on, by the daemon's count.
fn under_way(stand: &Stand, count: u64) -> Done {
    wait::until_true(&format!("{count} connections count as under way"), PATIENCE, || {
        let status = stand.weir.status()?;
        let services = status["services"].as_array().cloned().unwrap_or_default();
        let switching = services.iter().find(|service| service["name"] == "switching");
        Ok(switching.is_some_and(|service| service["servers"][0]["active"] == count))
    })
}

#[test]
fn a_connection_that_switches_carries_bytes_both_ways_until_it_ends() -> Done {
    needs!(Need::Root, Need::Weir);
    let (stand, mut stream) = switched()?;
    echoes(&mut stream, "first")?;
    under_way(&stand, 1)?;
    echoes(&mut stream, &"much more ".repeat(100_000))?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest)?;
    ensure!(rest.is_empty(), "{} bytes that nobody sent", rest.len());
    under_way(&stand, 0)
}

#[test]
fn a_reload_does_not_touch_a_connection_that_has_switched() -> Done {
    needs!(Need::Root, Need::Weir);
    let (stand, mut stream) = switched()?;
    let before = stand.weir.status()?["generation"].clone();
    stand.weir.signal(Signal::SIGHUP)?;
    wait::until_true("the reload", PATIENCE, || Ok(stand.weir.status()?["generation"] != before))?;
    echoes(&mut stream, "still here")
}
