//! One look over the fields of a request. A map of fields hashes a name byte by byte each time that it is asked for one; on
//! the way of every request, passing once over the few that are there costs less than asking for a dozen.

use http::{HeaderMap, HeaderValue, header};

/// What matters of a request's fields before they travel on. Of what is there more than once, the first.
#[derive(Debug, Default)]
pub struct Glance<'a> {
    pub host: Option<&'a HeaderValue>,
    pub several_hosts: bool,
    pub connection: bool,
    pub expect: Option<&'a HeaderValue>,
    pub user_agent: Option<&'a HeaderValue>,
    pub referer: Option<&'a HeaderValue>,
    pub accept: Option<&'a HeaderValue>,
    pub accept_language: Option<&'a HeaderValue>,
    pub content_type: Option<&'a HeaderValue>,
}

impl<'a> Glance<'a> {
    pub fn over(headers: &'a HeaderMap) -> Self {
        let mut seen = Self::default();
        for (name, value) in headers {
            let place = match *name {
                header::HOST => {
                    seen.several_hosts |= seen.host.is_some();
                    &mut seen.host
                }
                header::CONNECTION => {
                    seen.connection = true;
                    continue;
                }
                header::EXPECT => &mut seen.expect,
                header::USER_AGENT => &mut seen.user_agent,
                header::REFERER => &mut seen.referer,
                header::ACCEPT => &mut seen.accept,
                header::ACCEPT_LANGUAGE => &mut seen.accept_language,
                header::CONTENT_TYPE => &mut seen.content_type,
                _ => continue,
            };
            place.get_or_insert(value);
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_is_said_twice_the_first_counts_and_two_hosts_are_seen() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (header::HOST, "a.example"),
            (header::USER_AGENT, "first"),
            (header::USER_AGENT, "second"),
            (header::ACCEPT_ENCODING, "gzip"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let seen = Glance::over(&headers);
        assert_eq!(seen.host.unwrap(), "a.example");
        assert_eq!(seen.user_agent.unwrap(), "first");
        assert!(!seen.several_hosts && !seen.connection && seen.expect.is_none());
        headers.append(header::HOST, HeaderValue::from_static("a.example"));
        headers.append(header::CONNECTION, HeaderValue::from_static("close"));
        let seen = Glance::over(&headers);
        assert!(seen.several_hosts && seen.connection);
    }
}
