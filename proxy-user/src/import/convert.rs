//! Values that are written otherwise elsewhere.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use toml::Value;

use crate::config::{parse_prefix, show_duration};

/// `10s`, `500ms`, `1m30s`, `2d`, as nginx, HAProxy and Go write durations; a bare number counts `unit`.
pub(super) fn duration(text: &str, unit: Duration) -> Option<Duration> {
    let mut rest = text.trim();
    let mut sum = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.len()
            - rest.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.').len();
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.len() - rest.trim_start_matches(|letter: char| letter.is_ascii_alphabetic()).len();
        let scale = match &rest[..letters] {
            "" => unit,
            "us" => Duration::from_micros(1),
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            "d" => Duration::from_secs(86_400),
            "w" => Duration::from_secs(7 * 86_400),
            "M" => Duration::from_secs(30 * 86_400),
            "y" => Duration::from_secs(365 * 86_400),
            _ => return None,
        };
        rest = rest[letters..].trim_start();
        let seconds = number * scale.as_secs_f64();
        if !(0.0..1e12).contains(&seconds) {
            return None;
        }
        sum += Duration::from_secs_f64(seconds);
    }
    Some(sum)
}

/// As Weir writes it, within what it takes for a setting.
pub(super) fn shown(duration: Duration, least: Duration, most: Duration) -> Value {
    let whole =
        Duration::from_millis(u64::try_from(duration.clamp(least, most).as_millis()).unwrap_or(u64::MAX));
    Value::from(show_duration(whole))
}

/// `8k`, `10m`, `1g`, as nginx writes sizes; a bare number is bytes.
pub(super) fn size(text: &str) -> Option<String> {
    let text = text.trim();
    let (number, unit) = match text.char_indices().last()? {
        (at, 'k' | 'K') => (&text[..at], "KiB"),
        (at, 'm' | 'M') => (&text[..at], "MiB"),
        (at, 'g' | 'G') => (&text[..at], "GiB"),
        _ => (text, "B"),
    };
    let number: u64 = number.parse().ok()?;
    (number > 0).then(|| format!("{number}{unit}"))
}

/// An address to listen on, for a port alone too. `None`: a name, a variable, a socket.
pub(super) fn listen(text: &str) -> Option<SocketAddr> {
    let text = text.trim();
    if let Ok(port) = text.parse::<u16>() {
        return Some(SocketAddr::from(([0, 0, 0, 0], port)));
    }
    let any = text.strip_prefix('*').unwrap_or(text);
    if let Some(port) = any.strip_prefix(':') {
        return port.parse().ok().map(|port: u16| SocketAddr::from(([0, 0, 0, 0], port)));
    }
    text.parse().ok()
}

/// A server's address with its port.
pub(super) fn server(text: &str, port: u16) -> Option<String> {
    let text = text.trim().trim_end_matches('/');
    if text.is_empty() || text.starts_with("unix:") || text.contains(['/', '$', '%', ' ']) {
        return None;
    }
    if text.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
        return Some(format!("[{text}]:{port}"));
    }
    let has_port = text.rsplit_once(':').is_some_and(|(host, port)| {
        port.parse::<u16>().is_ok() && (host.ends_with(']') || !host.contains(':'))
    });
    Some(if has_port { text.to_owned() } else { format!("{text}:{port}") })
}

/// `http://HOST:PORT/PATH` in its parts: whether it is TLS, the server's address, the path.
pub(super) fn url(text: &str) -> Option<(bool, String, String)> {
    let (scheme, rest) = text.split_once("://")?;
    let (tls, port) = match scheme {
        "http" | "h2c" => (false, 80),
        "https" => (true, 443),
        _ => return None,
    };
    let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    Some((tls, server(host, port)?, path.to_owned()))
}

/// The host of an address with a port.
pub(super) fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// A prefix, host bits cleared: others forgive them.
pub(super) fn prefix(text: &str) -> Option<String> {
    if let Ok(net) = text.parse::<IpNet>() {
        return Some(net.trunc().to_string());
    }
    parse_prefix(text).ok().map(|_| text.to_owned())
}

