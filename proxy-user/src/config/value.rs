//! Text to values: durations, addresses, prefixes, names, hosts and paths. Pure; a refusal says what to write instead.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use ipnet::IpNet;

use super::model::{HostMatch, ServerAt};

/// Why a text is refused: the end of a sentence that begins with the text, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub because: String,
    pub hint: Option<String>,
}

/// `250ms`, `1s`, `5m`, `1h`; for long times `30d`, and `1y` of 365 days
pub fn duration(text: &str) -> Result<Duration, Refusal> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let example = "a duration is a whole number with a unit: `250ms`, `1s`, `5m` or `1h`";
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "y" => 365 * 86_400_000,
        "" if digits > 0 => {
            return Err(refusal("has no unit", Some(format!("seconds are written `{number}s`"))));
        }
        _ => return Err(refusal("is not a duration", Some(example.to_owned()))),
    };
    if digits == 0 {
        return Err(refusal("is not a duration", Some(example.to_owned())));
    }
    // What doesn't fit is out of every range that a setting has.
    let number = number.parse::<u64>().unwrap_or(u64::MAX);
    Ok(Duration::from_millis(number.saturating_mul(milliseconds)))
}

/// `50/s` or `600/m`
pub fn rate(text: &str) -> Result<(u32, Duration), Refusal> {
    let example = "a rate is a whole number per second or minute: `50/s` or `600/m`";
    let (number, per) = match text.split_once('/') {
        Some((number, "s")) => (number, Duration::from_secs(1)),
        Some((number, "m")) => (number, Duration::from_secs(60)),
        _ => return Err(refusal("is not a rate", Some(example.to_owned()))),
    };
    if number.is_empty() || !number.chars().all(|c| c.is_ascii_digit()) {
        return Err(refusal("is not a rate", Some(example.to_owned())));
    }
    match number.parse() {
        Ok(count @ 1..=MOST_PER_TIME) => Ok((count, per)),
        _ => {
            let hint = format!("it goes from 1 to {MOST_PER_TIME} per second or minute");
            Err(refusal("is out of range", Some(hint)))
        }
    }
}

/// The highest rate's number.
const MOST_PER_TIME: u32 = 1_000_000;

/// `50%`
pub fn percent(text: &str) -> Result<u8, Refusal> {
    let example = "a share is a whole number of percent: `50%`";
    let number = text.strip_suffix('%').filter(|number| {
        !number.is_empty() && number.len() <= 3 && number.chars().all(|c| c.is_ascii_digit())
    });
    match number.and_then(|number| number.parse().ok()) {
        Some(share @ 0..=100) => Ok(share),
        _ => Err(refusal("is not a share", Some(example.to_owned()))),
    }
}

/// `204` or `200-299`
pub fn statuses(text: &str) -> Result<RangeInclusive<u16>, Refusal> {
    let example = "a status is a number from 100 to 599, and a range is written `200-299`";
    let no_status = || refusal("is not a status", Some(example.to_owned()));
    let one = |text: &str| -> Result<u16, Refusal> {
        let digits = text.len() == 3 && text.chars().all(|c| c.is_ascii_digit());
        let number = text.parse().ok().filter(|status| digits && (100..=599).contains(status));
        number.ok_or_else(no_status)
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (one(first.trim())?, one(last.trim())?),
        None => (one(text)?, one(text)?),
    };
    if first > last { Err(refusal("ends before it begins", None)) } else { Ok(first..=last) }
}

