//! Gives way to another binary: has an [usher](crate::handoff::usher) start it, stands still while it takes over, and lets the old
//! connections end when it serves. If it doesn't, everything is as before.

use std::{
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    sync::{mpsc, oneshot},
    time::{interval, timeout},
};

use super::{
    Asked, Signals,
    apply::Fleet,
    forwarding::Forwarding,
    handovers::Handovers,
    notify,
    order::{Answer, Refusal, Upgrade},
    pulse::Pulse,
    state::{ControlState, Source},
};
use crate::{
    admin::Doors,
    config::model::Config,
    connection::http3::steering::{self, Elder, Share},
    handoff::{
        Downwards, Upwards,
        counters::{self, Counts},
        estate::{Estate, What},
        image::Image,
        usher::{self, Failed, Gift, News, Plan, Successor},
        wire::Line,
    },
    journal::{Kind, Note},
    worker::Running,
};

/// Connections are asked to end with their next answer, and those that haven't had any for so long are closed: whoever sends something
/// at that very moment gets no answer.
const LAME_DUCK: Duration = Duration::from_secs(10);

/// The successor is told this often what was counted.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// Whoever asked over the admin API has its answer by then.
const ANSWERS: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Upgrading {
    image: Option<Image>,
    tell: mpsc::UnboundedSender<News>,
    told: mpsc::UnboundedReceiver<News>,
    under_way: Option<UnderWay>,
    /// What the successor knows of what was counted.
    left: Counts,
}

#[derive(Debug)]
struct UnderWay {
    /// `None`: a signal has asked for it.
    answer: Option<oneshot::Sender<Answer>>,
    /// The configuration was to be read anew meanwhile.
    reload: bool,
}

/// What this daemon has to do with the kernel beside the gate.
pub struct Carriers<'a> {
    pub forwarding: &'a mut Forwarding,
    pub handovers: &'a mut Handovers,
}

