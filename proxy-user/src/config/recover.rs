//! Syntax errors, one after the other: a TOML parser that goes on after an error makes a landslide of one missing
//! bracket. So each statement with an error is reported once, blanked out, and the rest is parsed again.
//!
//! Blanking keeps every byte's place: what is found later still points into the original text.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::{code::Code, value::quoted};

/// More errors than this are not a slip of the pen.
const MOST: usize = 50;

/// A text that is TOML, and what had to go for it.
#[derive(Debug, Default)]
pub struct Recovered {
    pub text: String,
    pub faults: Vec<SyntaxFault>,
    /// Dotted paths of what was blanked out, as far as they can be told.
    pub lost: Vec<Lost>,
    /// False: more is gone than `lost` tells.
    pub whole: bool,
}

#[derive(Debug)]
pub struct SyntaxFault {
    pub code: Code,
    pub span: Range<usize>,
    pub message: String,
    pub hint: Option<String>,
    /// Where a key that is written twice stands first.
    pub first: Option<Range<usize>>,
}

/// A setting that was blanked out.
#[derive(Debug)]
pub struct Lost {
    /// The header that it stood below: its path, and its place for a list's element.
    pub section: String,
    pub element: Option<usize>,
    /// None: the section itself.
    pub key: Option<String>,
}

/// The section below which the settings of the `nth` broken header land.
pub fn stand_in(nth: usize) -> String {
    format!("_{nth}")
}

pub fn recover(original: &str) -> Recovered {
    let mut text = original.to_owned();
    let mut recovered = Recovered { whole: true, ..Recovered::default() };
    while recovered.faults.len() < MOST {
        let (table, errors) = DeTable::parse_recoverable(&text);
        let first = errors.iter().min_by_key(|error| error.span().map_or(0, |span| span.start));
        let Some(error) = first else {
            recovered.text = text;
            return recovered;
        };
        let span = error.span().unwrap_or(0..0);
        let statement = Statement::around(&text, table.get_ref(), &span);
        recovered.faults.push(statement.fault(&text, table.get_ref(), &span, error.message()));
        let blanked = statement.blank(&text, &mut recovered);
        // Nothing left to blank out: the error isn't in any statement.
        if blanked == text {
            break;
        }
        text = blanked;
    }
    Recovered { whole: false, text: String::new(), ..recovered }
}

/// The lines that an error belongs to.
struct Statement {
    lines: Range<usize>,
    /// The beginning of a list that runs on into the next statement.
    unclosed: Option<usize>,
}

impl Statement {
    fn around(text: &str, table: &DeTable<'_>, error: &Range<usize>) -> Self {
        let starts = line_starts(text);
        let line = line_of(&starts, error.start);
        let this = line_text(text, &starts, line);
        let Some(value) = value_around(text, table, error.start) else {
            return Self { lines: line..line + 1, unclosed: None };
        };
        let first = line_of(&starts, value.start);
        let runs_on = first < line
            && text[value.start..].starts_with('[')
            && (header(this).is_some() || key(this).is_some());
        if runs_on {
            return Self { lines: first..line, unclosed: Some(value.start) };
        }
        // To the value's end, but never into the next statement: an open bracket may have swallowed it.
        let in_table = text[value.start..].starts_with('{');
        let fresh = |line: &usize| {
            let this = line_text(text, &starts, *line);
            header(this).is_some() || (!in_table && key(this).is_some())
        };
        let last = line_of(&starts, value.end.saturating_sub(1)).max(line);
        let end = (line + 1..=last).find(fresh).unwrap_or(last + 1);
        Self { lines: first..end, unclosed: None }
    }

