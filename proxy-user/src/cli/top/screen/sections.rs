//! What each part of the screen says, line by line, for a width.

use ratatui::{
    style::{Modifier, Style},
    text::{Line, Span},
};

use super::{
    super::{
        dashboard::{Dashboard, Point},
        figures::{amount, fit, sparkline},
        interval::{EntrypointRate, Gate, Interval, ServerRate, ServiceRate},
        text,
    },
    Palette, Section, titled,
};

/// So many seconds of history there are.
const MINUTE: f64 = 60.0;

/// A column of figures, with the space before it.
const FIGURE: usize = 8;

pub fn header(dashboard: &Dashboard, width: usize, palette: Palette) -> Vec<Line<'static>> {
    let every = dashboard.every().as_secs_f64();
    let mut title = vec![Span::styled("weir top", palette.title()), Span::raw(format!("  every {every} s"))];
    let Some(shown) = dashboard.shown() else { return vec![Line::from(title), Line::default()] };
    title.push(match (&shown.daemon_trouble, shown.draining) {
        (Some(_), _) => Span::raw(""),
        (None, true) => Span::styled("  daemon DRAINING", palette.notable()),
        (None, false) => Span::styled("  daemon answers", palette.good()),
    });
    if dashboard.paused() {
        title.push(Span::styled("  PAUSED", palette.notable()));
    }
    let is_on = matches!(&shown.gate, Gate::On { interfaces, .. } if !interfaces.is_empty()
        && interfaces.iter().all(|interface| !interface.gone));
    let gate = Line::styled(
        fit(&text::gate(&shown.gate), width),
        if is_on { Style::new() } else { palette.notable() },
    );
    let mut lines = vec![Line::from(title), gate];
    if shown.daemon_trouble.is_some() {
        lines.push(Line::styled(fit(&text::daemon(shown), width), palette.bad()));
    }
    let is_stale = shown.lists.iter().any(|list| list.last_error.is_some());
    let style = if is_stale { palette.notable() } else { Style::new() };
    lines.push(Line::styled(fit(&text::lists(&shown.lists), width), style));
    if let Some(fleet) = &shown.fleet {
        let style = if fleet.is_odd { palette.notable() } else { Style::new() };
        lines.push(Line::styled(fit(&fleet.line, width), style));
    }
    lines.push(Line::default());
    lines
}

pub fn footer(dashboard: &Dashboard, width: usize) -> Line<'static> {
    let whose = dashboard.selected().unwrap_or("all");
    let sort = dashboard.sort().name();
    let pause = if dashboard.paused() { "go on" } else { "pause" };
    let text = format!("q quit  ? help  p {pause}  s sort: {sort}  ↑↓ entrypoint: {whose}");
    Line::styled(fit(&text, width), Palette::dim())
}

pub fn entrypoints(dashboard: &Dashboard, width: usize, palette: Palette) -> Section {
    let name_width = match width {
        0..70 => 16,
        70..110 => 20,
        _ => 26,
    };
    let every = dashboard.every().as_secs_f64();
    let graph_width = width.saturating_sub(name_width + 4 * FIGURE + 2).min(60);
    let seconds = (graph_width as f64 * every).min(MINUTE);
    let graph = if graph_width >= 16 { format!("  drops, {seconds:.0} s") } else { String::new() };
    let title = format!(
        "{:<name_width$}{:>FIGURE$}{:>FIGURE$}{:>FIGURE$}{:>FIGURE$}{graph}",
        "entrypoint", "pass/s", "drop/s", "would/s", "req/s"
    );
    let (mut rows, mut details) = (Vec::new(), Vec::new());
    for one in dashboard.entrypoints() {
        let mut spans = entrypoint(dashboard, one, name_width, palette);
        let of = |point: &Point| if one.shadow { point.would_drop } else { point.dropped };
        let history = dashboard.history(&one.name, of);
        let style = if one.shadow { palette.notable() } else { palette.bad() };
        spans.push(Span::styled(format!("  {}", sparkline(&history, graph_width)), style));
        rows.push(Line::from(spans));
        for (reason, rate) in &one.dropped_by_reason {
            let (reason, rate) = (fit(reason, name_width + FIGURE - 4), amount(rate.packets_per_second));
            details.push(rows.len());
            rows.push(Line::raw(format!("    {reason:<0$}{rate:>FIGURE$}", name_width + FIGURE - 4)));
        }
        for (reason, rate) in &one.would_drop_by_reason {
            let (reason, rate) = (fit(reason, name_width + 2 * FIGURE - 4), amount(rate.packets_per_second));
            details.push(rows.len());
            rows.push(Line::raw(format!("    {reason:<0$}{rate:>FIGURE$}", name_width + 2 * FIGURE - 4)));
        }
    }
    if rows.is_empty() {
        rows.push(Line::styled("  none is known", Palette::dim()));
    }
    Section { title: titled(&title, width, palette), rows, details }
}

