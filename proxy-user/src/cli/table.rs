//! Tables for people: columns side by side where the terminal is wide enough for them, else each row as a few short lines.
//! Whether colours are shown is decided by whoever prints (NO_COLOR, CLICOLOR_FORCE and the terminal).

use std::{fmt::Write as _, io::IsTerminal as _};

use clap::builder::styling::{AnsiColor, Style};
use ratatui::crossterm::terminal;

/// What stands between two columns, and between two things on a line.
const GAP: &str = "  ";

/// Of a row that doesn't fit, the lines below the first.
const INDENT: usize = 4;

/// What a cell says about how things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Good,
    /// Worth a look.
    Odd,
    Bad,
}

#[derive(Debug, Clone)]
pub struct Cell {
    /// May have several lines.
    text: String,
    tone: Tone,
}

#[derive(Debug)]
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub fn new<const N: usize>(header: [&'static str; N]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    pub fn add<const N: usize>(&mut self, row: [Cell; N]) {
        self.rows.push(row.into());
    }

    /// For a terminal of `width` columns; `None`: as wide as it comes.
    pub fn text(&self, width: Option<usize>) -> String {
        let widths = self.widths();
        let whole: usize = widths.iter().map(|width| width + GAP.len()).sum();
        match width {
            Some(width) if whole > width + 1 => self.narrow(width),
            _ => self.wide(&widths),
        }
    }

    fn widths(&self) -> Vec<usize> {
        let widest = |column: usize, name: &str| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let lines = cells.flat_map(|cell| cell.text.lines()).chain([name]);
            lines.map(|line| line.chars().count()).max().unwrap_or(0)
        };
        self.header.iter().enumerate().map(|(column, name)| widest(column, name)).collect()
    }

    fn wide(&self, widths: &[usize]) -> String {
        let header: Vec<Cell> = self.header.iter().map(|name| Cell::from(*name)).collect();
        let mut text = String::new();
        for row in std::iter::once(&header).chain(&self.rows) {
            let height = row.iter().map(|cell| cell.text.lines().count()).max().unwrap_or(1).max(1);
            for nth in 0..height {
                let mut line = String::new();
                // Trailing blanks are cut, and styles would hide them.
                let last = row
                    .iter()
                    .rposition(|cell| cell.text.lines().nth(nth).is_some_and(|part| !part.is_empty()));
                for (column, cell) in row.iter().enumerate().take(last.map_or(0, |last| last + 1)) {
                    let part = cell.text.lines().nth(nth).unwrap_or_default();
                    let pad = if Some(column) == last { 0 } else { widths[column] - part.chars().count() };
                    let before = if column == 0 { " " } else { GAP };
                    let _ = write!(line, "{before}{}{:pad$}", cell.tone.paint(part), "");
                }
                let _ = writeln!(text, "{line}");
            }
        }
        text
    }

    /// The first cell, and below it what the others say, each with the name of its column.
    fn narrow(&self, width: usize) -> String {
        let mut text = String::new();
        for row in &self.rows {
            let Some((first, rest)) = row.split_first() else { continue };
            let _ = writeln!(text, " {}", Style::new().bold().render_with(&first.text));
            let mut line = Line::new(width);
            for (name, cell) in self.header.iter().skip(1).zip(rest) {
                let value = cell.text.replace('\n', ", ");
                if value.is_empty() || value == "-" {
                    continue;
                }
                line.add(name, &value, cell.tone);
            }
            text.push_str(&line.done());
        }
        text
    }
}

/// Lines that are filled up one after the other.
struct Line {
    width: usize,
    text: String,
    used: usize,
}

impl Line {
    fn new(width: usize) -> Self {
        Self { width, text: String::new(), used: 0 }
    }

    /// A name with its value; stays together if it fits on one line.
    fn add(&mut self, name: &str, value: &str, tone: Tone) {
        let length = name.chars().count() + 1 + value.chars().count();
        let prefix = if name.is_empty() { String::new() } else { format!("{name} ") };
        if self.used > 0 && self.used + GAP.len() + length <= self.width {
            let _ = write!(self.text, "{GAP}{prefix}{}", tone.paint(value));
            self.used += GAP.len() + length;
            return;
        }
        self.next();
        let _ = write!(self.text, "{prefix}");
        self.used += prefix.chars().count();
        for (nth, word) in value.split(' ').enumerate() {
            let length = word.chars().count();
            if nth > 0 && self.used + 1 + length > self.width {
                self.next();
            } else if nth > 0 {
                self.text.push(' ');
                self.used += 1;
            }
            let _ = write!(self.text, "{}", tone.paint(word));
            self.used += length;
        }
    }

