//! Any bytes at all on a stream of HTTP/3, in pieces of any size: the lengths of its frames are what a plain reading of the
//! standard makes of the whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy_user::connection::http3::framing::{Framing, TooLong};

const MOST: u64 = 300;

fuzz_target!(|bytes: &[u8]| {
    let Some((&how, stream)) = bytes.split_first() else { return };
    let one_way = how & 1 == 1;
    let new = || if one_way { Framing::of_one_way(MOST) } else { Framing::of_request(MOST) };
    let expected = plainly(stream, one_way);
    let mut framing = new();
    assert_eq!(framing.pass(stream).map(|data| (data, framing.is_between_frames())), expected);
    let mut framing = new();
    let pieces = stream.chunks(usize::from(how >> 1).max(1)).map(|piece| framing.pass(piece));
    let data: Result<u64, TooLong> = pieces.sum();
    assert_eq!(data.map(|data| (data, framing.is_between_frames())), expected);
});

/// How much of DATA there is, and whether the stream may end behind it.
fn plainly(mut stream: &[u8], one_way: bool) -> Result<(u64, bool), TooLong> {
    if one_way {
        match number(&mut stream) {
            // Not a word yet, or not all of the type.
            None => return Ok((0, false)),
            Some(0) => {}
            Some(_) => return Ok((0, true)),
        }
    }
    let mut data = 0;
    while !stream.is_empty() {
        let Some(kind) = number(&mut stream) else { return Ok((data, false)) };
        let Some(length) = number(&mut stream) else { return Ok((data, false)) };
        if kind != 0 && length > MOST {
            return Err(TooLong);
        }
        let here = length.min(stream.len() as u64);
        data += if kind == 0 { here } else { 0 };
        stream = &stream[here as usize..];
        if here < length {
            return Ok((data, false));
        }
    }
    Ok((data, true))
}

/// Takes a variable-length integer, if all of it is there.
fn number(stream: &mut &[u8]) -> Option<u64> {
    let length = 1 << (stream.first()? >> 6);
    let (bytes, rest) = stream.split_at_checked(length)?;
    *stream = rest;
    Some(
        bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
            & (u64::MAX >> (64 - (8 * length - 2))),
    )
}
