//! A client, and a server, that say exactly the bytes that a test wants them to say.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context, bail};

use super::{namespace::Namespace, stand::PATIENCE};

/// A connection, byte for byte.
#[derive(Debug)]
pub struct Raw {
    pub stream: TcpStream,
}

/// An answer of HTTP/1 whose body has a length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// In lower case, with its status line and without its last line end.
    pub head: String,
    pub body: String,
}

impl Raw {
    pub fn connect(namespace: &Namespace, to: SocketAddr) -> anyhow::Result<Self> {
        let stream =
            namespace.run(|| TcpStream::connect(to))?.with_context(|| format!("can't reach {to}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream })
    }

    pub fn say(&mut self, bytes: impl AsRef<[u8]>) -> anyhow::Result<()> {
        self.stream.write_all(bytes.as_ref()).context("can't write")
    }

    /// Says nothing more, and goes on listening.
    pub fn end(&self) -> anyhow::Result<()> {
        self.stream.shutdown(Shutdown::Write).context("can't end")
    }

    /// Byte by byte, so that nothing behind the head is taken.
    pub fn head(&mut self) -> anyhow::Result<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if self.stream.read(&mut byte).context("no whole head")? == 0 {
                bail!("the connection ended within a head: {:?}", String::from_utf8_lossy(&head));
            }
            head.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&head).to_lowercase())
    }

    pub fn answer(&mut self) -> anyhow::Result<Answer> {
        let head = self.head()?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        self.stream.read_exact(&mut body).context("the body broke off")?;
        Ok(Answer { status, head, body: String::from_utf8_lossy(&body).into_owned() })
    }

    /// Everything that still comes, to the end of the connection. A reset is an end too.
    pub fn rest(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Err(why) if why.kind() != ErrorKind::ConnectionReset => Err(why).context("it doesn't end"),
            _ => Ok(rest),
        }
    }

    /// Whether the connection has ended, with nothing more to read; waits for it.
    pub fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.rest()?.is_empty())
    }

    pub fn with_patience(self, patience: Duration) -> anyhow::Result<Self> {
        self.stream.set_read_timeout(Some(patience))?;
        Ok(self)
    }
}

/// Listens in `namespace`, and has `converse` deal with each connection, numbered from 0, in a thread of its own, for as
/// long as the test runs.
pub fn serve(
    namespace: &Namespace,
    at: &str,
    converse: impl Fn(usize, Raw) -> anyhow::Result<()> + Clone + Send + 'static,
) -> anyhow::Result<()> {
    let listener = namespace.run(|| TcpListener::bind(at))??;
    thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let converse = converse.clone();
            // A connection that breaks ends its thread, and shows in the test.
            thread::spawn(move || converse(number, Raw { stream }));
        }
    });
    Ok(())
}
