//! Draws the dashboard. Whatever the size of the terminal: sections that don't fit are cut, and say by how much.

mod sections;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph, Sparkline},
};

use super::{
    dashboard::{Dashboard, Point},
    figures::{amount, fit},
};

/// From here on there is room for two columns.
const WIDE: u16 = 110;
/// From here on there is room for graphs.
const TALL: u16 = 30;
/// With a line of title.
const GRAPH: u16 = 5;

/// A section is worth its place if it can show so much: its title, a row, and how many more there are.
const LEAST: usize = 3;

/// How things stand out: by colours, or where nobody wants those, by weight.
#[derive(Debug, Clone, Copy)]
pub struct Palette {
    colour: bool,
}

/// A title and its rows.
struct Section {
    title: Line<'static>,
    rows: Vec<Line<'static>>,
    /// The rows that go first where there is no room for all.
    details: Vec<usize>,
}

// === impl Palette ===

impl Palette {
    /// As NO_COLOR has it.
    pub fn of_environment() -> Self {
        Self { colour: std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty()) }
    }

    #[cfg(test)]
    pub const fn plain() -> Self {
        Self { colour: false }
    }

    fn with(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn title(self) -> Style {
        self.with(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    fn good(self) -> Style {
        self.with(Color::Green)
    }

    fn bad(self) -> Style {
        self.with(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn notable(self) -> Style {
        self.with(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    const fn dim() -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }
}

pub fn draw(frame: &mut Frame<'_>, dashboard: &Dashboard, palette: Palette) {
    let area = frame.area();
    let header = sections::header(dashboard, area.width.into(), palette);
    let graphs = if area.height >= TALL && dashboard.shown().is_some() { GRAPH } else { 0 };
    let heights = [
        Constraint::Length(header.len() as u16),
        Constraint::Length(graphs),
        Constraint::Fill(1),
        Constraint::Length(1),
    ];
    let [top, graph, body, bottom] = Layout::vertical(heights).areas(area);
    frame.render_widget(Paragraph::new(header), top);
    if graphs > 0 {
        draw_graphs(frame, graph, dashboard, palette);
    }
    draw_body(frame, body, dashboard, palette);
    frame.render_widget(Paragraph::new(sections::footer(dashboard, area.width.into())), bottom);
    if dashboard.help() {
        draw_help(frame, area, palette);
    }
}

fn draw_body(frame: &mut Frame<'_>, area: Rect, dashboard: &Dashboard, palette: Palette) {
    let Some(shown) = dashboard.shown() else {
        let waiting = format!("  The first interval ends in {:.1} s.", dashboard.every().as_secs_f64());
        frame.render_widget(Paragraph::new(waiting).style(Palette::dim()), area);
        return;
    };
    if area.width < WIDE {
        let width = area.width.into();
        let mut all = vec![
            sections::entrypoints(dashboard, width, palette),
            sections::sources(dashboard, shown, width, palette),
        ];
        all.extend(sections::would_drop(dashboard, width, palette));
        all.push(sections::services(shown, width, palette));
        stack(frame, area, all);
        return;
    }
    let entrypoints = sections::entrypoints(dashboard, area.width.into(), palette);
    let upper = (entrypoints.rows.len() as u16 + 2).min(area.height / 2);
    let [above, below] = Layout::vertical([Constraint::Length(upper), Constraint::Fill(1)]).areas(area);
    stack(frame, above, vec![entrypoints]);
    let [left, right] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(2).areas(below);
    let mut sources = vec![sections::sources(dashboard, shown, left.width.into(), palette)];
    sources.extend(sections::would_drop(dashboard, left.width.into(), palette));
    stack(frame, left, sources);
    stack(frame, right, vec![sections::services(shown, right.width.into(), palette)]);
}

/// One under the other. Each gets what it wants, or its share; what one leaves goes to the others.
fn stack(frame: &mut Frame<'_>, area: Rect, sections: Vec<Section>) {
    let wants: Vec<usize> = sections.iter().map(|section| section.rows.len() + 1).collect();
    let heights = shares(&wants, area.height.into());
    let areas = Layout::vertical(heights.iter().map(|height| Constraint::Length(*height as u16))).split(area);
    for ((section, height), area) in sections.into_iter().zip(heights).zip(areas.iter()) {
        frame.render_widget(Paragraph::new(section.cut(height)), *area);
    }
}

/// How many lines each gets, with an empty one between two where there is room.
fn shares(wants: &[usize], room: usize) -> Vec<usize> {
    let mut shares: Vec<usize> = Vec::new();
    let mut left = room;
    // First what makes it worth its place, in their order …
    for want in wants {
        let share = (*want).min(LEAST).min(left);
        shares.push(share);
        left -= share;
    }
    // … then one line after the other in turn.
    while left > 0 && shares.iter().zip(wants).any(|(share, want)| share < want) {
        for (share, want) in shares.iter_mut().zip(wants) {
            if *share < *want && left > 0 {
                *share += 1;
                left -= 1;
            }
        }
    }
    let between = wants.len().saturating_sub(1);
    for share in shares.iter_mut().take(between.min(left)) {
        *share += 1;
    }
    shares
}

fn draw_graphs(frame: &mut Frame<'_>, area: Rect, dashboard: &Dashboard, palette: Palette) {
    let areas: [Rect; 2] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(2).areas(area);
    let whose = dashboard.selected().unwrap_or("all entrypoints");
    let dropped = |point: &Point| point.dropped + point.would_drop;
    let graphs: [(&str, Vec<f64>, Style); 2] = [
        ("passed", dashboard.history_of_selected(|point| point.passed), palette.good()),
        ("dropped", dashboard.history_of_selected(dropped), palette.bad()),
    ];
    for ((what, values, style), area) in graphs.into_iter().zip(areas) {
        let values = &values[values.len().saturating_sub(area.width.into())..];
        let highest = values.iter().copied().fold(0.0, f64::max);
        let seconds = values.len() as f64 * dashboard.every().as_secs_f64();
        let title = format!("{what}/s, {whose}, last {seconds:.0}s, at most {}", amount(highest));
        let title = Line::styled(fit(&title, area.width.into()), palette.title());
        let [above, below] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
        frame.render_widget(Paragraph::new(title), above);
        // Bars are of whole units, and a rate may be less than one.
        let bars: Vec<u64> = values.iter().map(|value| (value * 10.0).round() as u64).collect();
        frame.render_widget(Sparkline::default().data(&bars).style(style), below);
    }
}

fn draw_help(frame: &mut Frame<'_>, area: Rect, palette: Palette) {
    const LINES: [&str; 16] = [
        "q Esc Ctrl-C   quit",
        "p Space        pause: what comes meanwhile is kept",
        "s              sort entrypoints by dropped, passed, name",
        "↑ ↓ j k Tab    an entrypoint: graphs, sources of it",
        "a Home         all entrypoints",
        "? h F1         this page",
        "",
        "Rates are packets per second of the last interval,",
        "from the gate's own counters, which are exact.",
        "\"dropped from\" is estimated from a sample: the gate",
        "tells of 1,000 drops a second and CPU at most. \"would",
        "be dropped from\" is exact: shadowed entrypoints count",
        "by source prefix (IPv4 /24, IPv6 /48).",
        "",
        "What the gate does is read from the kernel, also where",
        "the daemon is dead; requests and servers only it knows.",
    ];
    let width = LINES.iter().map(|line| line.chars().count()).max().unwrap_or_default() as u16 + 4;
    let box_ = area.centered(
        Constraint::Length(width.min(area.width)),
        Constraint::Length((LINES.len() as u16 + 2).min(area.height)),
    );
    let lines: Vec<Line<'_>> = LINES.iter().map(|line| Line::from(format!(" {line}"))).collect();
    let block = Block::bordered().title(" weir top ").border_style(palette.title());
    frame.render_widget(Clear, box_);
    frame.render_widget(Paragraph::new(lines).block(block), box_);
}

// === impl Section ===

impl Section {
    /// In so many lines. Where not all rows fit, the last one says how many are left out.
    fn cut(mut self, height: usize) -> Vec<Line<'static>> {
        let room = height.saturating_sub(1);
        for detail in self.details.iter().rev() {
            if self.rows.len() > room {
                self.rows.remove(*detail);
            }
        }
        if self.rows.len() > room {
            let more = self.rows.len() - room.saturating_sub(1);
            self.rows.truncate(room.saturating_sub(1));
            if room > 0 {
                self.rows.push(Line::styled(format!("  … {more} more"), Palette::dim()));
            }
        }
        let mut lines = if height > 0 { vec![self.title] } else { Vec::new() };
        lines.extend(self.rows);
        lines
    }
}

/// A title, and what its columns are, to the end of the line.
fn titled(text: &str, width: usize, palette: Palette) -> Line<'static> {
    let text = fit(text, width);
    let rule = width.saturating_sub(text.chars().count() + 1);
    Line::from(vec![
        Span::styled(text, palette.title()),
        Span::styled(format!(" {}", "─".repeat(rule)), Palette::dim()),
    ])
}

#[cfg(test)]
mod tests;