fn entrypoint(
    dashboard: &Dashboard,
    one: &EntrypointRate,
    width: usize,
    palette: Palette,
) -> Vec<Span<'static>> {
    let is_selected = dashboard.selected() == Some(&*one.name);
    let marker = if is_selected { "▸ " } else { "  " };
    let mark = if one.shadow { " SHADOW" } else { "" };
    let name = format!("{marker}{}{mark}", fit(&one.name, width.saturating_sub(3 + mark.len())));
    let mut style = if one.shadow { palette.notable() } else { Style::new().add_modifier(Modifier::BOLD) };
    if is_selected {
        style = style.add_modifier(Modifier::REVERSED);
    }
    let figure = |packets: Option<f64>, style: Style| {
        let text = packets.map_or_else(|| "-".to_owned(), amount);
        let style = if packets.is_none_or(|packets| packets < 0.05) { Palette::dim() } else { style };
        Span::styled(format!("{text:>FIGURE$}"), style)
    };
    let is_judged = one.guarded || one.dropped.packets_per_second > 0.0;
    let judged = |packets: f64| is_judged.then_some(packets);
    vec![
        Span::styled(format!("{:<width$}", fit(&name, width - 1)), style),
        figure(judged(one.passed.packets_per_second), palette.good()),
        figure(judged(one.dropped.packets_per_second), palette.bad()),
        figure(one.shadow.then_some(one.would_drop.packets_per_second), palette.notable()),
        figure(one.requests_per_second, Style::new()),
    ]
}

pub fn sources(dashboard: &Dashboard, shown: &Interval, width: usize, palette: Palette) -> Section {
    let prefix_width = 22;
    let title = format!(
        "{:<prefix_width$}{:>FIGURE$}{:>7}  entrypoint, reason",
        "dropped from (sampled)", "drop/s", "share"
    );
    let all = shown.sources_sampled.iter().filter(|source| dashboard.wants(&source.entrypoint));
    let mut rows: Vec<Line<'static>> = all
        .map(|source| {
            let prefix = source.prefix.as_deref().unwrap_or("can't be read");
            let (packets, share) = (amount(source.packets_per_second), source.share * 100.0);
            let figures = format!("{packets:>FIGURE$}{share:>6.0}%");
            let left = width.saturating_sub(prefix_width + FIGURE + 7 + 2);
            let whose = fit(&format!("{}, {}", source.entrypoint, source.reason), left);
            Line::from(vec![
                Span::raw(format!("  {:<1$}", fit(prefix, prefix_width - 2), prefix_width - 2)),
                Span::styled(figures, palette.bad()),
                Span::styled(format!("  {whose}"), Palette::dim()),
            ])
        })
        .collect();
    if rows.is_empty() {
        let why = match &shown.sampling_trouble {
            Some(why) => format!("  not known: {why}"),
            None => "  nothing is dropped".to_owned(),
        };
        rows.push(Line::styled(fit(&why, width), Palette::dim()));
    }
    Section { title: titled(&title, width, palette), rows, details: Vec::new() }
}

