//! The stage: headlines, what is done, what is seen, and a strip of the traffic. Eighty columns, quiet colours,
//! none of them where output is not a terminal or `NO_COLOR` is set.

use std::{
    io::{IsTerminal, Write},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::lab::load::{Outcome, Record};

const WIDTH: usize = 80;
/// From here on a wait is marked: a visitor begins to notice.
const NOTICEABLE: Duration = Duration::from_millis(100);

const RESET: &str = "\x1b[0m";
const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const BLUE: &str = "\x1b[34m";
const CYAN: &str = "\x1b[36m";

/// Where the story is told, and how many of its facts did not come true.
#[derive(Debug)]
pub struct Stage {
    scene: usize,
    broken: usize,
    /// For somebody who reads along: pauses between scenes.
    slowly: bool,
    /// Whether the strip has been explained.
    explained: bool,
}

impl Stage {
    pub fn new(slowly: bool) -> Self {
        Self { scene: 0, broken: 0, slowly: slowly && std::io::stdout().is_terminal(), explained: false }
    }

    /// Whether everything that was checked came true.
    pub fn is_whole(&self) -> bool {
        self.broken == 0
    }

    pub fn title(&self, text: &str, below: &str) {
        anstream::println!("\n  {BOLD}{text}{RESET}\n  {DIM}{below}{RESET}\n");
    }

    /// The next scene.
    pub fn scene(&mut self, headline: &str) {
        if self.slowly && self.scene > 0 {
            std::thread::sleep(Duration::from_millis(1500));
        }
        self.scene += 1;
        let number = self.scene;
        let used = 3 + number.to_string().len() + 2 + headline.chars().count() + 1;
        let rule = "─".repeat(WIDTH.saturating_sub(used + 1));
        anstream::println!("\n{BLUE}── {RESET}{BOLD}{number}  {headline}{RESET} {BLUE}{rule}{RESET}\n");
    }

    /// Something that is done to the lab.
    pub fn act(&self, text: &str) {
        anstream::println!("   {CYAN}▸{RESET} {text}");
    }

    /// Something that was seen, word for word.
    pub fn quote(&self, text: &str) {
        for line in text.lines() {
            let characters: Vec<char> = line.chars().collect();
            for piece in characters.chunks(WIDTH - 7) {
                anstream::println!("     {DIM}│{RESET} {}", piece.iter().collect::<String>());
            }
            if characters.is_empty() {
                anstream::println!("     {DIM}│{RESET}");
            }
        }
    }

    pub fn note(&self, text: &str) {
        anstream::println!("     {DIM}{text}{RESET}");
    }

    pub fn plain(&self, text: &str) {
        anstream::println!("{text}");
    }

    /// A fact that must be true.
    pub fn fact(&mut self, holds: bool, text: &str) {
        if holds {
            anstream::println!("   {GREEN}✓{RESET} {text}");
        } else {
            self.broken += 1;
            anstream::println!("   {RED}✗ {text}{RESET}");
        }
    }

    /// The story breaks off.
    pub fn broke(&mut self, why: &anyhow::Error) {
        self.broken += 1;
        anstream::println!("   {RED}✗ {why:#}{RESET}");
    }

    /// One character for each request, around a moment.
    pub fn strip(&mut self, records: &[Record], moment: Instant, what: &str) {
        const BEFORE: usize = 12;
        let mut records: Vec<_> = records.iter().collect();
        records.sort_by_key(|record| record.begun);
        let turn = records.partition_point(|record| record.begun < moment);
        let from = turn.saturating_sub(BEFORE);
        let shown = &records[from..records.len().min(from + WIDTH - 8)];
        let cells: String = shown.iter().map(|record| cell(record)).collect();
        let caret = " ".repeat(turn - from);
        anstream::println!("     {cells}");
        anstream::println!("     {caret}{BOLD}▲{RESET} {DIM}{what}{RESET}");
        if !std::mem::replace(&mut self.explained, true) {
            self.note("each character is a request: 1 and 2 the server that answered, M the page,");
            self.note(&format!("✗ a failure; {YELLOW}yellow{RESET}{DIM}: it took {NOTICEABLE:?} or longer"));
        }
    }

    /// Shows that something goes on while `work` does.
    pub fn meanwhile<T>(&self, what: &str, work: impl FnOnce() -> T) -> T {
        if !std::io::stdout().is_terminal() {
            return work();
        }
        let busy = AtomicBool::new(true);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let begun = Instant::now();
                for frame in "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏".chars().cycle() {
                    if !busy.load(Ordering::Acquire) {
                        break;
                    }
                    let seconds = begun.elapsed().as_secs_f32();
                    anstream::print!("\r   {CYAN}{frame}{RESET} {DIM}{what} {seconds:.1} s{RESET}");
                    let _ = std::io::stdout().flush();
                    std::thread::park_timeout(Duration::from_millis(80));
                }
                anstream::print!("\r\x1b[2K");
                let _ = std::io::stdout().flush();
            });
            let done = work();
            busy.store(false, Ordering::Release);
            done
        })
    }
}

fn cell(record: &Record) -> String {
    let waited = record.took >= NOTICEABLE;
    let (sign, colour) = match &record.outcome {
        Outcome::Served(by) if by == "one" => ("1", GREEN),
        Outcome::Served(_) => ("2", CYAN),
        Outcome::Maintenance => ("M", BLUE),
        Outcome::Status(_) | Outcome::Broken(_) => ("✗", RED),
    };
    let colour = if waited && !record.is_failed() { YELLOW } else { colour };
    format!("{colour}{sign}{RESET}")
}
