//! `[log]` and `[access_log.NAME]`, valid.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::HeaderName;

use super::ServiceTls;
pub use crate::config::written::{Facility, SyslogFormat};

/// `[log]`, with all access logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The one of `log.access` first, whose name is `access`; then those with names.
    pub access: Vec<AccessLog>,
    /// The daemon's own: a directive of tracing's filter. Default `info`.
    pub level: &'static str,
    /// The gate tells of each packet that it drops.
    pub kernel: bool,
    pub redact: Redact,
}

impl Log {
    /// The access logs that are files, with their places.
    pub fn files(&self) -> impl Iterator<Item = (&AccessLog, &Path)> {
        self.access.iter().filter_map(|log| match &log.to {
            AccessLogTarget::File { path, .. } => Some((log, path.as_path())),
            AccessLogTarget::Stdout | AccessLogTarget::Journald(_) | AccessLogTarget::Syslog(_) => None,
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Redact {
    /// In lower case.
    pub query: Vec<String>,
    pub headers: Vec<HeaderName>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    pub name: Arc<str>,
    pub to: AccessLogTarget,
    pub format: AccessLogFormat,
    pub filter: Filter,
    /// In JSON only; a template names its own.
    pub request_headers: Vec<HeaderName>,
    pub response_headers: Vec<HeaderName>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogTarget {
    Stdout,
    File {
        path: PathBuf,
        rotate: Option<Rotate>,
    },
    /// The socket that speaks journald's native protocol.
    Journald(PathBuf),
    Syslog(Syslog),
}

/// `rotate = { size = "100MiB", age = "24h", keep = 7 }`: at least one of the first two is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotate {
    pub size: Option<u64>,
    pub age: Option<Duration>,
    pub keep: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syslog {
    pub transport: Transport,
    pub format: SyslogFormat,
    pub facility: Facility,
    pub tag: String,
}

/// How a syslog is reached. A host is an address, or a name that is resolved whenever a connection is made.
#[derive(Debug, Clone)]
pub enum Transport {
    Unix(PathBuf),
    Udp { host: String, port: u16 },
    Tcp { host: String, port: u16 },
    Tls { host: String, port: u16, tls: ServiceTls },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// One JSON object a line. The default.
    Json,
    /// The "combined" format of Apache and nginx.
    Combined,
    Template(LogTemplate),
}

/// A text with variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogTemplate {
    /// As it is written.
    pub text: String,
    pub pieces: Vec<LogPiece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogPiece {
    Text(String),
    Variable(Variable),
    RequestHeader(HeaderName),
    ResponseHeader(HeaderName),
}

/// What a template can be filled with. The names are those of the JSON fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable {
    Ts,
    Time,
    ClientIp,
    Entrypoint,
    Method,
    Host,
    Path,
    Protocol,
    Status,
    BytesIn,
    BytesOut,
    DurationUs,
    BodyUs,
    WaitUs,
    ConnectUs,
    FirstByteUs,
    AnswerUs,
    Upstream,
    UpstreamUs,
    Retries,
    Route,
    Variant,
    UserAgent,
    Referer,
    RequestId,
    TraceId,
    Flags,
    Fault,
    Why,
}

/// Which requests a log is about. All that is asked for must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Empty: any.
    pub status: Vec<RangeInclusive<u16>>,
    /// Empty: any.
    pub routes: Vec<Arc<str>>,
    /// Beginnings of paths. Empty: any.
    pub paths: Vec<String>,
    pub slower_than: Option<Duration>,
    /// Hundredths of a percent of those that ended well.
    pub sample: u32,
}

// === impl Filter ===

impl Filter {
    /// All of `sample`.
    pub const ALL: u32 = 10_000;

    /// Whether no request is left out.
    pub fn takes_all(&self) -> bool {
        let Self { status, routes, paths, slower_than, sample } = self;
        status.is_empty()
            && routes.is_empty()
            && paths.is_empty()
            && slower_than.is_none()
            && *sample >= Self::ALL
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            status: Vec::new(),
            routes: Vec::new(),
            paths: Vec::new(),
            slower_than: None,
            sample: Self::ALL,
        }
    }
}

// === impl Transport ===

impl PartialEq for Transport {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(one), Self::Unix(other)) => one == other,
            (Self::Udp { host, port }, Self::Udp { host: other, port: other_port })
            | (Self::Tcp { host, port }, Self::Tcp { host: other, port: other_port }) => {
                (host, port) == (other, other_port)
            }
            (Self::Tls { host, port, tls }, Self::Tls { host: other, port: other_port, tls: other_tls }) => {
                (host, port) == (other, other_port) && tls.same_as(other_tls)
            }
            _ => false,
        }
    }
}

impl Eq for Transport {}

// === impl Variable ===

impl Variable {
    /// By name.
    pub const ALL: [(&'static str, Self); 29] = [
        ("ts", Self::Ts),
        ("time", Self::Time),
        ("client_ip", Self::ClientIp),
        ("entrypoint", Self::Entrypoint),
        ("method", Self::Method),
        ("host", Self::Host),
        ("path", Self::Path),
        ("protocol", Self::Protocol),
        ("status", Self::Status),
        ("bytes_in", Self::BytesIn),
        ("bytes_out", Self::BytesOut),
        ("duration_us", Self::DurationUs),
        ("body_us", Self::BodyUs),
        ("wait_us", Self::WaitUs),
        ("connect_us", Self::ConnectUs),
        ("first_byte_us", Self::FirstByteUs),
        ("answer_us", Self::AnswerUs),
        ("upstream", Self::Upstream),
        ("upstream_us", Self::UpstreamUs),
        ("retries", Self::Retries),
        ("route", Self::Route),
        ("variant", Self::Variant),
        ("user_agent", Self::UserAgent),
        ("referer", Self::Referer),
        ("request_id", Self::RequestId),
        ("trace_id", Self::TraceId),
        ("flags", Self::Flags),
        ("fault", Self::Fault),
        ("why", Self::Why),
    ];
}
