//! What the dashboard shows, and what keys do to it. Pure: no terminal, no clock.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::interval::{EntrypointRate, Interval};

/// The history that is kept.
const MINUTE: f64 = 60.0;

/// While it is paused, so many intervals wait; those before are let go.
const WAITING: usize = 600;

#[derive(Debug)]
pub struct Dashboard {
    every: Duration,
    shown: Option<Interval>,
    /// By entrypoint, the last minute.
    history: BTreeMap<String, VecDeque<Point>>,
    /// What came while it was paused.
    waiting: VecDeque<Interval>,
    paused: bool,
    sort: Sort,
    /// `None`: all entrypoints.
    selected: Option<String>,
    help: bool,
}

/// Packets per second of one interval.
#[derive(Debug, Clone, Copy, Default)]
pub struct Point {
    pub passed: f64,
    pub dropped: f64,
    pub would_drop: f64,
    pub requests: f64,
}

/// What entrypoints are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    Dropped,
    Passed,
    Name,
}

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressed {
    Quit,
    Redraw,
    Nothing,
}

// === impl Dashboard ===

impl Dashboard {
    pub fn new(every: Duration) -> Self {
        Self {
            every,
            shown: None,
            history: BTreeMap::new(),
            waiting: VecDeque::new(),
            paused: false,
            sort: Sort::Dropped,
            selected: None,
            help: false,
        }
    }

    /// A new interval; it waits while the dashboard is paused.
    pub fn take(&mut self, interval: Interval) {
        if self.paused {
            if self.waiting.len() == WAITING {
                self.waiting.pop_front();
            }
            self.waiting.push_back(interval);
            return;
        }
        for one in &interval.entrypoints {
            self.history.entry(one.name.clone()).or_default();
        }
        for (name, points) in &mut self.history {
            let one = interval.entrypoints.iter().find(|one| one.name == *name);
            points.push_back(one.map(Point::of).unwrap_or_default());
            let kept = (MINUTE / self.every.as_secs_f64()).ceil() as usize;
            while points.len() > kept.max(1) {
                points.pop_front();
            }
        }
        // One that was gone for the whole of it.
        self.history.retain(|name, points| {
            interval.entrypoints.iter().any(|one| one.name == *name) || points.iter().any(Point::is_any)
        });
        if let Some(selected) = &self.selected
            && !interval.entrypoints.iter().any(|one| one.name == *selected)
        {
            self.selected = None;
        }
        self.shown = Some(interval);
    }

    pub fn press(&mut self, key: KeyEvent) -> Pressed {
        if key.kind == KeyEventKind::Release {
            return Pressed::Nothing;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Pressed::Quit,
            // The first one closes the help.
            KeyCode::Char('q') | KeyCode::Esc if self.help => self.help = false,
            KeyCode::Char('q') | KeyCode::Esc => return Pressed::Quit,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.help = !self.help,
            KeyCode::Char('p' | ' ') => self.pause(),
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Down | KeyCode::Char('j') | KeyCode::Tab => self.select(1),
            KeyCode::Up | KeyCode::Char('k') | KeyCode::BackTab => self.select(-1),
            KeyCode::Home | KeyCode::Char('a') => self.selected = None,
            _ => return Pressed::Nothing,
        }
        Pressed::Redraw
    }

    fn pause(&mut self) {
        self.paused = !self.paused;
        for interval in std::mem::take(&mut self.waiting) {
            self.take(interval);
        }
    }

    /// Through all entrypoints, as they are sorted, and "all" before the first.
    fn select(&mut self, step: isize) {
        let names: Vec<Option<String>> = std::iter::once(None)
            .chain(self.entrypoints().into_iter().map(|one| Some(one.name.clone())))
            .collect();
        let at = names.iter().position(|name| *name == self.selected).unwrap_or_default();
        let next = (at as isize + step).rem_euclid(names.len() as isize);
        self.selected = names.into_iter().nth(next.unsigned_abs()).flatten();
    }

    /// `None`: the first interval isn't over.
    pub const fn shown(&self) -> Option<&Interval> {
        self.shown.as_ref()
    }

    pub const fn every(&self) -> Duration {
        self.every
    }

    pub const fn paused(&self) -> bool {
        self.paused
    }

    pub const fn sort(&self) -> Sort {
        self.sort
    }

    pub const fn help(&self) -> bool {
        self.help
    }

    pub fn selected(&self) -> Option<&str> {
        self.selected.as_deref()
    }

    /// Whether an entrypoint is the selected one, or all are.
    pub fn wants(&self, entrypoint: &str) -> bool {
        self.selected.as_ref().is_none_or(|selected| selected == entrypoint)
    }

    /// As they are sorted.
    pub fn entrypoints(&self) -> Vec<&EntrypointRate> {
        let mut entrypoints: Vec<_> = self.shown.iter().flat_map(|shown| &shown.entrypoints).collect();
        let loudness = |one: &EntrypointRate| match self.sort {
            // A rehearsal is what somebody looks at, too.
            Sort::Dropped => one.dropped.packets_per_second + one.would_drop.packets_per_second,
            Sort::Passed => one.passed.packets_per_second,
            Sort::Name => 0.0,
        };
        entrypoints.sort_by(|one, other| {
            loudness(other).total_cmp(&loudness(one)).then_with(|| one.name.cmp(&other.name))
        });
        entrypoints
    }

    /// The last minute of an entrypoint.
    pub fn history(&self, entrypoint: &str, of: impl Fn(&Point) -> f64) -> Vec<f64> {
        self.history.get(entrypoint).into_iter().flatten().map(of).collect()
    }