impl Upgrading {
    /// To be made before the program can have been replaced.
    pub fn new() -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        let left = Counts::new();
        Self { image: Image::of_this_process(), tell, told, under_way: None, left }
    }

    /// While it is, nothing else may be changed.
    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// The configuration is to be read anew, as soon as that is possible.
    pub fn reload_later(&mut self) {
        if let Some(under_way) = &mut self.under_way {
            under_way.reload = true;
        }
    }

    /// Begins. What becomes of it comes as [`Self::news`].
    pub fn begin(
        &mut self,
        wanted: Upgrade,
        answer: Option<oneshot::Sender<Answer>>,
        source: &Source,
        state: &ControlState,
        config: &Config,
    ) {
        let (confined, start) = state.privileges.passed_on();
        let named = wanted.binary.is_some();
        let plan = self.image(wanted, state).map(|image| Plan {
            image,
            named,
            config: match source {
                Source::Path(path) => Some(path.clone()),
                Source::Embedded => None,
            },
            ready: config.upgrade.ready,
            confined,
            start,
        });
        match plan {
            Err(refusal) => {
                tracing::error!(%refusal, "no other binary takes over");
                if let Some(answer) = answer {
                    let _ = answer.send(Err(refusal));
                }
            }
            Ok(plan) => {
                tracing::info!("{} is to take over", plan.image.program.display());
                self.under_way = Some(UnderWay { answer, reload: false });
                let tell = self.tell.clone();
                tokio::task::spawn_blocking(move || usher::see_through(plan, &tell));
            }
        }
    }

    fn image(&self, wanted: Upgrade, state: &ControlState) -> Result<Image, Refusal> {
        let refused = |why: &str| Refusal::Refused(why.to_owned());
        if std::process::id() == 1 {
            return Err(refused(
                "weir is the first process of a container, which ends with it: replace the container instead",
            ));
        }
        if state.is_ending() {
            return Err(refused("this daemon is about to end"));
        }
        if state.on_trial().is_some() {
            return Err(refused("a configuration is on trial: `weir confirm` it or `weir revert` it first"));
        }
        let mut image = self
            .image
            .clone()
            .ok_or_else(|| refused("this daemon doesn't know how it was started: restart it instead"))?;
        if let Some(binary) = wanted.binary {
            image.program = PathBuf::from(binary);
        }
        Ok(image)
    }

    /// What an upgrade has come to. Safe to cancel.
    pub async fn news(&mut self) -> News {
        match self.told.recv().await {
            Some(news) => news,
            // It holds the other end itself.
            None => std::future::pending().await,
        }
    }

    /// Does what the new binary needs next. A successor serves when this returns it, and this daemon must change nothing any more.
    pub async fn follow(
        &mut self,
        news: News,
        fleet: &mut Fleet,
        state: &ControlState,
        pulse: &mut Pulse,
        carriers: Carriers<'_>,
    ) -> Option<Successor> {
        let Carriers { forwarding, handovers } = carriers;
        let over = match news {
            News::Over(over) => over,
            News::Asks(give) => {
                state.member.stand_still(true);
                forwarding.stand_still().await;
                let gift = gift(fleet).await;
                self.left.clone_from(&gift.estate.counts);
                // When it isn't there any more, that is the next news.
                let _ = give.send(gift);
                let over = self.stand_still(state, pulse).await;
                if over.is_err() {
                    *forwarding = Forwarding::new(state.forwarding.clone());
                }
                over
            }
        };
        match over {
            Ok(successor) => {
                handovers.leave().await;
                fleet.leave().await;
                if let Some(doors) = &mut fleet.doors {
                    doors.leave();
                }
                let pid = successor.child.id();
                notify(&[sd_notify::NotifyState::MainPid(pid)]);
                let now = counters::read(&fleet.running().load());
                let counts = counters::since(&now, &self.left);
                let counted = Downwards::Counted { counts, connections: 0, seconds_left: 0 };
                self.left = now;
                for word in [counted, Downwards::Yours] {
                    if let Err(error) = successor.line.say(&word, &[]) {
                        tracing::error!(%error, "the new daemon does not listen any more");
                    }
                }
                let (took, drain) = (successor.took, fleet.running().load().config.upgrade.drain);
                let (version, milliseconds) = (&successor.version, took.as_millis());
                tracing::info!(pid, version, ?took, "the new daemon serves; connections of this one end now");
                let under_way = self.under_way.take();
                if let Some(answer) = under_way.and_then(|under_way| under_way.answer) {
                    let _ = answer.send(Ok(json!({
                        "version": version,
                        "pid": pid,
                        "took_ms": u64::try_from(milliseconds).unwrap_or(u64::MAX),
                        "old_pid": std::process::id(),
                        "old_ends_within_seconds": drain.as_secs(),
                    })));
                }
                Some(successor)
            }
            Err(Failed { why, had_estate }) => {
                state.member.stand_still(false);
                if had_estate {
                    // It may have put its own program and lists into the kernel.
                    let running = fleet.running().load_full();
                    fleet.kernel.forget();
                    if let Err(fault) = fleet.kernel.apply(&running.config, running.generation).await {
                        tracing::error!(%fault, "the gate could not be taken back: it goes on as it stands");
                    }
                    state.kernel_is(&fleet.kernel.state);
                }
                tracing::error!("{why}; this daemon goes on as before");
                Note::new(Kind::UpgradeFailed, "another binary was to take over, and did not")
                    .why(&why)
                    .write();
                let under_way = self.under_way.take();
                if under_way.as_ref().is_some_and(|under_way| under_way.reload) {
                    // As a signal would ask for it.
                    let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGHUP);
                }
                if let Some(answer) = under_way.and_then(|under_way| under_way.answer) {
                    let _ = answer
                        .send(Err(Refusal::Refused(format!("{why}\nthe running daemon goes on as before"))));
                }
                None
            }
        }
    }

    /// Waits for the outcome and does nothing else, but tells the service manager that it is well.
    async fn stand_still(&mut self, state: &ControlState, pulse: &mut Pulse) -> Result<Successor, Failed> {
        loop {
            tokio::select! {
                news = self.told.recv() => match news {
                    Some(News::Over(over)) => return over,
                    Some(News::Asks(_)) => {}
                    None => {
                        let why = "nobody knows what became of it".to_owned();
                        return Err(Failed { why, had_estate: true });
                    }
                },
                () = pulse.due() => pulse.beat(state),
            }
        }
    }

    /// Lets connections end, and passes on what they count. To be called when a successor serves.
    pub async fn retire(
        self,
        mut fleet: Fleet,
        successor: Successor,
        signals: &mut Signals,
        state: &ControlState,
    ) {
        let doors = fleet.doors.take();
        let Successor { line, mut child, .. } = successor;
        let line = Arc::new(line);
        let running = fleet.running();
        let drain = running.load().config.upgrade.drain;
        let end = Instant::now() + drain;
        let mut counting = Counting { line: line.clone(), running: running.clone(), told: self.left, end };
        let mut words = listen(line);
        let mut ticks = interval(TELL_EVERY);
        let connections = || state.loads().iter().sum::<usize>();

        // 1. Who gets an answer is told that it is the last one here.
        let lame = Instant::now() + LAME_DUCK.min(drain);
        let mut grace = drain.saturating_sub(LAME_DUCK);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    counting.tell(connections());
                    if connections() == 0 || Instant::now() >= lame {
                        break;
                    }
                }
                Some(word) = words.recv() => if matches!(word, Upwards::ReopenLogs) { fleet.reopen_logs() },
                asked = signals.next() => match asked {
                    Asked::ReopenLogs => fleet.reopen_logs(),
                    Asked::Drain => {
                        grace = fleet.grace();
                        break;
                    }
                    Asked::Stop => {
                        grace = Duration::ZERO;
                        break;
                    }
                    Asked::Reload | Asked::Upgrade => {}
                },
            }
        }

        // 2. What is idle is closed; what is not may go on.
        counting.end = end.min(Instant::now() + grace);
        let draining = fleet.drain(grace);
        tokio::pin!(draining);
        let cut_off = loop {
            tokio::select! {
                cut_off = &mut draining => break cut_off,
                _ = ticks.tick() => counting.tell(connections()),
                Some(word) = words.recv() => if matches!(word, Upwards::ReopenLogs) {
                    running.load().access_logs.reopen();
                },
                asked = signals.next() => match asked {
                    Asked::ReopenLogs => running.load().access_logs.reopen(),
                    Asked::Drain | Asked::Stop => break connections(),
                    Asked::Reload | Asked::Upgrade => {}
                },
            }
        };
        counting.tell(0);
        if cut_off > 0 {
            tracing::warn!(cut_off, "connections were still open when the time of this daemon was over");
        }
        if let Some(mut doors) = doors {
            let _ = timeout(ANSWERS, doors.over()).await;
        }
        if let Ok(Some(status)) = child.try_wait() {
            tracing::error!(%status, "the daemon that has taken over has ended");
        }
        tracing::info!("ended; another daemon has taken over");
    }
}