/// Text with `\r`, `\n`, `\t`, `\0`, `\\` and `\x1f` for the bytes that they stand for
pub fn bytes(text: &str) -> Result<Vec<u8>, Refusal> {
    let known = "the escapes are `\\r`, `\\n`, `\\t`, `\\0`, `\\\\` and `\\x1f`";
    let unknown = || refusal("has an escape that doesn't exist", Some(known.to_owned()));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = rest[at + 1..].chars().next().ok_or_else(unknown)?;
        let mut length = 2;
        bytes.push(match escape {
            'r' => b'\r',
            'n' => b'\n',
            't' => b'\t',
            '0' => 0,
            '\\' => b'\\',
            'x' => {
                length = 4;
                let digits = rest
                    .get(at + 2..at + 4)
                    .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
                digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or_else(unknown)?
            }
            _ => return Err(unknown()),
        });
        rest = &rest[at + length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

/// A rate as it would be written.
pub fn show_rate(count: u32, per: Duration) -> String {
    format!("{count}/{}", if per.as_secs() == 1 { 's' } else { 'm' })
}

/// A duration as it would be written.
pub fn show(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    match milliseconds {
        0 => "0s".to_owned(),
        n if n % 3_600_000 == 0 => format!("{}h", n / 3_600_000),
        n if n % 60_000 == 0 => format!("{}m", n / 60_000),
        n if n % 1_000 == 0 => format!("{}s", n / 1_000),
        n => format!("{n}ms"),
    }
}

/// `512B`, `64KiB`, `1MiB`, `2GiB`
pub fn size(text: &str) -> Result<u64, Refusal> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let bytes = match unit {
        "B" => 1_u64,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "" if digits > 0 => {
            return Err(refusal("has no unit", Some(format!("bytes are written `{number}B`"))));
        }
        "K" | "k" | "KB" | "kB" | "M" | "MB" | "G" | "GB" if digits > 0 => {
            let unit = &unit[..1].to_ascii_uppercase();
            return Err(refusal(
                "has a unit that means two things",
                Some(format!("write `{number}{unit}iB`")),
            ));
        }
        _ => {
            let example = "a size is a whole number with a unit: `512B`, `64KiB`, `1MiB` or `2GiB`";
            return Err(refusal("is not a size", Some(example.to_owned())));
        }
    };
    if digits == 0 {
        return Err(refusal("is not a size", Some("write for instance `64KiB`".to_owned())));
    }
    // What doesn't fit is out of every range that a setting has.
    Ok(number.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(bytes))
}

/// `10%`, `0.5%`, in hundredths of a percent
pub fn share(text: &str) -> Result<u32, Refusal> {
    let example = || Some("write for instance `10%` or `0.5%`".to_owned());
    let Some(number) = text.strip_suffix('%') else {
        return Err(refusal("has no `%`", example()));
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    if !digits(whole) || !digits(part) {
        return Err(refusal("is not a percentage", example()));
    }
    if part.len() > 2 {
        return Err(refusal("has more than two digits after its point", None));
    }
    // What doesn't fit is out of every range that a setting has.
    let whole = whole.parse::<u32>().unwrap_or(u32::MAX);
    let part = format!("{part:0<2}").parse::<u32>().unwrap_or_default();
    Ok(whole.saturating_mul(100).saturating_add(part))
}

/// A judge's steps, as they should be: they rise from 1 to 100, and the first is below 100, so that there is something to
/// judge by.
pub fn judge_steps(steps: Vec<u32>) -> Result<Vec<u32>, String> {
    let rise =
        steps.is_sorted_by(|one, next| one < next) && steps.iter().all(|step| (1..=100).contains(step));
    if rise && steps.first().is_some_and(|first| *first < 100) {
        Ok(steps)
    } else {
        Err("steps are percentages that rise from 1 to 100, and the first is below 100".to_owned())
    }
}

/// A percentage as it would be written.
pub fn show_share(hundredths: u32) -> String {
    match (hundredths / 100, hundredths % 100) {
        (whole, 0) => format!("{whole}%"),
        (whole, part) if part % 10 == 0 => format!("{whole}.{}%", part / 10),
        (whole, part) => format!("{whole}.{part:02}%"),
    }
}

/// A size as it would be written.
pub fn show_size(bytes: u64) -> String {
    match bytes {
        0 => "0B".to_owned(),
        n if n % (1 << 30) == 0 => format!("{}GiB", n >> 30),
        n if n % (1 << 20) == 0 => format!("{}MiB", n >> 20),
        n if n % (1 << 10) == 0 => format!("{}KiB", n >> 10),
        n => format!("{n}B"),
    }
}

/// `ADDRESS:PORT`
pub fn socket_address(text: &str) -> Result<SocketAddr, Refusal> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let hint = match scheme {
            "https" => "write only address and port; `tls = { … }` makes the connection a TLS one",
            _ => "write only address and port",
        };
        return Err(refusal(format!("begins with `{scheme}://`"), Some(format!("{hint}: `{rest}`"))));
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        let example = SocketAddr::new(ip, 443);
        return Err(refusal("has no port", Some(format!("for instance `{example}`"))));
    }
    if let Some((host, port)) = text.rsplit_once(':') {
        if port.parse::<u16>().is_err() {
            return Err(refusal(format!("has `{port}` for a port"), Some("ports go from 1 to 65535".into())));
        }
        if host.is_empty() || host == "*" {
            let hint = format!("all addresses are written `0.0.0.0:{port}` and `[::]:{port}`");
            return Err(refusal("has no address", Some(hint)));
        }
        if is_host_name(host) {
            let hint = "here it must be an address; names are for servers";
            return Err(refusal("is a host name, not an IP address", Some(hint.into())));
        }
    }
    let hint = "write `192.0.2.7:443`, or `[2001:db8::7]:443` for IPv6";
    Err(refusal("is not an address and port", Some(hint.into())))
}

