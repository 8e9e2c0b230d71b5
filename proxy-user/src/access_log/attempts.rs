//! Which servers a request has been to, for those that have been to more than one or were answered by none.

use std::{sync::Arc, time::Duration};

use http::StatusCode;

use super::format::string;

/// An attempt to have a request answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempted {
    /// The server's address.
    pub server: Arc<str>,
    pub outcome: Outcome,
    /// Until then.
    pub took: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Answered(StatusCode),
    /// Why it brought no answer, in a word.
    Failed(&'static str),
}

/// `,"attempts":[{"upstream":"10.0.0.11:8080","outcome":"refused","us":412}, …]`; nothing if there is nothing to tell.
pub fn written(out: &mut Vec<u8>, attempts: &[Attempted]) {
    for (place, Attempted { server, outcome, took }) in attempts.iter().enumerate() {
        out.extend_from_slice(if place == 0 {
            &b",\"attempts\":[{\"upstream\":"[..]
        } else {
            b",{\"upstream\":"
        });
        string(out, server.as_bytes());
        match outcome {
            Outcome::Answered(status) => {
                out.extend_from_slice(b",\"status\":");
                out.extend_from_slice(status.as_str().as_bytes());
            }
            Outcome::Failed(why) => {
                out.extend_from_slice(b",\"failed\":");
                string(out, why.as_bytes());
            }
        }
        out.extend_from_slice(b",\"us\":");
        out.extend_from_slice(itoa::Buffer::new().format(took.as_micros()).as_bytes());
        out.push(b'}');
    }
    if !attempts.is_empty() {
        out.push(b']');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_told_in_their_order() {
        let attempt = |server: &str, outcome| Attempted {
            server: server.into(),
            outcome,
            took: Duration::from_micros(412),
        };
        let mut out = Vec::new();
        written(&mut out, &[]);
        assert!(out.is_empty());
        written(
            &mut out,
            &[
                attempt("10.0.0.11:80", Outcome::Failed("refused")),
                attempt("[2001:db8::1]:80", Outcome::Answered(StatusCode::OK)),
            ],
        );
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#","attempts":[{"upstream":"10.0.0.11:80","failed":"refused","us":412},{"upstream":"[2001:db8::1]:80","status":200,"us":412}]"#
        );
    }
}
