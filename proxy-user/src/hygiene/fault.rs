//! The ways in which a client breaks the rules: named once, for the status, the access log, the counters and the docs.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use http::StatusCode;

macro_rules! faults {
    ($($name:ident = $text:literal, $status:ident, $doc:literal;)+) => {
        /// Why a client is refused, or let go.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Fault {
            $(#[doc = $doc] $name,)+
        }

        impl Fault {
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// As logs and the status call it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// What the client is told.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)+ }
            }
        }
    };
}

faults! {
    RequestLine = "request_line", BAD_REQUEST, "Not `METHOD target HTTP/1.x` with single spaces.";
    Version = "version", BAD_REQUEST, "Neither HTTP/1.0 nor HTTP/1.1.";
    Target = "target", BAD_REQUEST, "A target of the wrong form, or with bytes that no URL has.";
    Path = "path", BAD_REQUEST, "A path with dot segments or NUL, plain or percent-encoded.";
    Host = "host", BAD_REQUEST, "No host, several, a malformed one, or another than the target names.";
    LineEnd = "line_end", BAD_REQUEST, "A line that ends with less than CR LF, or a CR within one.";
    ControlByte = "control_byte", BAD_REQUEST, "NUL or another control byte in a field.";
    FoldedLine = "folded_line", BAD_REQUEST, "A field that goes on in the next line.";
    FieldName = "field_name", BAD_REQUEST, "A field's name that is none, or a space before its colon.";
    ContentLength = "content_length", BAD_REQUEST, "A length that is no plain number, or is told twice.";
    TransferEncoding = "transfer_encoding", BAD_REQUEST, "Anything but a single `chunked`.";
    TwoLengths = "two_lengths", BAD_REQUEST, "A length, and chunks besides.";
    Chunk = "chunk", BAD_REQUEST, "A chunk whose size or end is malformed.";
    Malformed = "malformed", BAD_REQUEST, "What the HTTP library refused by itself.";
    Connect = "connect", METHOD_NOT_ALLOWED, "CONNECT: Weir is no forward proxy.";
    Expectation = "expectation", EXPECTATION_FAILED, "An expectation other than `100-continue`.";
    TargetTooLong = "target_too_long", URI_TOO_LONG, "A request line longer than `limits.head`.";
    TooManyFields = "too_many_fields", REQUEST_HEADER_FIELDS_TOO_LARGE, "More fields than `limits.fields`.";
    HeadTooLarge = "head_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "A head longer than `limits.head`.";
    HeadTimeout = "head_timeout", REQUEST_TIMEOUT, "A head that took longer than `limits.head_time`.";
    BodyTimeout = "body_timeout", REQUEST_TIMEOUT, "A body that stood still for `limits.body_idle`.";
    AnswerTimeout = "answer_timeout", REQUEST_TIMEOUT, "Nothing of the answer was taken for `limits.body_idle`.";
    StreamTimeout = "stream_timeout", REQUEST_TIMEOUT, "Nothing moved in either direction for `limits.stream_idle`.";
    ClientConnections = "connections_per_client", TOO_MANY_REQUESTS, "More connections than `limits.connections_per_client`.";
    Connections = "connections", SERVICE_UNAVAILABLE, "More connections than `limits.connections`.";
    Http2Flood = "http2_flood", BAD_REQUEST, "HTTP/2 resets, settings or header blocks without measure.";
    Http3Flood = "http3_flood", BAD_REQUEST, "HTTP/3 requests that are given up without measure.";
    ConnectionField = "connection_field", BAD_REQUEST, "A field of HTTP/1's connections in a request of HTTP/3.";
    ProxyHeader = "proxy_header", BAD_REQUEST, "No PROXY protocol header, a malformed or a late one.";
}

impl Fault {
    /// The fault with this number, as [`Fault`]s are kept in atomics.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Whether the client took too long for something.
    pub fn is_timeout(self) -> bool {
        matches!(self, Self::HeadTimeout | Self::BodyTimeout | Self::AnswerTimeout | Self::StreamTimeout)
    }
}

/// How often each fault was met.
#[derive(Debug)]
pub struct Faults([AtomicU64; Fault::ALL.len()]);

impl Default for Faults {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; Fault::ALL.len()])
    }
}

impl Faults {
    pub fn count(&self, fault: Fault) {
        self.0[fault as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// All of them, by name.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, &AtomicU64)> {
        Fault::ALL.iter().map(|fault| fault.name()).zip(&self.0)
    }

    /// By name; those that were never met are left out.
    pub fn met(&self) -> BTreeMap<String, u64> {
        let counted = Fault::ALL.iter().map(|fault| (fault, self.0[*fault as usize].load(Ordering::Relaxed)));
        counted
            .filter(|(_, count)| *count > 0)
            .map(|(fault, count)| (fault.name().to_owned(), count))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_survives_its_number_and_is_named_once() {
        let mut names = std::collections::HashSet::new();
        for fault in Fault::ALL {
            assert_eq!(Fault::from_number(*fault as u8), Some(*fault));
            assert!(names.insert(fault.name()));
            assert!(fault.status().is_client_error() || fault.status().is_server_error());
        }
        assert_eq!(Fault::from_number(u8::MAX), None);
    }

    #[test]
    fn only_faults_that_were_met_are_told() {
        let faults = Faults::default();
        faults.count(Fault::Chunk);
        faults.count(Fault::Chunk);
        assert_eq!(faults.met().into_iter().collect::<Vec<_>>(), [("chunk".to_owned(), 2)]);
    }
}
