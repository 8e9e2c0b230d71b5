//! Reading one cookie of a request.

use http::{HeaderMap, header};

/// The value of the first cookie of that name.
pub fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    values(headers, name).next()
}

/// The values of the cookies of that name, in the order in which they were sent, without the quotes that they may stand in.
pub fn values<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let pairs =
        headers.get_all(header::COOKIE).iter().flat_map(|field| field.as_bytes().split(|&byte| byte == b';'));
    pairs.map(<[u8]>::trim_ascii).filter_map(move |pair| {
        let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn the_first_cookie_of_the_name_counts_and_no_other() {
        let mut headers = HeaderMap::new();
        for field in ["a=1; lb=one;b=2", "lb=two; quoted=\"x y\"; empty="] {
            headers.append(header::COOKIE, HeaderValue::from_static(field));
        }
        for (name, wanted) in [
            ("lb", Some("one")),
            ("b", Some("2")),
            ("l", None),
            ("quoted", Some("x y")),
            ("empty", Some("")),
            ("LB", None),
        ] {
            assert_eq!(value(&headers, name), wanted.map(str::as_bytes), "{name}");
        }
    }
}
