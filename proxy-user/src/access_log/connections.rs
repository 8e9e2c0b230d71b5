//! The line of a connection that was carried untouched, by the relay or by the kernel, written when it is over. What is one
//! client's datagrams (a session of the relay's, a flow of the kernel's) is told as a connection too.
//!
//! JSON, like a request's, told apart from one by `"kind":"connection"`. In logs of the "combined" format it is a line of that
//! form: `PASSTHROUGH name TCP` (or `UDP`) in the place of the request, and the bytes that the client got.

use std::{io::Write as _, net::IpAddr, time::SystemTime};

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::{kernel::Protocol, passthrough::reach::Attempt};

/// What is known of one connection when it is over.
#[derive(Debug, Serialize)]
pub struct Connection<'a> {
    #[serde(serialize_with = "millis")]
    pub ts: SystemTime,
    pub kind: &'static str,
    pub client_ip: IpAddr,
    pub client_port: u16,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The kernel carried it from its first packet on. Its bytes are those of whole packets, headers and what was sent again included.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub in_kernel: bool,
    pub entrypoint: &'a str,
    /// The name in the client's hello, where there was one and it was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<&'a str>,
    /// The one that has the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<&'a str>,
    /// To reach it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_us: Option<u64>,
    /// Servers that could not be reached before.
    #[serde(skip_serializing_if = "<[Attempt]>::is_empty")]
    pub attempts: &'a [Attempt],
    /// From the client.
    pub bytes_in: u64,
    /// To the client.
    pub bytes_out: u64,
    pub duration_us: u64,
    /// How it ended.
    pub end: End,
    /// Who ended it.
    pub ended_by: By,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Both sides have said that it was all; `ended_by` first.
    Closed,
    /// `ended_by` broke it off, or was lost.
    Reset,
    /// Nothing went over it for too long.
    Idle,
    /// It was too old.
    Lifetime,
    /// This host ended, and could wait no longer.
    Drain,
    /// No server could be reached.
    Unreachable,
    /// No server could be reached, and the client got a page.
    Page,
    /// No route takes it.
    NoRoute,
    /// Handed to the kernel, which carries it on.
    HandedOver,
}

impl Connection<'_> {
    /// Whether it ended as it was meant to. Datagrams have no other end than silence.
    pub fn is_well(&self) -> bool {
        match self.end {
            End::Closed | End::HandedOver => true,
            End::Idle => self.protocol == Protocol::Udp.name(),
            _ => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    Client,
    Server,
    Weir,
}

/// Appends its line, with its line end.
pub fn line(json: bool, connection: &Connection<'_>, out: &mut Vec<u8>) {
    if json {
        // Nothing in it can fail to be written, and memory takes all.
        let _ = serde_json::to_writer(&mut *out, connection);
    } else {
        combined(connection, out);
    }
    out.push(b'\n');
}

fn combined(connection: &Connection<'_>, out: &mut Vec<u8>) {
    let at = Timestamp::try_from(connection.ts).unwrap_or_default();
    let name = connection.sni.unwrap_or("-");
    let status = match connection.end {
        End::Unreachable | End::Page => 503,
        End::NoRoute => 404,
        _ => 200,
    };
    let (client, bytes) = (connection.client_ip, connection.bytes_out);
    let at = at.strftime("%d/%b/%Y:%H:%M:%S +0000");
    let protocol = if connection.protocol == Protocol::Udp.name() { "UDP" } else { "TCP" };
    // Memory takes all.
    let _ = write!(out, "{client} - - [{at}] \"PASSTHROUGH {name} {protocol}\" {status} {bytes} \"-\" \"-\"");
}

fn millis<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let at = Timestamp::try_from(*at).unwrap_or_default();
    serializer.collect_str(&at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ"))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn written(json: bool) -> String {
        let connection = Connection {
            ts: UNIX_EPOCH + Duration::from_millis(1_763_704_134_007),
            kind: "connection",
            client_ip: "192.0.2.7".parse().unwrap(),
            client_port: 4711,
            protocol: "tcp",
            in_kernel: false,
            entrypoint: "https",
            sni: Some("legacy.example.com"),
            route: Some("legacy"),
            service: Some("old"),
            upstream: Some("10.0.0.2:443"),
            upstream_us: Some(320),
            attempts: &[Attempt { upstream: "10.0.0.1:443".into(), failed: "refused", us: 90 }],
            bytes_in: 517,
            bytes_out: 4096,
            duration_us: 12_345,
            end: End::Closed,
            ended_by: By::Client,
        };
        let mut out = Vec::new();
        line(json, &connection, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_connection_is_told_in_both_formats() {
        assert_eq!(
            written(true),
            "{\"ts\":\"2025-11-21T05:48:54.007Z\",\"kind\":\"connection\",\"client_ip\":\"192.0.2.7\",\"client_port\":4711,\
             \"protocol\":\"tcp\",\"entrypoint\":\"https\",\"sni\":\"legacy.example.com\",\"route\":\"legacy\",\"service\":\"old\",\
             \"upstream\":\"10.0.0.2:443\",\"upstream_us\":320,\
             \"attempts\":[{\"upstream\":\"10.0.0.1:443\",\"failed\":\"refused\",\"us\":90}],\
             \"bytes_in\":517,\"bytes_out\":4096,\"duration_us\":12345,\"end\":\"closed\",\"ended_by\":\"client\"}\n"
        );
        assert_eq!(
            written(false),
            "192.0.2.7 - - [21/Nov/2025:05:48:54 +0000] \"PASSTHROUGH legacy.example.com TCP\" 200 4096 \"-\" \"-\"\n"
        );
    }
}