/// Of shadowed entrypoints; `None` where there is none.
pub fn would_drop(dashboard: &Dashboard, width: usize, palette: Palette) -> Option<Section> {
    let shadowed: Vec<_> =
        dashboard.entrypoints().into_iter().filter(|one| one.shadow && dashboard.wants(&one.name)).collect();
    if shadowed.is_empty() {
        return None;
    }
    let prefix_width = 22;
    let title =
        format!("{:<prefix_width$}{:>FIGURE$}{:>7}  entrypoint", "would be dropped from", "would/s", "");
    let mut from: Vec<_> = shadowed
        .iter()
        .flat_map(|one| one.would_drop_from.iter().map(|source| (&one.name, source)))
        .collect();
    from.sort_by(|one, other| other.1.rate.packets_per_second.total_cmp(&one.1.rate.packets_per_second));
    let mut rows: Vec<Line<'static>> = from
        .into_iter()
        .map(|(entrypoint, source)| {
            let left = width.saturating_sub(prefix_width + FIGURE + 7 + 2);
            Line::from(vec![
                Span::raw(format!("  {:<1$}", fit(&source.prefix, prefix_width - 2), prefix_width - 2)),
                Span::styled(
                    format!("{:>FIGURE$}", amount(source.rate.packets_per_second)),
                    palette.notable(),
                ),
                Span::styled(format!("{:>7}  {}", "", fit(entrypoint, left)), Palette::dim()),
            ])
        })
        .collect();
    if rows.is_empty() {
        rows.push(Line::styled("  nothing would be", Palette::dim()));
    }
    Some(Section { title: titled(&title, width, palette), rows, details: Vec::new() })
}

pub fn services(shown: &Interval, width: usize, palette: Palette) -> Section {
    let name_width = 22;
    let title = format!("{:<name_width$}{:>FIGURE$}{:>FIGURE$}  servers", "service", "req/s", "fail/s");
    let mut rows = Vec::new();
    for one in &shown.services {
        rows.push(service(one, name_width, width, palette));
        // Who is down comes first: rows may be cut.
        let mut servers: Vec<_> = one.servers.iter().collect();
        servers.sort_by_key(|server| is_fine(server));
        rows.extend(servers.into_iter().map(|one| server(one, name_width, width, palette)));
    }
    if rows.is_empty() {
        let why = if shown.daemon_trouble.is_some() { "  only the daemon knows" } else { "  none" };
        rows.push(Line::styled(why, Palette::dim()));
    }
    Section { title: titled(&title, width, palette), rows, details: Vec::new() }
}

fn service(one: &ServiceRate, name_width: usize, width: usize, palette: Palette) -> Line<'static> {
    let up = one.servers.iter().filter(|server| is_fine(server)).count();
    let style = match up {
        0 => palette.bad(),
        up if up < one.servers.len() => palette.notable(),
        _ => palette.good(),
    };
    let mut extra = format!("{up}/{} up", one.servers.len());
    for (what, rate) in [("retries", one.retries_per_second), ("pages", one.pages_per_second)] {
        if rate > 0.0 {
            extra.push_str(&format!(", {} {what}/s", amount(rate)));
        }
    }
    let failures: f64 = one.servers.iter().map(|server| server.failures_per_second).sum();
    let left = width.saturating_sub(name_width + 2 * FIGURE + 2);
    Line::from(vec![
        Span::styled(
            format!("  {:<1$}", fit(&one.name, name_width - 3), name_width - 2),
            Style::new().add_modifier(Modifier::BOLD),
        ),
        Span::raw(format!("{:>FIGURE$}{:>FIGURE$}", amount(one.requests_per_second), amount(failures))),
        Span::styled(format!("  {}", fit(&extra, left)), style),
    ])
}

fn server(one: &ServerRate, name_width: usize, width: usize, palette: Palette) -> Line<'static> {
    let (requests, failures) = (amount(one.requests_per_second), amount(one.failures_per_second));
    let why = if is_fine(one) { one.status.clone() } else { format!("{}: {}", one.status, one.why) };
    let left = width.saturating_sub(name_width + 2 * FIGURE + 2);
    Line::from(vec![
        Span::raw(format!("    {:<1$}", fit(&one.address, name_width - 5), name_width - 4)),
        Span::raw(format!("{requests:>FIGURE$}{failures:>FIGURE$}")),
        Span::styled(
            format!("  {}", fit(&why, left)),
            if is_fine(one) { Palette::dim() } else { palette.bad() },
        ),
    ])
}

/// `unchecked` servers are taken to be.
fn is_fine(server: &ServerRate) -> bool {
    matches!(&*server.status, "up" | "unchecked")
}