/// All that a successor gets.
async fn gift(fleet: &Fleet) -> Gift {
    let snapshot = fleet.running().load_full();
    let mut estate = Estate::of(&snapshot);
    let mut beside: Vec<OwnedFd> = Vec::new();
    let of_admin = fleet.doors.iter().flat_map(Doors::sockets).map(|(_, socket)| socket);
    for socket in fleet.sockets_but_http3s().chain(of_admin) {
        // One that can't be given is opened anew, as far as that is possible beside this one.
        if let Ok(socket) = socket.try_clone() {
            estate.descriptors.push(What::Socket);
            beside.push(socket);
        }
    }
    for Share { socket, elders } in steering::share() {
        estate.descriptors.push(What::Socket);
        beside.push(socket);
        for Elder { epoch, tunnel } in elders {
            estate.descriptors.push(What::Tunnel { epoch });
            beside.push(tunnel);
        }
    }
    if let Some(lock) = fleet.kernel.share_lock().await {
        estate.descriptors.push(What::Lock);
        beside.push(lock.into());
    }
    Gift { estate, beside }
}

/// What the successor says now and then.
fn listen(line: Arc<Line>) -> mpsc::UnboundedReceiver<Upwards> {
    let (tell, told) = mpsc::unbounded_channel();
    // It ends with the process.
    std::thread::spawn(move || {
        while let Ok(Some((word, _))) = line.hear::<Upwards>(None) {
            if tell.send(word).is_err() {
                return;
            }
        }
    });
    told
}

/// What connections count that were here when a successor began.
struct Counting {
    line: Arc<Line>,
    running: Running,
    /// What the successor knows of.
    told: Counts,
    end: Instant,
}

impl Counting {
    fn tell(&mut self, connections: usize) {
        let now = counters::read(&self.running.load());
        let counts = counters::since(&now, &self.told);
        let seconds_left = self.end.saturating_duration_since(Instant::now()).as_secs();
        let word = Downwards::Counted { counts, connections, seconds_left };
        if self.line.say(&word, &[]).is_ok() {
            self.told = now;
        }
    }
}
