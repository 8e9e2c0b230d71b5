//! A probe over gRPC: `grpc.health.v1.Health/Check`. Its two messages have one field each, so they are written and read
//! here by hand.

use bytes::{Buf, BufMut as _, Bytes, BytesMut};
use http::{HeaderValue, Method, Response, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Target, broken, over_http, request};
use crate::health::tracker::ProbeFault;

const CHECK: &str = "/grpc.health.v1.Health/Check";

/// The answer is a few bytes long.
const MOST_BODY: usize = 4096;

/// Of `HealthCheckResponse.ServingStatus`.
const SERVING: u64 = 1;

pub async fn ask<S>(stream: S, target: &Target, service: &str) -> Result<(), ProbeFault>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut request = request(target, &Method::POST, CHECK, true, question(service))?;
    let fields = request.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    fields.insert(header::TE, HeaderValue::from_static("trailers"));
    over_http::exchange(stream, request, true, judge).await
}

async fn judge(answer: Response<Incoming>) -> Result<(), ProbeFault> {
    if !answer.status().is_success() {
        return Err(ProbeFault::Status(answer.status().as_u16()));
    }
    let refused = |fields: &http::HeaderMap| {
        let status = fields.get("grpc-status")?.to_str().ok()?;
        (status != "0").then(|| ProbeFault::Unexpected(format!("the answer's gRPC status is {status}")))
    };
    if let Some(fault) = refused(answer.headers()) {
        return Err(fault);
    }
    let mut body = answer.into_body();
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        match frame.map_err(broken)?.into_data() {
            Ok(data) if read.len() + data.len() > MOST_BODY => {
                return Err(ProbeFault::Unexpected("the answer is longer than a gRPC health check's".into()));
            }
            Ok(data) => read.extend_from_slice(&data),
            Err(frame) => {
                if let Some(fault) = frame.trailers_ref().and_then(refused) {
                    return Err(fault);
                }
            }
        }
    }
    match status(&read) {
        Some(SERVING) => Ok(()),
        Some(0) => {
            Err(ProbeFault::Unexpected("the server says that it doesn't know whether it serves".into()))
        }
        Some(2) => Err(ProbeFault::Unexpected("the server says that it doesn't serve".into())),
        Some(3) => {
            Err(ProbeFault::Unexpected("the server doesn't know the service that is asked for".into()))
        }
        _ => Err(ProbeFault::Unexpected("the answer is no gRPC health check's".into())),
    }
}

/// `HealthCheckRequest { service }`, behind gRPC's flag and length.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put(message);
    framed.freeze()
}

/// `HealthCheckResponse.status`. Left out it is 0; fields that aren't known are passed over.
fn status(mut framed: &[u8]) -> Option<u64> {
    if framed.try_get_u8().ok()? != 0 {
        return None;
    }
    let length = framed.try_get_u32().ok()? as usize;
    let mut message = framed.get(..length)?;
    let mut status = 0;
    while message.has_remaining() {
        let tag = varint(&mut message)?;
        match tag & 7 {
            0 => {
                let value = varint(&mut message)?;
                if tag >> 3 == 1 {
                    status = value;
                }
            }
            1 => message = message.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn put_varint(to: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        to.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    to.put_u8(number as u8);
}

fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = from.try_get_u8().ok()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_the_service() {
        assert_eq!(&question("")[..], b"\0\0\0\0\0");
        assert_eq!(&question("a.B")[..], b"\0\0\0\0\x05\x0a\x03a.B");
    }

    #[test]
    fn an_answer_is_read_by_its_one_field() {
        for (framed, read) in [
            (&b"\0\0\0\0\x02\x08\x01"[..], Some(1)),
            (b"\0\0\0\0\0", Some(0)),
            (b"\0\0\0\0\x02\x08\x02", Some(2)),
            // Unknown fields of each kind, and then the one.
            (b"\0\0\0\0\x0a\x12\x01x\x1d1234\x08\x01", Some(1)),
            // Cut off, compressed, garbage.
            (b"\0\0\0\0\x02\x08", None),
            (b"\x01\0\0\0\x02\x08\x01", None),
            (b"<html>", None),
            (b"\0\0\0\0\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"", None),
        ] {
            assert_eq!(status(framed), read, "{framed:?}");
        }
    }
}
