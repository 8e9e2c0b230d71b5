//! Limits and buffers the bodies of requests.

use bytes::BytesMut;
use http_body::Body as _;
use http_body_util::BodyExt as _;

use super::{Halt, Passage};
use crate::body::RequestBody;

/// Refuses a body that is larger, at once where its length is told, else when it turns out to be.
pub fn limit(most: u64, passage: &mut Passage<'_>) -> Result<(), Halt> {
    if passage.body.size_hint().lower() > most {
        return Err(Halt::TooLarge);
    }
    let limit = &passage.exchange.received.most;
    limit.set(Some(limit.get().map_or(most, |known| known.min(most))));
    Ok(())
}

/// Takes the whole body in.
pub async fn buffer(most: u64, passage: &mut Passage<'_>) -> Result<(), Halt> {
    let told = passage.body.size_hint().lower();
    if told > most {
        return Err(Halt::TooLarge);
    }
    if passage.body.is_empty() {
        return Ok(());
    }
    // What the client says it will send isn't here yet: no memory is set aside for it on its word alone.
    let mut data = BytesMut::with_capacity(told.min(64 << 10) as usize);
    let mut trailers = None;
    while let Some(frame) = passage.body.frame().await {
        let frame = frame.map_err(|_| {
            if passage.exchange.received.too_large.get() { Halt::TooLarge } else { Halt::ClientLeft }
        })?;
        match frame.into_data() {
            Ok(piece) => {
                if (data.len() + piece.len()) as u64 > most {
                    return Err(Halt::TooLarge);
                }
                data.extend_from_slice(&piece);
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    *passage.body = RequestBody::whole(data.freeze(), trailers);
    Ok(())
}
