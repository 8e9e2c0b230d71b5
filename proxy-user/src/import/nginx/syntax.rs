//! The syntax of nginx: words, quotes, `;` and blocks.

use std::{path::Path, sync::Arc};

use super::super::{ImportFault, LARGEST, Place, Source, included};

/// nginx itself has no such bounds; no configuration comes near them.
const DEEPEST: usize = 32;
const MOST_DIRECTIVES: usize = 100_000;
const DEEPEST_INCLUDE: usize = 8;

/// `name arguments;` or `name arguments { block }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    pub name: String,
    pub arguments: Vec<String>,
    pub block: Option<Vec<Directive>>,
    pub place: Place,
}

/// Parses a file, with the files that it includes, as far as they can be read.
///
/// # Errors
/// With the first thing that is not of the language.
pub fn parse(source: &Source) -> Result<Vec<Directive>, ImportFault> {
    let folder = source.path.parent().unwrap_or(Path::new("."));
    let mut count = 0;
    of_file(&source.name, &source.text, Some(folder), &mut count, 0)
}

/// Parses a text alone.
///
/// # Errors
/// As [`parse`].
pub fn parse_text(name: &str, text: &str) -> Result<Vec<Directive>, ImportFault> {
    of_file(&name.into(), text, None, &mut 0, 0)
}

fn of_file(
    name: &Arc<str>,
    text: &str,
    folder: Option<&Path>,
    count: &mut usize,
    depth: usize,
) -> Result<Vec<Directive>, ImportFault> {
    if text.len() > LARGEST {
        let place = Place { file: name.clone(), line: 1 };
        return Err(ImportFault::new(&place, "the file has more than 4 MiB: is it a configuration?"));
    }
    let mut parser =
        Parser { tokens: Tokens { file: name.clone(), rest: text, line: 1 }, folder, count, includes: depth };
    parser.block(0)
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    End,
    Open,
    Close,
}

struct Tokens<'a> {
    file: Arc<str>,
    rest: &'a str,
    line: usize,
}

struct Parser<'a> {
    tokens: Tokens<'a>,
    folder: Option<&'a Path>,
    count: &'a mut usize,
    includes: usize,
}

impl Parser<'_> {
    /// Up to the block's end, or the file's at depth 0.
    fn block(&mut self, depth: usize) -> Result<Vec<Directive>, ImportFault> {
        let mut directives = Vec::new();
        loop {
            let name = match self.tokens.next()? {
                (Some(Token::Word(name)), place) => (name, place),
                (None, _) if depth == 0 => return Ok(directives),
                (Some(Token::Close), _) if depth > 0 => return Ok(directives),
                (None, place) => {
                    return Err(ImportFault::new(&place, "a block is never closed: `}` is missing"));
                }
                (Some(Token::Close), place) => {
                    return Err(ImportFault::new(&place, "`}` closes a block that was never opened"));
                }
                // An empty statement does no harm.
                (Some(Token::End), _) => continue,
                (Some(Token::Open), place) => {
                    return Err(ImportFault::new(&place, "`{` opens a block that has no name"));
                }
            };
            let (name, place) = name;
            *self.count += 1;
            if *self.count > MOST_DIRECTIVES {
                return Err(ImportFault::new(&place, "there are more than 100,000 directives"));
            }
            let (arguments, block) = self.arguments(&place, depth)?;
            let directive = Directive { name, arguments, block, place };
            match self.folder {
                Some(folder) if directive.name == "include" => {
                    self.include(folder, directive, &mut directives)?;
                }
                _ => directives.push(directive),
            }
        }
    }

    fn arguments(
        &mut self,
        place: &Place,
        depth: usize,
    ) -> Result<(Vec<String>, Option<Vec<Directive>>), ImportFault> {
        let mut arguments = Vec::new();
        loop {
            match self.tokens.next()? {
                (Some(Token::Word(word)), _) => arguments.push(word),
                (Some(Token::End), _) => return Ok((arguments, None)),
                (Some(Token::Open), place) => {
                    if depth + 1 >= DEEPEST {
                        return Err(ImportFault::new(&place, "blocks are nested too deeply"));
                    }
                    return Ok((arguments, Some(self.block(depth + 1)?)));
                }
                (Some(Token::Close) | None, _) => {
                    return Err(ImportFault::new(place, "the directive that begins here has no `;`"));
                }
            }
        }
    }

    fn include(
        &mut self,
        folder: &Path,
        directive: Directive,
        into: &mut Vec<Directive>,
    ) -> Result<(), ImportFault> {
        let pattern = directive.arguments.first().map_or("", String::as_str);
        let files = included::files(folder, pattern);
        // What isn't here is told where directives are looked at.
        if files.is_empty() || self.includes >= DEEPEST_INCLUDE {
            into.push(directive);
            return Ok(());
        }
        for file in files {
            let name: Arc<str> = file.display().to_string().into();
            let text = std::fs::read_to_string(&file).map_err(|error| {
                ImportFault::new(&directive.place, format!("{name} can't be read: {error}"))
            })?;
            into.extend(of_file(&name, &text, Some(folder), self.count, self.includes + 1)?);
        }
        Ok(())
    }
}