    fn fault(&self, text: &str, table: &DeTable<'_>, error: &Range<usize>, message: &str) -> SyntaxFault {
        let word = text.get(error.clone()).unwrap_or_default();
        let fault = |message: &str, hint: Option<&str>| SyntaxFault {
            code: Code::Syntax,
            span: error.clone(),
            message: message.to_owned(),
            hint: hint.map(str::to_owned),
            first: None,
        };
        if let Some(start) = self.unclosed {
            return SyntaxFault {
                span: start..start + 1,
                ..fault("this list is never closed", Some("a `]` is missing"))
            };
        }
        let starts = line_starts(text);
        let number = line_of(&starts, error.start);
        let line = line_text(text, &starts, number);
        let header = header(line);
        if message == "duplicate key" {
            let first = match &header {
                Some((path, _)) => first_header(text, &starts, number, path),
                None => first_key(table, word.trim_matches(['"', '\'']), error.start),
            };
            let name = header.map_or(word, |_| line.trim());
            let message = format!("{} is written twice", quoted(name));
            let fault = fault(&message, Some("keep one of the two"));
            return SyntaxFault { code: Code::DefinedTwice, first, ..fault };
        }
        if header.is_some() {
            let message = format!("a broken section header: {message}");
            return fault(&message, Some("a header is written `[service.app]`"));
        }
        let value = line.split_once('=').map(|(_, value)| value.split('#').next().unwrap_or_default().trim());
        if value == Some("") {
            return fault("there is no value", Some("write one, or take the line out"));
        }
        if message.starts_with("string values must be quoted") {
            return fault("text without quotes", Some(&format!("write `\"{word}\"`")));
        }
        for (kind, quote) in [("invalid basic string", "\""), ("invalid literal string", "'")] {
            if message.starts_with(kind) && word.is_empty() {
                return fault("this text is never closed", Some(&format!("a `{quote}` is missing")));
            }
        }
        match value {
            Some(value) if message.starts_with("invalid ") && !value.contains(['"', '\'', '[', '{']) => {
                fault(
                    &format!("{} is not a TOML value", quoted(value)),
                    Some(&format!("text needs quotes: `\"{value}\"`")),
                )
            }
            _ => fault(message, None),
        }
    }

    /// The text without these lines; notes what they held.
    fn blank(&self, text: &str, recovered: &mut Recovered) -> String {
        let starts = line_starts(text);
        let from = starts[self.lines.start];
        let to = starts.get(self.lines.end).copied().unwrap_or(text.len());
        let mut stand_in = None;
        for line in self.lines.clone() {
            let this = line_text(text, &starts, line);
            if let Some((path, _)) = header(this) {
                let name = format!("[{}]", self::stand_in(recovered.faults.len()));
                if self.lines.len() == 1 && name.len() <= this.len() {
                    stand_in = Some(name);
                } else {
                    recovered.whole = false;
                }
                recovered.lost.push(Lost { section: path, element: None, key: None });
            } else if line == self.lines.start && !this.trim().is_empty() {
                let (section, element) = section_of(text, &starts, line);
                let word = this.split(['=', ' ', '\t']).find(|word| !word.is_empty()).unwrap_or_default();
                recovered.lost.push(Lost {
                    section,
                    element,
                    key: Some(word.trim_matches(['"', '\'']).to_owned()),
                });
            }
        }
        let gone: String =
            text[from..to].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect();
        let gone = match stand_in {
            Some(name) => format!("{name}{}", &gone[name.len()..]),
            None => gone,
        };
        format!("{}{gone}{}", &text[..from], &text[to..])
    }
}

/// The whole value of the statement around `at`, where there is one.
fn value_around(text: &str, table: &DeTable<'_>, at: usize) -> Option<Range<usize>> {
    table.iter().find_map(|(_, value)| {
        let span = value.span();
        let inline = text.get(span.start..).is_some_and(|rest| rest.starts_with('{'));
        match value.get_ref() {
            DeValue::Table(inner) if !inline => value_around(text, inner, at),
            DeValue::Array(items)
                if items.iter().any(|item| is_section(text, item.get_ref(), item.span().start)) =>
            {
                items
                    .iter()
                    .filter_map(|item| item.get_ref().as_table())
                    .find_map(|inner| value_around(text, inner, at))
            }
            _ => (span.start <= at && at <= span.end && !span.is_empty()).then_some(span),
        }
    })
}

/// Whether an element of a list is a `[[section]]`.
fn is_section(text: &str, item: &DeValue<'_>, start: usize) -> bool {
    item.is_table() && text.get(start..).is_some_and(|rest| rest.starts_with('['))
}

/// Where a key that is written again at `before` stands first: the nearest of that name above.
fn first_key(table: &DeTable<'_>, name: &str, before: usize) -> Option<Range<usize>> {
    let below = |value: &DeValue<'_>| match value {
        DeValue::Table(inner) => first_key(inner, name, before),
        DeValue::Array(items) => {
            let tables = items.iter().filter_map(|item| item.get_ref().as_table());
            tables.filter_map(|inner| first_key(inner, name, before)).max_by_key(|span| span.start)
        }
        _ => None,
    };
    let here = table.iter().filter(|(key, _)| key.get_ref() == name && key.span().start < before);
    let here = here.map(|(key, _)| key.span());
    here.chain(table.iter().filter_map(|(_, value)| below(value.get_ref()))).max_by_key(|span| span.start)
}

