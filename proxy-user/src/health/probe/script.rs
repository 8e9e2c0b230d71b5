//! A probe of a few lines: what to send, and what must come back.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::broken;
use crate::{
    clock::Moment,
    config::model::Step,
    health::{Health, tracker::ProbeFault},
};

/// A text must come within so many bytes.
const MOST: usize = 64 * 1024;

pub async fn play<S>(mut stream: S, steps: &[Step], health: &Health) -> Result<(), ProbeFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // What has come and belongs to no step yet.
    let mut read = Vec::new();
    for step in steps {
        match step {
            Step::Send(bytes) => {
                stream.write_all(bytes).await.map_err(broken)?;
                stream.flush().await.map_err(broken)?;
            }
            Step::Expect(text) => expect(&mut stream, text, &mut read, health).await?,
        }
    }
    let _ = stream.shutdown().await;
    Ok(())
}

async fn expect<S>(
    stream: &mut S,
    text: &Bytes,
    read: &mut Vec<u8>,
    health: &Health,
) -> Result<(), ProbeFault>
where
    S: AsyncRead + Unpin,
{
    let missing = |came: &[u8]| {
        let came = came.get(..came.len().min(80)).unwrap_or_default();
        ProbeFault::Unexpected(format!(
            "`{}` did not come, but `{}`",
            text.escape_ascii(),
            came.escape_ascii()
        ))
    };
    loop {
        if let Some(at) = memchr::memmem::find(read, text) {
            read.drain(..at + text.len());
            return Ok(());
        }
        if read.len() >= MOST || stream.read_buf(read).await.map_err(broken)? == 0 {
            return Err(missing(read));
        }
        health.heard(Moment::now());
    }
}
