//! Which way a request would take: asked of the daemon, or worked out from a file.

use std::fmt::Write as _;

use http::StatusCode;

use super::ExplainArgs;
use crate::{
    cli::{Failure, colour_on_stderr, print},
    explain::{self, Explanation, Question, Way},
    providers::asked,
};

pub fn explain(args: &ExplainArgs, url: &str) -> Result<(), Failure> {
    let question = Question {
        url: url.to_owned(),
        method: args.method.clone().unwrap_or_else(|| "GET".to_owned()),
        headers: args.header.clone(),
        client: args.client,
        entrypoint: args.entrypoint.clone(),
    };
    let (explanation, whose) = match &args.config {
        Some(file) => (of_file(file, &question)?, file.display().to_string()),
        None => match of_daemon(args, &question)? {
            Some(explanation) => (explanation, "the running configuration".to_owned()),
            None => {
                let file = args.config();
                (of_file(file, &question)?, format!("{}; no daemon answers", file.display()))
            }
        },
    };
    if args.json {
        let document = serde_json::to_string(&explanation).unwrap_or_default();
        return print(&format!("{document}\n"));
    }
    print(&told(&explanation, &question, &whose))
}

fn of_file(file: &std::path::Path, question: &Question) -> Result<Explanation, Failure> {
    let loaded =
        asked::offline(file).map_err(|report| Failure::BadConfig(report.render(colour_on_stderr())))?;
    let mut explanation = explain::explain(&loaded.config, None, question).map_err(bad)?;
    explain::pages::of_config(&mut explanation, &loaded.config, question);
    Ok(explanation)
}

/// `None`: nobody answers.
fn of_daemon(args: &ExplainArgs, question: &Question) -> Result<Option<Explanation>, Failure> {
    let question = serde_json::to_string(question).unwrap_or_default();
    let Ok((status, body)) = args.admin.get(&format!("/api/v1/explain?question={}", escaped(&question)))
    else {
        return Ok(None);
    };
    match status {
        StatusCode::OK => serde_json::from_slice(&body)
            .map(Some)
            .map_err(|error| Failure::Failed(format!("the daemon's answer is not understood: {error}"))),
        StatusCode::BAD_REQUEST => Err(bad(String::from_utf8_lossy(&body).trim())),
        StatusCode::NOT_FOUND => {
            Err(Failure::Failed("the daemon doesn't know this command: is it another version?".into()))
        }
        other => Err(Failure::Failed(format!("the daemon answered {other}"))),
    }
}

fn bad(sentence: impl std::fmt::Display) -> Failure {
    Failure::BadConfig(format!("error: {sentence}"))
}

/// Everything but letters and digits, so that nothing of it means anything to a URL.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

fn told(explanation: &Explanation, question: &Question, whose: &str) -> String {
    let mut text = format!("{} {}, by {whose}\n", question.method, question.url);
    if explanation.ways.is_empty() {
        text.push_str("\nNo entrypoint takes requests of this scheme.\n");
    }
    for way in &explanation.ways {
        text.push('\n');
        one(&mut text, way);
    }
    text
}

fn one(text: &mut String, way: &Way) {
    let mut line = |name: &str, value: &str| {
        // Writing to a String can't fail.
        let _ = writeln!(text, "{name:<12} {value}");
    };
    line("entrypoint", &way.entrypoint);
    if let Some(route) = &way.route {
        let because =
            if way.because.is_empty() { "every request".to_owned() } else { way.because.join(", ") };
        line("route", &format!("{route}  ({because})"));
    }
    for (nth, stop) in way.middleware.iter().enumerate() {
        let does = stop.does.as_ref().map(|does| format!(": {does}")).unwrap_or_default();
        line(if nth == 0 { "middleware" } else { "" }, &format!("{} ({}){does}", stop.name, stop.kind));
    }
    if let Some(answer) = &way.answer {
        line("answer", answer);
    }
    if let Some(page) = &way.page {
        line("PAGE", page);
    }
    if let Some(service) = &way.service {
        let servers = match way.parts.is_empty() {
            true => format!("  ({})", way.servers.join(", ")),
            false => String::new(),
        };
        line("service", &format!("{service}{servers}"));
        if let Some(balance) = &way.balance {
            line("balance", balance);
        }
        for part in &way.parts {
            let within = "  ".repeat(part.depth);
            let servers = match part.servers.is_empty() {
                true => String::new(),
                false => format!("  ({})", part.servers.join(", ")),
            };
            line("", &format!("{within}└ {}: {}{servers}", part.service, part.when));
        }
    }
    if let Some(target) = &way.target {
        line("asked for", target);
    }
    for (nth, other) in way.others.iter().enumerate() {
        line(if nth == 0 { "not taken" } else { "" }, &format!("{}: {}", other.route, other.why.join("; ")));
    }
}

/// `Name: value`
pub fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("expected a header field: `Name: value`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_travels_in_a_url() {
        assert_eq!(escaped("{\"a\":\"ä b\"}"), "%7B%22a%22%3A%22%C3%A4%20b%22%7D");
    }

    #[test]
    fn a_header_has_a_colon() {
        assert_eq!(header("X-A: b:c "), Ok(("X-A".into(), "b:c".into())));
        assert!(header("X-A").is_err() && header(": b").is_err());
    }
}
