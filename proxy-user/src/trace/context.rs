//! W3C Trace Context: the `traceparent` field, read and written. <https://www.w3.org/TR/trace-context/>

use http::HeaderMap;

use super::TRACEPARENT;

/// `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    pub trace: u128,
    pub span: u64,
    pub sampled: bool,
}

const LENGTH: usize = 55;
const SAMPLED: u8 = 1;

impl Context {
    /// The one among these fields. Of several, or a malformed one, nothing is believed.
    pub fn among(headers: &HeaderMap) -> Option<Self> {
        let mut all = headers.get_all(TRACEPARENT).iter();
        let only = all.next().filter(|_| all.next().is_none())?;
        Self::read(only.as_bytes())
    }

    fn read(text: &[u8]) -> Option<Self> {
        let dashed = |at: usize| text.get(at) == Some(&b'-');
        if text.len() < LENGTH || !(dashed(2) && dashed(35) && dashed(52)) {
            return None;
        }
        let (version, flags) = (number(&text[..2])?, number(&text[53..LENGTH])?);
        // A later version may have more behind; this one hasn't.
        let sound = match version {
            0xff => false,
            0 => text.len() == LENGTH,
            _ => text.len() == LENGTH || dashed(LENGTH),
        };
        let (trace, span) = (number(&text[3..35])?, number(&text[36..52])?);
        let span = u64::try_from(span).ok()?;
        let sampled = flags & u128::from(SAMPLED) != 0;
        (sound && trace != 0 && span != 0).then_some(Self { trace, span, sampled })
    }

    pub fn written(&self) -> [u8; LENGTH] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        text[3..35].copy_from_slice(&hex(self.trace));
        text[36..52].copy_from_slice(&hex(u128::from(self.span))[16..]);
        text[54] += u8::from(self.sampled);
        text
    }
}

/// Lower case alone.
fn number(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0u128, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

pub fn hex(number: u128) -> [u8; 32] {
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_read_is_written_alike() {
        let context = Context::read(GOOD.as_bytes()).unwrap();
        assert_eq!(context.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((context.span, context.sampled), (0x00f0_67aa_0ba9_02b7, true));
        assert_eq!(context.written(), GOOD.as_bytes());
        let unsampled = Context { sampled: false, ..context };
        assert!(unsampled.written().ends_with(b"-00"));
    }

    #[test]
    fn a_malformed_field_is_nobodys() {
        let later = GOOD.replacen("00", "cc", 1);
        for (text, good) in [
            (GOOD.to_owned(), true),
            (later.clone(), true),
            (format!("{later}-what-the-future-brings"), true),
            (format!("{later}x"), false),
            (format!("{GOOD}-more"), false),
            (GOOD.replacen("00", "ff", 1), false),
            (GOOD.to_uppercase(), false),
            (GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)), false),
            (GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)), false),
            (GOOD.replace('-', "_"), false),
            (GOOD[..54].to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(Context::read(text.as_bytes()).is_some(), good, "{text}");
        }
        let mut twice = HeaderMap::new();
        twice.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert!(Context::among(&twice).is_some());
        twice.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert!(Context::among(&twice).is_none());
    }
}