/// A host as a route takes it: a name or `*.name`.
pub(super) fn host(text: &str) -> Option<String> {
    let text = text.trim().trim_end_matches('.').to_ascii_lowercase();
    crate::config::parse_host(&text).ok().map(|_| text)
}

/// A path prefix as a route takes it.
pub(super) fn path(text: &str) -> Option<String> {
    crate::config::parse_path(text).ok().map(|path| path.to_string())
}

/// What Weir is to be told of a chain and its key: a file, or the folder where both are.
pub(super) fn pair(chain: &str, key: &str) -> Option<String> {
    let (chain, key) = (Path::new(chain), Path::new(key));
    if chain == key || key == PathBuf::from(chain).with_extension("key") {
        return Some(chain.display().to_string());
    }
    let name = |path: &Path| path.file_name().map(std::borrow::ToOwned::to_owned);
    let folder = chain.parent().filter(|folder| key.parent() == Some(folder))?;
    (name(chain)? == "fullchain.pem" && name(key)? == "privkey.pem").then(|| folder.display().to_string())
}

/// A pattern that may match anywhere, as one of the whole.
pub(super) fn within(pattern: &str) -> String {
    let front = if pattern.starts_with('^') { "" } else { ".*" };
    let ended = pattern.ends_with('$') && !pattern.ends_with("\\$");
    let middle = pattern.strip_prefix('^').unwrap_or(pattern);
    let middle = if ended { &middle[..middle.len() - 1] } else { middle };
    format!("{front}(?:{middle}){}", if ended { "" } else { ".*" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_all_three_are_read() {
        let second = Duration::from_secs(1);
        for (text, milliseconds) in
            [("10", 10_000), ("250ms", 250), ("1m30s", 90_000), ("1.5s", 1500), ("1d", 86_400_000), ("0s", 0)]
        {
            assert_eq!(duration(text, second), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for odd in ["", "s", "ten", "1x", "9999999999999d", "1..2s", "∞"] {
            assert_eq!(duration(odd, second), None, "{odd}");
        }
    }

    #[test]
    fn addresses_are_read_with_and_without_a_port() {
        for (text, read) in [
            ("80", Some("0.0.0.0:80")),
            ("*:443", Some("0.0.0.0:443")),
            (":443", Some("0.0.0.0:443")),
            ("[::]:443", Some("[::]:443")),
            ("10.0.0.1:80", Some("10.0.0.1:80")),
            ("unix:/run/x", None),
            ("70000", None),
        ] {
            assert_eq!(listen(text).map(|addr| addr.to_string()).as_deref(), read, "{text}");
        }
        for (text, read) in [
            ("10.0.0.1", Some("10.0.0.1:80")),
            ("app.internal:8080", Some("app.internal:8080")),
            ("2001:db8::1", Some("[2001:db8::1]:80")),
            ("[2001:db8::1]:81", Some("[2001:db8::1]:81")),
            ("unix:/run/x", None),
            ("$upstream", None),
        ] {
            assert_eq!(server(text, 80).as_deref(), read, "{text}");
        }
        assert_eq!(url("https://app:8443/x/"), Some((true, "app:8443".into(), "/x/".into())));
    }

    #[test]
    fn a_pair_is_named_as_weir_finds_it() {
        for (chain, key, named) in [
            ("/e/live/a/fullchain.pem", "/e/live/a/privkey.pem", Some("/e/live/a")),
            ("/ssl/a.crt", "/ssl/a.key", Some("/ssl/a.crt")),
            ("/ssl/a.pem", "/ssl/a.pem", Some("/ssl/a.pem")),
            ("/ssl/a.pem", "/private/a.pem", None),
        ] {
            assert_eq!(pair(chain, key).as_deref(), named, "{chain} {key}");
        }
    }
}