/// Where a section's header stands first.
fn first_header(text: &str, starts: &[usize], before: usize, path: &str) -> Option<Range<usize>> {
    (0..before).find_map(|line| {
        let this = line_text(text, starts, line);
        let (known, _) = header(this)?;
        (known == path).then(|| starts[line]..starts[line] + this.len())
    })
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

fn line_of(starts: &[usize], at: usize) -> usize {
    starts.partition_point(|start| *start <= at).saturating_sub(1)
}

fn line_text<'a>(text: &'a str, starts: &[usize], line: usize) -> &'a str {
    let end = starts.get(line + 1).copied().unwrap_or(text.len());
    text[starts[line]..end].trim_end_matches(['\n', '\r'])
}

/// The path of a line that looks like a section's header, also a broken one; and whether it is a list's.
fn header(line: &str) -> Option<(String, bool)> {
    let line = line.trim();
    let rest = line.strip_prefix('[')?;
    let path = rest.trim_start_matches('[').split(['#', ']']).next().unwrap_or_default();
    let dotted = path.trim().replace(['"', '\'', ' '], "");
    let plain = !dotted.is_empty() && dotted.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    // `["a", "b"]` is the rest of a list, not a header.
    (plain && !line.contains([',', '"'])).then(|| (dotted, rest.starts_with('[')))
}

/// The key of a line that looks like the beginning of a setting.
fn key(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    let key = key.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (!key.is_empty() && key.chars().all(plain)).then_some(key)
}

fn section_of(text: &str, starts: &[usize], line: usize) -> (String, Option<usize>) {
    for above in (0..line).rev() {
        if let Some((path, listed)) = header(line_text(text, starts, above)) {
            return (path, listed.then_some(starts[above]));
        }
    }
    (String::new(), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(text: &str) -> Vec<String> {
        let recovered = recover(text);
        assert!(recovered.whole, "{:?}", recovered.faults);
        assert_eq!(recovered.text.len(), text.len(), "every byte keeps its place");
        let path = |lost: Lost| match lost.key {
            Some(key) => format!("{}/{key}", lost.section),
            None => lost.section,
        };
        recovered.lost.into_iter().map(path).collect()
    }

    #[test]
    fn sound_text_stays_as_it_is() {
        let text = "[a]\nb = [\n  1,\n]\n[[c]]\nd = { e = 2 }\n";
        let recovered = recover(text);
        assert_eq!((recovered.text.as_str(), recovered.whole), (text, true));
        assert!(recovered.faults.is_empty() && recovered.lost.is_empty());
    }

    #[test]
    fn a_faulty_statement_is_lost_and_no_other() {
        assert_eq!(lost("[a]\nb = x\nc = 1\n"), ["a/b"]);
        assert_eq!(lost("[a]\nb = [1,\n 2\nc = 1\n"), ["a/b"]);
        assert_eq!(lost("[a]\nb = [\n 1,\n x,\n]\nc = 1\n"), ["a/b"]);
        assert_eq!(lost("[a]\nb = [\n x,\n 2\nc = 1\n[d]\ne = 1\n"), ["a/b"]);
        assert_eq!(lost("[[a]]\nb = \"x\nc = y\n"), ["a/b", "a/c"]);
        assert_eq!(lost("nonsense here\n[a]\nb = 1\n"), ["/nonsense"]);
    }

    #[test]
    fn a_broken_header_keeps_its_settings_from_other_sections() {
        let recovered = recover("[a]\nb = 1\n[long.name\nb = 2\n");
        assert_eq!(recovered.faults.len(), 1, "`b` is not written twice");
        assert_eq!(recovered.text, "[a]\nb = 1\n[_1]      \nb = 2\n");
    }

    #[test]
    fn what_was_blanked_out_unseen_is_not_concluded_from() {
        let swallowed = recover("[a]\nb = \"\"\"\n[c]\nd = 1\n");
        assert_eq!((swallowed.faults.len(), swallowed.whole), (1, false));
    }
}
