//! `[log]` and `[access_log.NAME]`, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, List};
use crate::config::default;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Where the access log goes: `stdout`, `off`, the path of a file, or any other place that `access_log.NAME.to` takes.
    #[schemars(extend("default" = "stdout"), example = "/var/log/weir/access.log")]
    pub access: Option<At<String>>,
    /// How a line of it looks: `json`, `combined` (as Apache and nginx write it), or a text with variables in braces.
    #[schemars(extend("default" = "json"), example = "{client_ip} \"{method} {path}\" {status} {duration_us}")]
    pub format: Option<At<String>>,
    /// How much the daemon tells of itself. `RUST_LOG` goes before it. It may be changed while the daemon runs.
    #[schemars(extend("default" = "info"))]
    pub level: Option<At<Level>>,
    /// Whether the gate itself tells of packets in the daemon's log. It may be changed while the daemon runs.
    #[schemars(extend("default" = "off"))]
    pub kernel: Option<At<KernelLog>>,
    /// What no access log and no span may hold.
    pub redact: Option<At<Redact>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What needs an operator.
    Error,
    /// Also what may come to need one.
    Warn,
    /// Also what happens to servers, lists and configurations.
    Info,
    /// Also single attempts and handshakes that fail. It may name clients.
    Debug,
    /// Everything.
    Trace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KernelLog {
    /// It doesn't.
    Off,
    /// A line for each packet that it drops and each connection that it lets in, with addresses, at `debug`, whatever `level` says:
    /// up to 100 a second. For looking at something, since other programs are loaded for it, which cost more.
    Debug,
}

/// Values that are written as `[redacted]`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redact {
    /// Keys of the query, also of the one in `Referer`: `token` makes of `?id=7&token=abc` `?id=7&token=[redacted]`. Case
    /// doesn't count.
    #[schemars(extend("default" = []), example = ["token", "password"])]
    pub query: Option<List>,
    /// Header fields. What is written replaces the default.
    #[schemars(extend("default" = default::REDACTED_HEADERS), example = ["authorization", "x-api-key"])]
    pub headers: Option<List>,
}

/// An access log. Never waited for: what its place can't take in time is dropped, counted and told.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessLog {
    /// Where it goes: `stdout`, the path of a file, `journald`, `syslog` (`/dev/log`), or a syslog elsewhere:
    /// `syslog+unix:/path`, `syslog+udp://HOST:PORT`, `syslog+tcp://HOST:PORT`, `syslog+tls://HOST:PORT`.
    #[schemars(required, example = ["/var/log/weir/errors.log", "syslog+tls://logs.example.com:6514"])]
    pub to: Option<At<String>>,
    /// How a line looks: `json`, `combined`, or a text with variables in braces.
    #[schemars(extend("default" = "json"), example = "{client_ip} {host} \"{method} {path}\" {status} {duration_us}")]
    pub format: Option<At<String>>,
    /// Only requests with such a status. Without the key: with any.
    #[schemars(example = ["404", "500-599"])]
    pub status: Option<List>,
    /// Only requests of these routes.
    #[schemars(example = ["shop"])]
    pub routes: Option<List>,
    /// Only requests whose path begins so.
    #[schemars(example = ["/api/"])]
    pub paths: Option<List>,
    /// Only requests that took at least so long: a duration, 1ms to 1h.
    #[schemars(example = "1s")]
    pub slower_than: Option<At<String>>,
    /// Of requests that ended well, only this share, at random. All others are written: those with a status from 500 on, a page in
    /// a server's place, or a server, a time limit or this host to blame.
    #[schemars(extend("default" = default::LOG_SAMPLE), example = "1%")]
    pub sample: Option<At<String>>,
    /// Header fields of requests, as they came, in `json` under `request_headers`.
    #[schemars(extend("default" = []), example = ["accept-language"])]
    pub request_headers: Option<List>,
    /// Header fields of answers, as servers sent them, in `json` under `response_headers`.
    #[schemars(extend("default" = []), example = ["x-cache"])]
    pub response_headers: Option<List>,
    /// Begins a new file by itself. Only for files; without the key, leave it to logrotate and SIGUSR1.
    pub rotate: Option<At<Rotate>>,
    /// How syslog is told. Only for syslog.
    pub syslog: Option<At<Syslog>>,
}

/// `access.log` becomes `access.log.1`, what was that `access.log.2`, and so on.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// When the file is about to be larger: a size, 64KiB to 1024GiB. At least one of `size` and `age`.
    #[schemars(example = "100MiB")]
    pub size: Option<At<String>>,
    /// When it was begun so long ago: a duration, 1m to 365d.
    #[schemars(example = "24h")]
    pub age: Option<At<String>>,
    /// So many old ones are kept: 1 to 1000.
    #[schemars(extend("default" = default::LOG_KEEP))]
    pub keep: Option<At<i64>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Syslog {
    /// `rfc5424`; or `rfc3164` as local daemons read it. Without the key: `rfc3164` for sockets of this host, `rfc5424` for all
    /// others.
    pub format: Option<At<SyslogFormat>>,
    /// The facility.
    #[schemars(extend("default" = "local0"))]
    pub facility: Option<At<Facility>>,
    /// By which name Weir goes: 1 to 32 letters, digits, `-`, `_` and `.`.
    #[schemars(extend("default" = default::SYSLOG_TAG))]
    pub tag: Option<At<String>>,
    /// A PEM file of the authorities to trust. Only with `syslog+tls`; without the key, those of the operating system.
    #[schemars(example = "/etc/weir/logs-ca.pem")]
    pub ca: Option<At<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SyslogFormat {
    /// With version, time zone and structure.
    Rfc5424,
    /// `<134>Nov 21 05:48:54 weir[4711]: …`
    Rfc3164,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Facility {
    /// 1
    User,
    /// 3
    Daemon,
    /// 16
    Local0,
    /// 17
    Local1,
    /// 18
    Local2,
    /// 19
    Local3,
    /// 20
    Local4,
    /// 21
    Local5,
    /// 22
    Local6,
    /// 23
    Local7,
}