/// `ADDRESS:PORT` or `NAME:PORT`
pub fn server(text: &str) -> Result<ServerAt, Refusal> {
    if let Some(service) = text.strip_prefix("srv:") {
        if !is_host_name(service) {
            return Err(refusal(
                "is not a service that DNS could know",
                Some("for instance `srv:_https._tcp.app.example.com`; ports come from DNS".to_owned()),
            ));
        }
        return Ok(ServerAt::Service { name: text.to_ascii_lowercase().into(), found: Vec::new() });
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && is_host_name(host)
        && let Ok(port) = port.parse()
    {
        return Ok(ServerAt::Name { host: host.to_ascii_lowercase().into(), port, addresses: Vec::new() });
    }
    if is_host_name(text) && !text.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return Err(refusal("has no port", Some(format!("for instance `{text}:8080`"))));
    }
    socket_address(text).map(ServerAt::Address)
}

/// Whether DNS could know it: labels of letters, digits, `-` and `_`, and not only of digits, which would be an address
/// gone wrong.
fn is_host_name(text: &str) -> bool {
    let sound = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253 && name.split('.').all(sound) && !last.chars().all(|c| c.is_ascii_digit())
}

/// A token of RFC 9110, of which cookies' names are made.
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
}

/// `198.51.100.0/24`, `2001:db8::/32`, or an address for one host
pub fn prefix(text: &str) -> Result<IpNet, Refusal> {
    let net = match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
        (Ok(net), _) => net,
        (_, Ok(ip)) => IpNet::from(ip),
        _ => {
            let hint = match text.split_once('/') {
                Some((address, length)) if address.parse::<IpAddr>().is_ok() => {
                    let longest = if address.contains(':') { 128 } else { 32 };
                    format!("`{length}` is not a length from 0 to {longest}")
                }
                _ => "write `198.51.100.0/24` or `2001:db8::/32`".to_owned(),
            };
            return Err(refusal("is not a prefix", Some(hint)));
        }
    };
    if net != net.trunc() {
        let hint =
            format!("write `{}` for the whole range, or `{}` for the one host", net.trunc(), net.addr());
        return Err(refusal(format!("has bits set behind its length of {}", net.prefix_len()), Some(hint)));
    }
    if let IpNet::V6(v6) = net
        && v6.prefix_len() >= 96
        && let Some(v4) = v6.addr().to_ipv4_mapped()
    {
        let hint = format!("packets of IPv4 carry IPv4 addresses: write `{v4}/{}`", v6.prefix_len() - 96);
        return Err(refusal("is an IPv4 prefix in IPv6 clothes", Some(hint)));
    }
    Ok(net)
}

/// Names of sections.
pub fn name(text: &str) -> Result<(), Refusal> {
    if text.is_empty() || text.len() > 64 {
        return Err(refusal("doesn't have 1 to 64 characters", None));
    }
    if !text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')) {
        return Err(refusal("holds more than letters, digits, `-` and `_`", None));
    }
    Ok(())
}

