use std::time::Duration;

use ratatui::{Terminal, backend::TestBackend, crossterm::event::KeyCode};

use super::{
    super::{dashboard::Dashboard, example, interval::Gate},
    *,
};

fn dashboard() -> Dashboard {
    let mut dashboard = Dashboard::new(Duration::from_secs(1));
    for _ in 0..3 {
        dashboard.take(example::interval());
    }
    dashboard
}

fn drawn(dashboard: &Dashboard, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, dashboard, Palette::plain())).unwrap();
    let buffer = terminal.backend().buffer();
    let row = |row: u16| -> String { (0..width).map(|column| buffer[(column, row)].symbol()).collect() };
    (0..height).map(|number| row(number).trim_end().to_owned()).collect()
}

/// The rows from the one that begins so, up to the next empty one.
fn section(screen: &[String], begins: &str) -> Vec<String> {
    let from = screen.iter().position(|row| row.starts_with(begins));
    let from = from.unwrap_or_else(|| panic!("no `{begins}` in\n{}", screen.join("\n")));
    screen[from..].iter().take_while(|row| !row.is_empty()).cloned().collect()
}

#[test]
fn eighty_columns_show_all_that_matters() {
    let expected = "\
weir top  every 1 s  daemon answers
gate: generation 12, eth0 xdp, veth7 tcx (IT IS GONE)
lists: cdn 4100 prefixes, 1d 1h old (REFRESH FAILED); cloudflare 22 prefixes, 2…

entrypoint            pass/s  drop/s would/s   req/s  drops, 26 s ──────────────
  https                  420    120k       -     118                         ███
    not_listed                  120k
    truncated                     12
  trial SHADOW           900       0      31     2.0                         ███
    not_listed                            31
  open                     -       -       -       0

dropped from (sampled)  drop/s  share  entrypoint, reason ──────────────────────
  203.0.113.0/24          110k    92%  https, not_listed
  2001:db8:bad::/48        10k     8%  https, not_listed

would be dropped from  would/s         entrypoint ──────────────────────────────
  192.0.2.0/24              30         trial
  2001:db8:7::/48          1.0         trial
service                  req/s  fail/s  servers ────────────────────────────────
  app                      120       0  1/2 up
    10.0.0.12:8080          60       0  down: refused the connection
    10.0.0.11:8080          60       0  up
q quit  ? help  p pause  s sort: dropped  ↑↓ entrypoint: all";
    let screen = drawn(&dashboard(), 80, 24).join("\n");
    assert_eq!(screen.trim_end(), expected, "drawn:\n{screen}\n");
}

#[test]
fn sixty_columns_cut_what_can_be_missed() {
    let screen = drawn(&dashboard(), 60, 20);
    let entrypoints = section(&screen, "entrypoint");
    assert_eq!(entrypoints[1], "  https              420    120k       -     118         ███");
    let names = ["https", "trial SHADOW", "open"];
    assert!(
        names.iter().all(|name| entrypoints.iter().any(|row| row.contains(name))),
        "reasons go first: {screen:?}"
    );
    assert!(!entrypoints.iter().any(|row| row.contains("truncated")), "{screen:?}");
    assert!(screen.iter().any(|row| row.contains("10.0.0.12:8080") || row.contains("more")), "{screen:?}");
    assert!(screen.iter().all(|row| row.chars().count() <= 60));
}

#[test]
fn a_tall_and_wide_terminal_has_graphs_and_two_columns() {
    let screen = drawn(&dashboard(), 140, 40);
    assert!(
        screen.iter().any(|row| row.starts_with("passed/s, all entrypoints, last 3s, at most 1.3k")),
        "{screen:?}"
    );
    let beside = screen.iter().find(|row| row.contains("dropped from (sampled)"));
    assert!(beside.is_some_and(|row| row.contains("service")), "{screen:?}");
}

#[test]
fn without_a_daemon_it_is_said_and_the_kernel_is_shown() {
    let mut interval = example::interval();
    interval.daemon_trouble = Some("no weir answers at unix:/run/weir/admin.sock".to_owned());
    interval.services.clear();
    let mut dashboard = Dashboard::new(Duration::from_secs(1));
    dashboard.take(interval);
    let screen = drawn(&dashboard, 80, 24);
    assert!(screen[2].starts_with("daemon: DOESN'T ANSWER"), "{screen:?}");
    assert_eq!(section(&screen, "service")[1], "  only the daemon knows");
    assert!(section(&screen, "dropped from").iter().any(|row| row.contains("203.0.113.0/24")));
}

#[test]
fn without_a_gate_or_a_sample_it_is_said() {
    let mut interval = example::interval();
    interval.gate = Gate::Absent;
    interval.sources_sampled.clear();
    interval.sampling_trouble = Some("somebody else watches".to_owned());
    let mut dashboard = Dashboard::new(Duration::from_secs(1));
    dashboard.take(interval);
    let screen = drawn(&dashboard, 80, 24);
    assert_eq!(screen[1], "gate: nothing of Weir's is in the kernel");
    assert_eq!(section(&screen, "dropped from")[1], "  not known: somebody else watches");
}

#[test]
fn a_selected_entrypoint_is_marked_and_others_sources_are_left_out() {
    let mut dashboard = dashboard();
    dashboard.press(KeyCode::Down.into());
    dashboard.press(KeyCode::Down.into());
    let screen = drawn(&dashboard, 80, 30);
    assert!(section(&screen, "entrypoint").iter().any(|row| row.starts_with("▸ trial SHADOW")), "{screen:?}");
    assert_eq!(section(&screen, "dropped from")[1], "  nothing is dropped");
    assert!(section(&screen, "would be dropped").iter().any(|row| row.contains("192.0.2.0/24")));
    dashboard.press(KeyCode::Char('p').into());
    assert!(drawn(&dashboard, 80, 30)[0].ends_with("PAUSED"));
}

#[test]
fn room_is_shared_out_in_turn() {
    for (wants, room, shared) in [
        (&[5, 5, 5][..], 20, &[6, 6, 5][..]),
        (&[5, 5, 5], 15, &[5, 5, 5]),
        (&[10, 2, 10], 14, &[6, 2, 6]),
        (&[10, 10, 10], 7, &[3, 3, 1]),
        (&[10], 0, &[0]),
    ] {
        assert_eq!(shares(wants, room), shared, "{wants:?} in {room}");
    }
}

#[test]
fn any_size_is_drawn() {
    let mut dashboard = dashboard();
    for helping in [false, true] {
        for (width, height) in
            [(1, 1), (2, 40), (20, 5), (60, 20), (80, 24), (110, 29), (140, 40), (300, 100)]
        {
            drawn(&dashboard, width, height);
        }
        drawn(&Dashboard::new(Duration::from_secs(1)), 60, 20);
        if !helping {
            dashboard.press(KeyCode::Char('?').into());
        }
    }
}
