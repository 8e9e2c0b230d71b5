//! The syntax of HAProxy: a statement a line, words with quotes and escapes, sections by their first word.

use std::sync::Arc;

use super::super::{ImportFault, LARGEST, Place, Source};

const SECTIONS: &[&str] = &[
    "backend",
    "cache",
    "defaults",
    "fcgi-app",
    "frontend",
    "global",
    "http-errors",
    "listen",
    "mailers",
    "peers",
    "program",
    "resolvers",
    "ring",
    "userlist",
];

/// HAProxy takes 64 words a line, and 2 KiB.
const MOST_WORDS: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    pub kind: String,
    pub name: String,
    pub lines: Vec<Line>,
    pub place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub words: Vec<String>,
    pub place: Place,
}

/// Parses a file.
///
/// # Errors
/// With the first line that is not of the language.
pub fn parse(source: &Source) -> Result<Vec<Section>, ImportFault> {
    parse_text(&source.name, &source.text)
}

/// Parses a text.
///
/// # Errors
/// As [`parse`].
pub fn parse_text(name: &str, text: &str) -> Result<Vec<Section>, ImportFault> {
    let file: Arc<str> = name.into();
    let place = |line: usize| Place { file: file.clone(), line };
    if text.len() > LARGEST {
        return Err(ImportFault::new(&place(1), "the file has more than 4 MiB: is it a configuration?"));
    }
    let mut sections: Vec<Section> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let place = place(number + 1);
        let words = words(line).map_err(|sentence| ImportFault::new(&place, sentence))?;
        let Some(first) = words.first() else { continue };
        if SECTIONS.contains(&first.as_str()) {
            let name = words.get(1).cloned().unwrap_or_default();
            sections.push(Section { kind: first.clone(), name, lines: Vec::new(), place });
            continue;
        }
        match sections.last_mut() {
            Some(section) => section.lines.push(Line { words, place }),
            // Conditions of the preprocessor stand outside.
            None if first.starts_with('.') => {}
            None => {
                let sentence =
                    format!("`{first}` stands outside of any section: is this HAProxy's configuration?");
                return Err(ImportFault::new(&place, sentence));
            }
        }
    }
    Ok(sections)
}

fn words(line: &str) -> Result<Vec<String>, &'static str> {
    let (mut words, mut word, mut begun) = (Vec::new(), String::new(), false);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '#' => break,
            letter if letter.is_whitespace() => {
                if begun {
                    words.push(std::mem::take(&mut word));
                    begun = false;
                }
                continue;
            }
            '\\' => match letters.next() {
                Some(escaped) => word.push(escaped),
                None => return Err("a backslash at the end of a line escapes nothing"),
            },
            '\'' => loop {
                match letters.next() {
                    Some('\'') => break,
                    Some(letter) => word.push(letter),
                    None => return Err("a quote is never closed"),
                }
            },
            '"' => loop {
                match letters.next() {
                    Some('"') => break,
                    Some('\\') => word.extend(letters.next()),
                    Some(letter) => word.push(letter),
                    None => return Err("a quote is never closed"),
                }
            },
            letter => word.push(letter),
        }
        begun = true;
        if words.len() > MOST_WORDS {
            return Err("the line has more than 256 words");
        }
    }
    if begun {
        words.push(word);
    }
    Ok(words)
}

// === impl Line ===

impl Line {
    pub(super) fn word(&self, nth: usize) -> &str {
        self.words.get(nth).map_or("", String::as_str)
    }

    /// Of words in pairs, what comes after this one.
    pub(super) fn after(&self, key: &str) -> Option<&str> {
        let at = self.words.iter().position(|word| word == key)?;
        self.words.get(at + 1).map(String::as_str)
    }

    pub(super) fn has(&self, word: &str) -> bool {
        self.words.iter().any(|known| known == word)
    }

    /// What is before `if` or `unless`, and the condition with that word.
    pub(super) fn condition(&self) -> (&[String], &[String]) {
        let at = self.words.iter().position(|word| word == "if" || word == "unless");
        self.words.split_at(at.unwrap_or(self.words.len()))
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_apart_as_haproxy_does() {
        for (line, expected) in [
            ("bind *:80 # all", vec!["bind", "*:80"]),
            ("acl a path_reg \"^/a b\" -i", vec!["acl", "a", "path_reg", "^/a b", "-i"]),
            ("x a\\ b 'c \"d'", vec!["x", "a b", "c \"d"]),
            ("x \"\"", vec!["x", ""]),
            ("   ", vec![]),
        ] {
            assert_eq!(words(line).unwrap(), expected, "{line}");
        }
        assert!(words("x 'a").is_err() && words("x \\").is_err());
    }

    #[test]
    fn what_is_no_configuration_is_told_with_its_line() {
        let fault = parse_text("haproxy.cfg", "# x\nserver a 10.0.0.1\n").unwrap_err().to_string();
        assert!(fault.starts_with("haproxy.cfg:2: `server` stands outside"), "{fault}");
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd(text in "(\\PC|[ \n\"'\\\\#]){0,200}") {
            let _ = parse_text("x", &text);
        }
    }
}
