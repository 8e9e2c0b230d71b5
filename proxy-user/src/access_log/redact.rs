//! What no access log and no span may hold: values of named header fields, and of named keys of queries.

use http::HeaderName;

use crate::config::model::Redact;

/// What stands in the place of a value.
pub const REDACTED: &str = "[redacted]";

#[derive(Debug, Default)]
pub struct Redaction {
    /// In lower case.
    query: Vec<String>,
    headers: Vec<HeaderName>,
}

impl Redaction {
    pub fn new(redact: &Redact) -> Self {
        Self { query: redact.query.clone(), headers: redact.headers.clone() }
    }

    pub fn hides(&self, name: &HeaderName) -> bool {
        self.headers.contains(name)
    }

    /// Hands on a path or URL in pieces, without the values that are hidden. Mostly that is one piece.
    pub fn of_query<'t>(&self, target: &'t [u8], mut out: impl FnMut(&'t [u8])) {
        let start = if self.query.is_empty() { None } else { memchr::memchr(b'?', target) };
        let Some(start) = start else { return out(target) };
        let mut from = 0;
        let mut at = start + 1;
        while at < target.len() {
            // Servers differ in what they take for the end of a pair; a fragment is a browser's own.
            let end = target[at..]
                .iter()
                .position(|byte| matches!(byte, b'&' | b';' | b'#'))
                .map_or(target.len(), |length| at + length);
            let pair = &target[at..end];
            if let Some(sign) = memchr::memchr(b'=', pair)
                && self.hides_key(&pair[..sign])
            {
                out(&target[from..=at + sign]);
                out(REDACTED.as_bytes());
                from = end;
            }
            at = end + 1;
        }
        out(&target[from..]);
    }

    /// As the server will read it: percent-encoded or not, in any case, as one of a list (`token[]`) or not.
    fn hides_key(&self, key: &[u8]) -> bool {
        let key = decoded(key);
        let key = key.split(|byte| *byte == b'[').next().unwrap_or_default();
        self.query.iter().any(|hidden| key.eq_ignore_ascii_case(hidden.as_bytes()))
    }
}

fn decoded(key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key;
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        rest = if byte.is_some() { &behind[2..] } else { behind };
        bytes.push(byte.unwrap_or(*first));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_hidden_keys_are_left_out_however_they_are_spelled() {
        let redaction = Redaction { query: vec!["token".into(), "pass-word".into()], headers: Vec::new() };
        for (target, expected) in [
            ("/", "/"),
            ("/token=abc", "/token=abc"),
            ("/?", "/?"),
            ("/?token", "/?token"),
            ("/?token=", "/?token=[redacted]"),
            ("/?token=abc", "/?token=[redacted]"),
            ("/?id=7&Token=a=b&x=1", "/?id=7&Token=[redacted]&x=1"),
            ("/?%74oken=abc;pass%2Dword=x#y", "/?%74oken=[redacted];pass%2Dword=[redacted]#y"),
            ("/?token[]=a&token%5B%5D=b", "/?token[]=[redacted]&token%5B%5D=[redacted]"),
            ("/?tokens=a&mytoken=b", "/?tokens=a&mytoken=b"),
            ("/?a=%7&%=1&token=x&", "/?a=%7&%=1&token=[redacted]&"),
            ("https://a.example/x?token=1", "https://a.example/x?token=[redacted]"),
        ] {
            let mut out = Vec::new();
            redaction.of_query(target.as_bytes(), |piece| out.extend_from_slice(piece));
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{target}");
        }
    }

    #[test]
    fn where_nothing_is_hidden_everything_is_one_piece() {
        let mut pieces = 0;
        Redaction::default().of_query(b"/?token=abc&b", |piece| {
            pieces += 1;
            assert_eq!(piece, b"/?token=abc&b");
        });
        assert_eq!(pieces, 1);
    }
}