/// Linux's own rule for the names of interfaces.
pub fn interface(text: &str) -> Result<(), Refusal> {
    let fits = (1..=15).contains(&text.len()) && !matches!(text, "." | "..");
    if fits && text.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '/' | ':')) {
        return Ok(());
    }
    Err(refusal("is not an interface name", Some("`ip link` lists the interfaces of this host".into())))
}

/// A route's host.
pub fn host(text: &str) -> Result<HostMatch, Refusal> {
    if let Some((scheme, rest)) = text.split_once("://") {
        let host = rest.split(['/', ':']).next().unwrap_or_default();
        return Err(refusal(format!("begins with `{scheme}://`"), Some(format!("write `{host}`"))));
    }
    if let Some((host, path)) = text.split_once('/') {
        let hint = format!("write `host = \"{host}\"` and `path = \"/{path}\"`");
        return Err(refusal("holds a path", Some(hint)));
    }
    // An IPv6 address is a host too, in brackets as it is in a URL.
    if text.starts_with('[') {
        return match text.trim_start_matches('[').strip_suffix(']').map(str::parse::<std::net::Ipv6Addr>) {
            Some(Ok(address)) => Ok(HostMatch::Exact(format!("[{address}]").into())),
            _ => Err(refusal("is not an IPv6 address in brackets", None)),
        };
    }
    if let Some((host, _)) = text.split_once(':') {
        let hint = format!("write `{host}`: a route matches the host whatever the port");
        return Err(refusal("holds a port", Some(hint)));
    }
    if text == "*" {
        return Err(refusal("means any host", Some("leave `host` out to match any host".into())));
    }
    let lower = text.trim_end_matches('.').to_ascii_lowercase();
    let (wildcard, name) = match lower.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, &*lower),
    };
    if name.contains('*') {
        let hint = "only a whole first label may be a wildcard: `*.example.com`";
        return Err(refusal("has a `*` in the wrong place", Some(hint.into())));
    }
    if !name.is_ascii() {
        return Err(refusal("is not ASCII", Some("write international names in their `xn--` form".into())));
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err(refusal("is not a host name", None));
    }
    Ok(if wildcard { HostMatch::Wildcard(name.into()) } else { HostMatch::Exact(name.into()) })
}

/// A route's path: absolute, in whole segments, without a slash at its end.
pub fn path_prefix(text: &str) -> Result<String, Refusal> {
    if !text.starts_with('/') {
        return Err(refusal("doesn't begin with `/`", Some(format!("write `/{text}`"))));
    }
    if let Some(at) = text.find(['?', '#']) {
        let hint = format!("a route matches the path alone: write `{}`", &text[..at]);
        return Err(refusal("holds a query or fragment", Some(hint)));
    }
    if text.contains('*') {
        let plain = text.trim_end_matches(['*', '/']);
        let hint = format!(
            "a path matches everything below it: write `{}`",
            if plain.is_empty() { "/" } else { plain }
        );
        return Err(refusal("holds a `*`", Some(hint)));
    }
    if !text.chars().all(|c| c.is_ascii_graphic()) {
        let hint = "write other characters percent-encoded, as they come in a request";
        return Err(refusal("holds more than visible ASCII characters", Some(hint.into())));
    }
    let kept = text.trim_end_matches('/');
    if kept.split('/').skip(1).any(|segment| matches!(segment, "" | "." | "..")) {
        let hint = "write the path as it is after `.`, `..` and doubled slashes are taken out";
        return Err(refusal("holds an empty, `.` or `..` segment", Some(hint.into())));
    }
    Ok(if kept.is_empty() { "/".to_owned() } else { kept.to_owned() })
}

/// A route's whole path.
pub fn path_exact(text: &str) -> Result<String, Refusal> {
    // Its last slash counts; anything else is as for prefixes.
    path_prefix(text)?;
    Ok(text.to_owned())
}

/// The candidate that was probably meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    // A third of the letters may be wrong; in short words, one.
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= allowed.min(candidate.chars().count().saturating_sub(1)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// What there is to choose from, for a hint.
pub fn choice<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let names: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => None,
        [only] => Some(format!("there is only {only}")),
        few if few.len() <= 12 => Some(format!("there are {}", few.join(", "))),
        many => Some(format!("there are {} and {} more", many[..12].join(", "), many.len() - 12)),
    }
}

