//! Connections that go nowhere end at once, and so that a client can tell why: TLS ones with an alert, others with a reset.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Closed with unread bytes, the kernel would reset the connection, and the alert might be lost. So what the client has sent is
/// read, for so long and so much.
const LINGER: Duration = Duration::from_secs(1);
const MOST: usize = 128 * 1024;

/// RFC 8446 §6.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alert {
    /// The hello can't be read.
    DecodeError = 50,
    /// No server can be reached.
    InternalError = 80,
    /// No route takes the name.
    UnrecognizedName = 112,
}

/// Ends a connection whose client waits for an answer to its hello.
pub async fn alert(mut stream: TcpStream, alert: Alert) {
    // Nobody has agreed on a version yet: the record says 1.2, as that of a server's hello does in all versions.
    let record = [21, 3, 3, 0, 2, 2, alert as u8];
    let mut buffer = [0; 4096];
    let ending = async {
        stream.write_all(&record).await?;
        stream.shutdown().await?;
        let mut left = MOST;
        while left > 0 {
            match stream.read(&mut buffer).await? {
                0 => break,
                length => left = left.saturating_sub(length),
            }
        }
        std::io::Result::Ok(())
    };
    // Whatever goes wrong, it ends.
    let _ = timeout(LINGER, ending).await;
}

/// Ends one that speaks something else, or nothing.
pub fn reset(stream: &TcpStream) {
    // Fails only if the client is gone already.
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
