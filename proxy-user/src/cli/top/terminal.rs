//! The dashboard on a real terminal, which is given back as it was: at the end, by a signal, and when something panics.

use std::{
    os::fd::AsFd,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event},
};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    dashboard::{Dashboard, Pressed},
    gather::Gatherer,
    interval::Interval,
    screen::{self, Palette},
};
use crate::cli::{Failure, admin::AdminArgs, block_on};

/// How long a key is waited for before news are looked for, in milliseconds.
const PATIENCE: u8 = 50;

/// How long the end may take that a signal asks for.
const GRACE: Duration = Duration::from_secs(2);

/// What other threads tell the one that draws.
enum News {
    Interval(Box<Interval>),
    /// A signal asks for the end.
    End,
}

pub fn run(bpffs: PathBuf, admin: AdminArgs, every: Duration) -> Result<(), Failure> {
    let (tell, news) = mpsc::channel();
    let goes_on = Arc::new(AtomicBool::new(true));
    end_on_signals(tell.clone());
    let gathering = {
        let goes_on = goes_on.clone();
        thread::spawn(move || {
            let mut gatherer = Gatherer::begin(bpffs, admin);
            let goes_on = || goes_on.load(Ordering::Relaxed);
            while let Some(interval) = gatherer.interval(every, goes_on) {
                if tell.send(News::Interval(Box::new(interval))).is_err() {
                    break;
                }
            }
        })
    };

    let failed = |error: std::io::Error| Failure::Failed(format!("the terminal fails: {error}"));
    // Takes care of panics by itself.
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let is_alive = || !gathering.is_finished();
    let shown = show(&mut terminal, &mut Dashboard::new(every), &news, is_alive);
    // When it fails, the terminal is gone, and nobody is left to tell.
    let _ = ratatui::try_restore();

    // So that the gate is told at once that nobody watches any more. A daemon that hangs is not waited for.
    goes_on.store(false, Ordering::Relaxed);
    for _ in 0..10 {
        if gathering.is_finished() {
            break;
        }
        thread::sleep(Duration::from_millis(PATIENCE.into()));
    }
    shown.map_err(failed)
}

fn show(
    terminal: &mut DefaultTerminal,
    dashboard: &mut Dashboard,
    news: &mpsc::Receiver<News>,
    is_alive: impl Fn() -> bool,
) -> std::io::Result<()> {
    let palette = Palette::of_environment();
    let mut changed = true;
    loop {
        if changed {
            terminal.draw(|frame| screen::draw(frame, dashboard, palette))?;
        }
        changed = false;
        wait_for_keys()?;
        while event::poll(Duration::ZERO)? {
            match event::read()? {
                Event::Key(key) => match dashboard.press(key) {
                    Pressed::Quit => return Ok(()),
                    Pressed::Redraw => changed = true,
                    Pressed::Nothing => {}
                },
                Event::Resize(..) => changed = true,
                Event::FocusGained | Event::FocusLost | Event::Mouse(_) | Event::Paste(_) => {}
            }
        }
        if !is_alive() {
            return Err(std::io::Error::other("what reads the kernel broke off"));
        }
        for one in news.try_iter() {
            match one {
                News::Interval(interval) => {
                    dashboard.take(*interval);
                    changed = true;
                }
                News::End => return Ok(()),
            }
        }
    }
}

/// Not left to crossterm, which reads a terminal that has hung up for ever.
fn wait_for_keys() -> std::io::Result<()> {
    let stdin = std::io::stdin();
    let mut keys = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    match poll(&mut keys, PollTimeout::from(PATIENCE)) {
        // A window that changes its size interrupts.
        Ok(_) | Err(nix::Error::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    if keys[0].revents().is_some_and(|found| found.intersects(gone)) {
        return Err(std::io::Error::other("it has hung up"));
    }
    Ok(())
}

/// Ctrl-C is a key here; these come from outside.
fn end_on_signals(tell: mpsc::Sender<News>) {
    thread::spawn(move || {
        let wait = block_on(async {
            let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
            let mut signals = Vec::new();
            for kind in kinds {
                signals.push(signal(kind)?);
            }
            let any = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
            futures_util::future::select_all(any).await;
            Ok::<_, std::io::Error>(())
        });
        // Without a runtime, or without handlers, a signal ends the process by itself.
        if let Ok(Ok(())) = wait {
            let _ = tell.send(News::End);
            // Whatever the other threads hang on: who asks for the end gets it.
            thread::sleep(GRACE);
            let _ = ratatui::try_restore();
            std::process::exit(1);
        }
    });
}