/// A text from a file for a message: whole on one line, and not longer than a reader needs to recognise it.
pub fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

fn refusal(because: impl Into<String>, hint: Option<String>) -> Refusal {
    Refusal { because: because.into(), hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(duration("1d"), Ok(Duration::from_secs(86_400)));
        assert_eq!(duration("1y"), Ok(Duration::from_secs(365 * 86_400)));
        for wrong in ["", "5", "s", "1.5s", "-1s", " 1s", "1 s", "1S", "1w", "1m30s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert!(duration("99999999999999999999h").is_ok_and(|all| all > Duration::from_secs(1 << 40)));
    }

    #[test]
    fn a_shown_duration_reads_back() {
        for text in ["0s", "1ms", "250ms", "1s", "90s", "5m", "1h", "36h"] {
            assert_eq!(show(duration(text).unwrap()), text);
        }
    }

    #[test]
    fn prefixes_are_taken_only_when_they_say_what_they_mean() {
        assert_eq!(prefix("198.51.100.0/24").unwrap().to_string(), "198.51.100.0/24");
        assert_eq!(prefix("192.0.2.7").unwrap().to_string(), "192.0.2.7/32");
        assert_eq!(prefix("2001:db8::7").unwrap().to_string(), "2001:db8::7/128");
        assert_eq!(prefix("0.0.0.0/0").unwrap().to_string(), "0.0.0.0/0");
        assert!(prefix("10.1.2.3/8").unwrap_err().hint.unwrap().contains("`10.0.0.0/8`"));
        assert!(prefix("::ffff:10.0.0.0/104").unwrap_err().hint.unwrap().contains("`10.0.0.0/8`"));
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "cloudflare", "10.0.0.0/", "10.0.0.0/-1"] {
            assert!(prefix(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn hosts_are_kept_in_lower_case_without_dot() {
        assert_eq!(host("App.Example.com."), Ok(HostMatch::Exact("app.example.com".into())));
        assert_eq!(host("*.example.com"), Ok(HostMatch::Wildcard("example.com".into())));
        assert_eq!(host("localhost"), Ok(HostMatch::Exact("localhost".into())));
        assert_eq!(host("[2001:DB8::1]"), Ok(HostMatch::Exact("[2001:db8::1]".into())));
        for wrong in
            ["", "*", "*.", "a.*.com", "a b", "https://a.com", "a.com/x", "a.com:80", "a..com", "ä.com", "[1"]
        {
            assert!(host(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn paths_are_whole_segments() {
        assert_eq!(path_prefix("/").unwrap(), "/");
        assert_eq!(path_prefix("/a/b/").unwrap(), "/a/b");
        for wrong in ["", "a", "/a?b", "/a#b", "/a/*", "/a//b", "/a/../b", "/a b", "/ä"] {
            assert!(path_prefix(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_have_units_that_mean_one_thing() {
        for (text, bytes) in [("512B", 512), ("64KiB", 65_536), ("1MiB", 1 << 20), ("2GiB", 2 << 30)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
            assert_eq!(show_size(bytes), text);
        }
        for wrong in ["", "64", "64K", "64kB", "KiB", "-1KiB", "1.5MiB", "64 KiB", "lots"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(size("64K").unwrap_err().hint.unwrap(), "write `64KiB`");
    }

    #[test]
    fn the_nearest_is_near() {
        assert_eq!(nearest("shop-v2", ["shop-v1", "app"]), Some("shop-v1"));
        assert_eq!(nearest("entrypont", ["entrypoint", "service"]), Some("entrypoint"));
        assert_eq!(nearest("App", ["app"]), Some("app"));
        assert_eq!(nearest("wholly", ["different"]), None);
        assert_eq!(nearest("x", ["a"]), None);
    }

    #[test]
    fn a_quoted_text_stays_on_its_line() {
        assert_eq!(quoted("a\nb\u{1b}[31m"), "`a\\nb\\u{1b}[31m`");
        assert!(quoted(&"x".repeat(1000)).chars().count() < 90);
    }
}
