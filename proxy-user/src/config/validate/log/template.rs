//! `format`: a word, or a text with variables in braces.

use http::HeaderName;

use crate::config::{
    code::Code,
    findings::Findings,
    model::{AccessLogFormat, LogPiece, LogTemplate, Variable},
    source::FileId,
    value::{nearest, quoted},
    written::At,
};

pub fn format(file: FileId, what: &str, written: &At<String>, findings: &mut Findings) -> AccessLogFormat {
    let (message, suggestion, hint) = match &*written.value {
        "json" => return AccessLogFormat::Json,
        "combined" => return AccessLogFormat::Combined,
        text if !text.contains('{') => (
            format!(
                "{what} is {}, which is neither `json` nor `combined` nor a text with variables",
                quoted(text)
            ),
            nearest(text, ["json", "combined"]).map(str::to_owned),
            "variables stand in braces: `{client_ip} {status}`",
        ),
        text if text.contains(['\n', '\r']) => {
            (format!("{what} holds a line break"), None, "each request is one line, whose end is added")
        }
        text => match pieces(text) {
            Ok(pieces) => return AccessLogFormat::Template(LogTemplate { text: text.to_owned(), pieces }),
            Err(unknown) => (
                format!("{what}: `{{{unknown}}}` is no variable"),
                nearest(&unknown, Variable::ALL.iter().map(|(name, _)| *name)).map(str::to_owned),
                "docs/logs.md lists them; a brace that stands for itself is written twice: `{{`",
            ),
        },
    };
    let finding = findings.error(Code::WrongValue, file, &written.span, message);
    match suggestion {
        Some(near) => finding.suggest(Some(&near)),
        None => finding.hint(hint),
    };
    AccessLogFormat::Json
}

/// The name that is none, if there is one.
fn pieces(text: &str) -> Result<Vec<LogPiece>, String> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        plain.push_str(&rest[..at]);
        let (brace, behind) = rest[at..].split_at(1);
        if let Some(behind) = behind.strip_prefix(brace) {
            plain.push_str(brace);
            rest = behind;
            continue;
        }
        let Some((name, behind)) = behind.split_once('}').filter(|_| brace == "{") else {
            return Err(rest[at..].chars().take(20).collect());
        };
        if !plain.is_empty() {
            pieces.push(LogPiece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(piece(name).ok_or_else(|| name.to_owned())?);
        rest = behind;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(LogPiece::Text(plain));
    }
    Ok(pieces)
}

fn piece(name: &str) -> Option<LogPiece> {
    let header = |name: &str| name.parse::<HeaderName>().ok();
    if let Some(name) = name.strip_prefix("request_header:") {
        return header(name).map(LogPiece::RequestHeader);
    }
    if let Some(name) = name.strip_prefix("response_header:") {
        return header(name).map(LogPiece::ResponseHeader);
    }
    let known = Variable::ALL.into_iter().find(|(known, _)| *known == name);
    known.map(|(_, variable)| LogPiece::Variable(variable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_taken_apart() {
        let text = |text: &str| LogPiece::Text(text.to_owned());
        assert_eq!(
            pieces("{{{client_ip}}} \"{request_header:X-A}\""),
            Ok(vec![
                text("{"),
                LogPiece::Variable(Variable::ClientIp),
                text("} \""),
                LogPiece::RequestHeader(HeaderName::from_static("x-a")),
                text("\""),
            ])
        );
    }

    #[test]
    fn what_is_no_variable_is_named() {
        for (text, unknown) in [("{clientip}", "clientip"), ("{status", "{status"), ("a}", "}"), ("{}", "")] {
            assert_eq!(pieces(text), Err(unknown.to_owned()), "{text}");
        }
    }
}