impl Tokens<'_> {
    fn next(&mut self) -> Result<(Option<Token>, Place), ImportFault> {
        self.skip();
        let place = Place { file: self.file.clone(), line: self.line };
        let Some(first) = self.rest.chars().next() else { return Ok((None, place)) };
        let token = match first {
            ';' => Token::End,
            '{' => Token::Open,
            '}' => Token::Close,
            '"' | '\'' => {
                let word = self.quoted(first, &place)?;
                return Ok((Some(Token::Word(word)), place));
            }
            _ => return Ok((Some(Token::Word(self.word())), place)),
        };
        self.rest = &self.rest[1..];
        Ok((Some(token), place))
    }

    fn skip(&mut self) {
        loop {
            let trimmed = self.rest.trim_start_matches([' ', '\t', '\r', '\n', '\u{feff}']);
            self.line += self.rest[..self.rest.len() - trimmed.len()].matches('\n').count();
            self.rest = trimmed;
            if !self.rest.starts_with('#') {
                return;
            }
            self.rest = self.rest.find('\n').map_or("", |end| &self.rest[end..]);
        }
    }

    fn quoted(&mut self, quote: char, place: &Place) -> Result<String, ImportFault> {
        let mut word = String::new();
        let mut letters = self.rest.char_indices().skip(1);
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => match letters.next() {
                    // Only quotes and backslashes lose theirs: the rest is a regular expression's.
                    Some((_, escaped)) if escaped == quote || escaped == '\\' => word.push(escaped),
                    Some((_, escaped)) => word.extend(['\\', escaped]),
                    None => break,
                },
                letter if letter == quote => {
                    self.line += self.rest[..at].matches('\n').count();
                    self.rest = &self.rest[at + 1..];
                    return Ok(word);
                }
                letter => word.push(letter),
            }
        }
        Err(ImportFault::new(place, "a quote is never closed"))
    }

    /// `${name}` is part of a word, so are escaped signs.
    fn word(&mut self) -> String {
        let mut word = String::new();
        let mut letters = self.rest.char_indices().peekable();
        let mut end = self.rest.len();
        while let Some((at, letter)) = letters.next() {
            match letter {
                ' ' | '\t' | '\r' | '\n' | ';' => {
                    end = at;
                    break;
                }
                '{' if !word.ends_with('$') => {
                    end = at;
                    break;
                }
                '{' => {
                    word.push('{');
                    for (_, letter) in letters.by_ref() {
                        word.push(letter);
                        if letter == '}' {
                            break;
                        }
                    }
                }
                '\\' => {
                    word.push('\\');
                    if let Some((_, escaped)) = letters.next() {
                        word.push(escaped);
                    }
                }
                letter => word.push(letter),
            }
        }
        self.line += self.rest[..end].matches('\n').count();
        self.rest = &self.rest[end..];
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_quotes_comments_and_blocks_are_told_apart() {
        let parsed = parse_text(
            "nginx.conf",
            "# a comment\nhttp { # another\n  server {\n    add_header X \"a; b\\\"c\" always;\n    return 301 https://$host${uri}x;\n  }\n}\n",
        )
        .unwrap();
        let server = &parsed[0].block.as_ref().unwrap()[0];
        assert_eq!((server.name.as_str(), server.place.line), ("server", 3));
        let inside = server.block.as_ref().unwrap();
        assert_eq!(inside[0].arguments, ["X", "a; b\"c", "always"]);
        assert_eq!(inside[1].arguments, ["301", "https://$host${uri}x"]);
    }

    #[test]
    fn what_is_no_configuration_is_told_with_its_line() {
        for (text, told) in [
            ("http {\n", "nginx.conf:2: a block is never closed"),
            ("}\n", "nginx.conf:1: `}` closes"),
            ("a b\n\n", "nginx.conf:1: the directive that begins here has no `;`"),
            ("\na \"b;\n", "nginx.conf:2: a quote is never closed"),
            (&"a {".repeat(100), "nginx.conf:1: blocks are nested too deeply"),
        ] {
            let fault = parse_text("nginx.conf", text).unwrap_err().to_string();
            assert!(fault.starts_with(told), "{fault}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd(text in "(\\PC|[ \n{};\"'\\\\$#]){0,200}") {
            let _ = parse_text("x", &text);
        }
    }
}
