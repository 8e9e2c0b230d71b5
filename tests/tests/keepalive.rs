//! Connections to servers that are kept for later, and turn out to be dead when later comes.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use weir_lab::{
    lab::{addresses::HTTP, client::Browser, stand::Stand},
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// Where the server listens, on the edge's own loopback.
const FORGETFUL: &str = "127.0.0.1:7001";

/// Answers the first request of a connection, and closes it when the second has come.
fn answer_once(mut stream: TcpStream) -> std::io::Result<()> {
    read_head(&mut stream)?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")?;
    read_head(&mut stream)
}

fn read_head(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(())
}

#[test]
fn a_kept_connection_that_dies_under_a_request_fails_nobody_even_with_one_server() -> Done {
    needs!(Need::Root, Need::Weir);
    let stand = Stand::up_with(|_, toml| {
        toml + &format!(
            "\n[entrypoint.http]\nbind = [\"{HTTP}\"]\n\n[service.forgetful]\nservers = [\"{FORGETFUL}\"]\n\
             \n[[route]]\nentrypoint = \"http\"\nservice = \"forgetful\"\n"
        )
    })?;
    let listener = stand.lab.edge.run(|| TcpListener::bind(FORGETFUL))??;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that breaks ends its thread, and shows in the test.
            thread::spawn(move || answer_once(stream));
        }
    });
    let browser = Browser::plain(&stand.lab.visitor, HTTP)?.with_host("forgetful.example");
    for round in 0..6 {
        let reply = browser.get("/")?;
        assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "hello\n"), "round {round}");
    }
    Ok(())
}