    fn next(&mut self) {
        if self.used > 0 {
            self.text.push('\n');
        }
        let _ = write!(self.text, "{:INDENT$}", "");
        self.used = INDENT;
    }

    fn done(mut self) -> String {
        if self.used > 0 {
            self.text.push('\n');
        }
        self.text
    }
}

/// As wide as the terminal is, if that is where standard output goes.
pub fn width() -> Option<usize> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    let (columns, _) = terminal::size().ok()?;
    Some(usize::from(columns)).filter(|columns| *columns >= 20)
}

/// Sentences, broken between words where the terminal ends; what is broken goes on a little further in.
pub fn fitted(text: &str, width: Option<usize>) -> String {
    let Some(width) = width else { return text.to_owned() };
    let mut out = String::new();
    for line in text.lines() {
        if line.chars().count() <= width {
            let _ = writeln!(out, "{line}");
            continue;
        }
        let words = line.trim_start();
        let indent = line.len() - words.len();
        let _ = write!(out, "{:indent$}", "");
        let mut used = indent;
        for (nth, word) in words.split(' ').enumerate() {
            let length = word.chars().count();
            if nth > 0 && used + 1 + length > width {
                let _ = write!(out, "\n{:1$}", "", indent + 2);
                used = indent + 2;
            } else if nth > 0 {
                out.push(' ');
                used += 1;
            }
            out.push_str(word);
            used += length;
        }
        out.push('\n');
    }
    out
}

// === impl Cell ===

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), tone: Tone::Plain }
    }
}

impl Cell {
    pub fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }
}

// === impl Tone ===

impl Tone {
    fn paint(self, text: &str) -> String {
        let style = match self {
            Self::Plain => return text.to_owned(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Odd => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
        };
        style.render_with(text)
    }
}

trait RenderWith {
    fn render_with(self, text: &str) -> String;
}

impl RenderWith for Style {
    fn render_with(self, text: &str) -> String {
        format!("{self}{text}{self:#}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    fn table() -> Table {
        let mut table = Table::new(["service", "server", "status", "why"]);
        table.add(["app".into(), "10.0.0.1:80".into(), Cell::toned("up", Tone::Good), "answered".into()]);
        let why = "the connection was refused by the server";
        table.add(["app".into(), "10.0.0.2:80\n[::1]:80".into(), Cell::toned("down", Tone::Bad), why.into()]);
        table
    }

    #[test]
    fn what_fits_stands_in_columns() {
        let expected = " service  server       status  why\n \
                        app      10.0.0.1:80  up      answered\n \
                        app      10.0.0.2:80  down    the connection was refused by the server\n\
                        \x20         [::1]:80\n";
        assert_eq!(plain(&table().text(None)), expected);
        assert_eq!(plain(&table().text(Some(120))), expected);
    }

    #[test]
    fn what_does_not_fit_stands_below_each_other_within_the_width() {
        let text = plain(&table().text(Some(40)));
        assert_eq!(
            text,
            " app\n    server 10.0.0.1:80  status up\n    why answered\n \
             app\n    server 10.0.0.2:80, [::1]:80\n    status down\n    why the connection was refused by\n    the server\n"
        );
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
    }

    #[test]
    fn only_what_is_good_or_bad_has_a_colour() {
        let text = table().text(None);
        assert!(text.contains("\x1b[32mup\x1b[0m") && text.contains("\x1b[31mdown\x1b[0m"), "{text:?}");
        assert!(!text.contains("\x1b[32manswered"));
    }

    #[test]
    fn sentences_are_broken_between_words() {
        let text = "gate: in the kernel at eth0\n  and a longer line that has to be broken somewhere\n";
        assert_eq!(fitted(text, None), text);
        assert_eq!(
            fitted(text, Some(28)),
            "gate: in the kernel at eth0\n  and a longer line that has\n    to be broken somewhere\n"
        );
    }
}
