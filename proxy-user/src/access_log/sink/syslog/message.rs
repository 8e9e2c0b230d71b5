//! A message for a syslog, in the format of RFC 5424 or in the older one that local daemons read (RFC 3164).

use crate::config::model::{Facility, Syslog, SyslogFormat};

/// Puts a head before each message.
#[derive(Debug)]
pub struct Framer {
    format: SyslogFormat,
    facility: u8,
    /// What follows the time.
    head: String,
    stamp: String,
}

impl Framer {
    pub fn new(syslog: &Syslog, local: bool, log: &str) -> Self {
        let (tag, pid) = (&syslog.tag, std::process::id());
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let host = host.filter(|host| !host.is_empty()).unwrap_or_else(|| "-".to_owned());
        let head = match syslog.format {
            // The message's id is the log's name, of which the RFC takes 32 characters.
            SyslogFormat::Rfc5424 => format!(" {host} {tag} {pid} {log:.32} - "),
            // A local daemon knows which host it is on, and takes what stands there for the tag.
            SyslogFormat::Rfc3164 if local => format!(" {tag}[{pid}]: "),
            SyslogFormat::Rfc3164 => format!(" {host} {tag}[{pid}]: "),
        };
        Self { format: syslog.format, facility: number(syslog.facility), head, stamp: String::new() }
    }

    /// Messages from here on are of this moment. (Their own text tells it better.)
    pub fn now(&mut self) {
        self.at(&jiff::Zoned::now());
    }

    fn at(&mut self, now: &jiff::Zoned) {
        self.stamp = match self.format {
            SyslogFormat::Rfc5424 => now.timestamp().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
            // In the host's own time, without its zone: so it is.
            SyslogFormat::Rfc3164 => now.strftime("%b %e %H:%M:%S").to_string(),
        };
    }

    pub fn write(&self, severity: u8, text: &[u8], out: &mut Vec<u8>) {
        out.push(b'<');
        out.extend_from_slice(itoa::Buffer::new().format(self.facility * 8 + severity).as_bytes());
        out.push(b'>');
        if self.format == SyslogFormat::Rfc5424 {
            out.extend_from_slice(b"1 ");
        }
        out.extend_from_slice(self.stamp.as_bytes());
        out.extend_from_slice(self.head.as_bytes());
        out.extend_from_slice(text);
    }
}

fn number(facility: Facility) -> u8 {
    match facility {
        Facility::User => 1,
        Facility::Daemon => 3,
        Facility::Local0 => 16,
        Facility::Local1 => 17,
        Facility::Local2 => 18,
        Facility::Local3 => 19,
        Facility::Local4 => 20,
        Facility::Local5 => 21,
        Facility::Local6 => 22,
        Facility::Local7 => 23,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Transport;

    fn written(format: SyslogFormat, facility: Facility, local: bool) -> String {
        let transport = Transport::Unix("/dev/log".into());
        let syslog = Syslog { transport, format, facility, tag: "weir".into() };
        let mut framer = Framer::new(&syslog, local, "errors");
        let second = jiff::Timestamp::from_millisecond(1_796_104_134_007).unwrap();
        framer.at(&second.to_zoned(jiff::tz::TimeZone::UTC));
        let mut out = Vec::new();
        framer.write(4, b"text", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_format_is_as_its_rfc_says() {
        let (host, pid) = (nix::unistd::gethostname().unwrap().into_string().unwrap(), std::process::id());
        for (format, facility, local, expected) in [
            (
                SyslogFormat::Rfc5424,
                Facility::Local7,
                false,
                format!("<188>1 2026-12-01T05:48:54.007Z {host} weir {pid} errors - text"),
            ),
            (SyslogFormat::Rfc3164, Facility::Daemon, true, format!("<28>Dec  1 05:48:54 weir[{pid}]: text")),
            (
                SyslogFormat::Rfc3164,
                Facility::User,
                false,
                format!("<12>Dec  1 05:48:54 {host} weir[{pid}]: text"),
            ),
        ] {
            assert_eq!(written(format, facility, local), expected);
        }
    }
}