    /// The last minute of the selected entrypoint, or of all together.
    pub fn history_of_selected(&self, of: impl Fn(&Point) -> f64) -> Vec<f64> {
        let wanted: Vec<_> =
            self.history.iter().filter(|(name, _)| self.wants(name)).map(|(_, points)| points).collect();
        let longest = wanted.iter().map(|points| points.len()).max().unwrap_or_default();
        // All of them end now.
        let at = |place: usize| {
            let points =
                wanted.iter().filter_map(|points| points.get((place + points.len()).checked_sub(longest)?));
            points.map(&of).sum()
        };
        (0..longest).map(at).collect()
    }
}

// === impl Point ===

impl Point {
    fn of(one: &EntrypointRate) -> Self {
        Self {
            passed: one.passed.packets_per_second,
            dropped: one.dropped.packets_per_second,
            would_drop: one.would_drop.packets_per_second,
            requests: one.requests_per_second.unwrap_or_default(),
        }
    }

    fn is_any(&self) -> bool {
        self.passed + self.dropped + self.would_drop + self.requests > 0.0
    }
}

// === impl Sort ===

impl Sort {
    const fn next(self) -> Self {
        match self {
            Self::Dropped => Self::Passed,
            Self::Passed => Self::Name,
            Self::Name => Self::Dropped,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Passed => "passed",
            Self::Name => "name",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::example, *};

    fn key(code: KeyCode) -> KeyEvent {
        KeyEvent::new(code, KeyModifiers::NONE)
    }

    fn names(dashboard: &Dashboard) -> Vec<&str> {
        dashboard.entrypoints().into_iter().map(|one| &*one.name).collect()
    }

    #[test]
    fn q_escape_and_control_c_quit_but_help_is_closed_first() {
        let mut dashboard = Dashboard::new(Duration::from_secs(1));
        for code in [KeyCode::Char('q'), KeyCode::Esc] {
            assert_eq!(dashboard.press(key(code)), Pressed::Quit);
            dashboard.press(key(KeyCode::Char('?')));
            assert!(dashboard.help());
            assert_eq!(dashboard.press(key(code)), Pressed::Redraw);
            assert!(!dashboard.help());
        }
        dashboard.press(key(KeyCode::Char('?')));
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(dashboard.press(interrupt), Pressed::Quit);
        assert_eq!(dashboard.press(key(KeyCode::Char('c'))), Pressed::Nothing);
    }

    #[test]
    fn sorting_goes_round_and_what_would_be_dropped_is_loud_as_well() {
        let mut dashboard = Dashboard::new(Duration::from_secs(1));
        dashboard.take(example::interval());
        assert_eq!(names(&dashboard), ["https", "trial", "open"]);
        dashboard.press(key(KeyCode::Char('s')));
        assert_eq!(names(&dashboard), ["trial", "https", "open"]);
        dashboard.press(key(KeyCode::Char('s')));
        assert_eq!(names(&dashboard), ["https", "open", "trial"]);
        dashboard.press(key(KeyCode::Char('s')));
        assert_eq!(dashboard.sort(), Sort::Dropped);
    }

    #[test]
    fn a_selection_goes_round_through_all_and_ends_with_its_entrypoint() {
        let mut dashboard = Dashboard::new(Duration::from_secs(1));
        dashboard.take(example::interval());
        let mut seen = Vec::new();
        for _ in 0..4 {
            dashboard.press(key(KeyCode::Down));
            seen.push(dashboard.selected().map(str::to_owned));
        }
        let wanted = [Some("https"), Some("trial"), Some("open"), None].map(|name| name.map(str::to_owned));
        assert_eq!(seen, wanted);
        dashboard.press(key(KeyCode::Up));
        assert_eq!(dashboard.selected(), Some("open"));
        assert!(dashboard.wants("open") && !dashboard.wants("https"));
        let mut without = example::interval();
        without.entrypoints.retain(|one| one.name != "open");
        dashboard.take(without);
        assert_eq!(dashboard.selected(), None);
    }

    #[test]
    fn a_pause_stops_the_picture_and_loses_nothing() {
        let mut dashboard = Dashboard::new(Duration::from_secs(1));
        dashboard.take(example::interval());
        dashboard.press(key(KeyCode::Char('p')));
        let mut later = example::interval();
        later.seconds = 2.0;
        dashboard.take(later.clone());
        dashboard.take(later);
        assert!(dashboard.paused() && dashboard.shown().is_some_and(|shown| shown.seconds < 2.0));
        dashboard.press(key(KeyCode::Char('p')));
        assert!(dashboard.shown().is_some_and(|shown| shown.seconds >= 2.0));
        assert_eq!(dashboard.history("https", |point| point.dropped).len(), 3);
    }

    #[test]
    fn a_minute_is_kept_and_forgotten() {
        let mut dashboard = Dashboard::new(Duration::from_secs(2));
        for _ in 0..100 {
            dashboard.take(example::interval());
        }
        assert_eq!(dashboard.history("https", |point| point.dropped).len(), 30);
        let sum: f64 =
            dashboard.history_of_selected(|point| point.passed).last().copied().unwrap_or_default();
        let exact: f64 =
            example::interval().entrypoints.iter().map(|one| one.passed.packets_per_second).sum();
        assert!((sum - exact).abs() < 1e-6);
        let mut without = example::interval();
        without.entrypoints.retain(|one| one.name != "https");
        for _ in 0..30 {
            dashboard.take(without.clone());
        }
        assert!(dashboard.history("https", |point| point.dropped).is_empty());
    }
}
