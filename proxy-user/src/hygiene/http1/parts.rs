//! Makes a request of a head that has passed: its method, target and fields, as slices of the bytes that came.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, request::Parts, uri::PathAndQuery,
};

use super::head::{Field, Head, RequestLine};
use crate::hygiene::Fault;

/// Fields that are put to a request on its way: a map that has room for them need not grow.
const TO_COME: usize = 8;

/// A request, of a head that is whole: `bytes` are just it.
///
/// # Errors
/// With what the library for URLs finds wrong with its target.
pub fn of(head: &Head, bytes: &Bytes) -> Result<Parts, Fault> {
    let line = head.request_line().ok_or(Fault::RequestLine)?;
    let mut parts = Request::new(()).into_parts().0;
    parts.method = Method::from_bytes(&bytes[line.begin..line.method_end]).map_err(|_| Fault::RequestLine)?;
    parts.uri = target(&parts.method, bytes.slice(line.method_end + 1..line.target_end))?;
    parts.version = version(line);
    parts.headers = fields(head.fields(), bytes)?;
    Ok(parts)
}

/// What stands for a head that is refused. It keeps the request line, for the log, if that is one.
pub fn of_refused(head: &Head, bytes: &[u8]) -> Parts {
    let Some(line) = head.request_line() else { return unknown(Version::HTTP_11) };
    let mut parts = unknown(version(line));
    let method = bytes.get(line.begin..line.method_end).map(Method::from_bytes);
    let target = bytes.get(line.method_end + 1..line.target_end).map(Uri::try_from);
    if let (Some(Ok(method)), Some(Ok(target))) = (method, target)
        && method != Method::CONNECT
    {
        (parts.method, parts.uri) = (method, target);
    }
    parts
}

/// A request of which nothing is known.
pub fn unknown(version: Version) -> Parts {
    let mut parts = Request::new(()).into_parts().0;
    // Neither is ever sent on.
    parts.method = Method::from_bytes(b"-").unwrap_or_default();
    parts.uri = Uri::from_static("*");
    parts.version = version;
    parts
}

pub fn fields(fields: &[Field], bytes: &Bytes) -> Result<HeaderMap, Fault> {
    if fields.is_empty() {
        return Ok(HeaderMap::new());
    }
    let mut map = HeaderMap::with_capacity(fields.len() + TO_COME);
    for field in fields {
        let (begin, colon, end) = (field.begin as usize, field.colon as usize, field.end as usize);
        let name = HeaderName::from_bytes(&bytes[begin..colon]).map_err(|_| Fault::FieldName)?;
        let value = bytes.slice_ref(trimmed(&bytes[colon + 1..end]));
        // SAFETY: the scanner has passed over the line, so no byte of it is a control byte other than the tab: just what
        // a value may hold.
        let value = unsafe { HeaderValue::from_maybe_shared_unchecked(value) };
        map.append(name, value);
    }
    Ok(map)
}

fn target(method: &Method, target: Bytes) -> Result<Uri, Fault> {
    if target.first() == Some(&b'/') {
        return PathAndQuery::from_maybe_shared(target).map(Uri::from).map_err(|_| Fault::Target);
    }
    match Uri::from_maybe_shared(target) {
        Ok(uri) => Ok(uri),
        // It is refused for what it is, wherever it wants to go.
        Err(_) if *method == Method::CONNECT => Ok(Uri::from_static("*")),
        Err(_) => Err(Fault::Target),
    }
}

fn version(line: RequestLine) -> Version {
    if line.http_11 { Version::HTTP_11 } else { Version::HTTP_10 }
}

/// Without the space around it (RFC 9112 §5).
fn trimmed(value: &[u8]) -> &[u8] {
    let space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let Some(begin) = value.iter().position(|byte| !space(byte)) else { return &[] };
    let end = value.iter().rposition(|byte| !space(byte)).unwrap_or(begin);
    &value[begin..=end]
}
