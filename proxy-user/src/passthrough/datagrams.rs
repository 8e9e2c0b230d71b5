//! UDP by port that the kernel doesn't carry: each client gets a socket of its own towards its server, and datagrams go from one
//! to the other as they are.
//!
//! A *session* is what a flow is in the kernel: it begins with a client's first datagram and ends when it was silent for too long.
//! Who gets it is chosen by the kernel's own table ([`choice`]), so that a client whose datagrams are carried by the kernel from
//! one reload on, or arrive at another edge host, stays with its server. Nobody waits here: what can't be sent on at once
//! is dropped and counted, as in any router.

mod choice;
pub mod drops;
mod front;
mod sessions;

use std::{
    cell::{Cell, RefCell},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    net::UdpSocket,
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

use self::{
    choice::{Choice, Chosen},
    drops::Dropped,
    front::{Front, Got},
    sessions::{Key, Sessions},
};
use super::{counters::Open, record::Record};
use crate::{
    access_log::connections::{By, End},
    address::EntrypointAddr,
    clock::Moment,
    connection::crowd::Place,
    health::Status,
    service::{Server, Service},
    snapshot::Entrypoint,
    worker::Worker,
};

/// A session whose server has never said anything is over when it was silent for so long. The kernel does likewise.
const UNANSWERED: Duration = Duration::from_secs(30);

/// Answers that are on their way when this host ends, or the entrypoint goes, have so long to come.
const ON_THEIR_WAY: Duration = Duration::from_millis(500);

/// The longest there is.
const LONGEST: usize = 1 << 16;

/// So many are taken one after the other, before others of the worker get their turn.
const TURNS: usize = 64;

/// One listening socket.
struct Door {
    worker: Rc<Worker>,
    at: EntrypointAddr,
    front: Front,
    sessions: RefCell<Sessions<Rc<Session>>>,
    choice: RefCell<Choice>,
    /// Never holds anything between two calls.
    buffer: RefCell<Box<[u8]>>,
    /// No more is taken.
    stopped: watch::Receiver<bool>,
}

/// One client's way to its server.
struct Session {
    key: Key,
    /// Connected with the server.
    socket: UdpSocket,
    service: Arc<Service>,
    index: usize,
    open: Open,
    carried: Rc<super::relay::Carried>,
    last: Cell<Instant>,
    answered: Cell<bool>,
    /// What it takes up, given back as soon as nobody finds it any more.
    place: Cell<Option<Place>>,
    /// Somebody ends it.
    cut: Notify,
}

/// Takes datagrams until told to stop.
pub async fn listen(
    worker: Rc<Worker>,
    at: EntrypointAddr,
    socket: std::net::UdpSocket,
    mut stopped: watch::Receiver<bool>,
) {
    let front = match Front::new(at, socket) {
        Ok(front) => front,
        Err(error) => return tracing::error!(%at, %error, "can't listen for datagrams"),
    };
    let door = Rc::new(Door {
        worker,
        at,
        front,
        sessions: RefCell::default(),
        choice: RefCell::default(),
        buffer: RefCell::new(vec![0; LONGEST].into()),
        stopped: stopped.clone(),
    });
    loop {
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => break,
            ready = door.front.readable() => if let Err(error) = ready {
                tracing::error!(%at, %error, "can't take datagrams");
                break;
            }
        }
        door.take_some();
        // What comes and comes must not keep the worker from all else.
        tokio::task::yield_now().await;
    }
}

// === impl Door ===

impl Door {
    fn take_some(self: &Rc<Self>) {
        let mut buffer = self.buffer.borrow_mut();
        for _ in 0..TURNS {
            match self.front.receive(&mut buffer) {
                Ok(got) => self.take(&buffer[..got.length], got),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // An ICMP error about an answer: whose it was isn't said, and that client will be silent.
                Err(_) => {}
            }
        }
    }

    /// The way of one datagram from a client.
    fn take(self: &Rc<Self>, datagram: &[u8], got: Got) {
        // 1. Where did it come in? (A reload may have taken the entrypoint away a moment ago.)
        let snapshot = self.worker.snapshot();
        let Some(entrypoint) = snapshot.entrypoint_of_datagrams(self.at) else { return };

        // 2. May it come in? The gate has asked already where it stands; where it doesn't, this is the gate.
        let client = got.key.client.ip();
        let is_listed = entrypoint.admission.admits(client);
        let is_blocked = is_listed && snapshot.blocks.refuse(client, || entrypoint.cdn.contains(client));
        if !is_listed || is_blocked {
            let counters = &entrypoint.counters;
            if !entrypoint.admission.shadow {
                let turned_away = if is_blocked { &counters.blocked } else { &counters.not_listed };
                turned_away.fetch_add(1, Ordering::Relaxed);
                return;
            }
            counters.would_turn_away.fetch_add(1, Ordering::Relaxed);
        }

        // 3. Whose is it? A server that is down has nobody's any more.
        let known = self.sessions.borrow().find(&got.key).cloned();
        let known = known.filter(|session| {
            let goes_on = session.server().health.verdict() != Status::Down;
            if !goes_on {
                self.forget(session);
            }
            goes_on
        });
        let session = match known.map_or_else(|| self.begin(entrypoint, got.key), Ok) {
            Ok(session) => session,
            Err(why) => return entrypoint.counters.datagrams.count(why),
        };

        // 4. On to the server.
        if let Err(why) = session.send(datagram) {
            entrypoint.counters.datagrams.count(why);
        }
    }

    /// Begins a session.
    fn begin(self: &Rc<Self>, entrypoint: &Arc<Entrypoint>, key: Key) -> Result<Rc<Session>, Dropped> {
        let snapshot = self.worker.snapshot();
        let mut choice = self.choice.borrow_mut();
        let Chosen { route, service, index } =
            choice.choose(&snapshot, &entrypoint.name, key.client).ok_or(Dropped::NoServer)?;
        drop(choice);
        let place = self.make_room(entrypoint, key.client.ip()).ok_or(Dropped::TooMany)?;
        let server = &service.servers[index];
        let socket = connected(server.addr.0).map_err(|_| {
            server.counters.carrying.failures.fetch_add(1, Ordering::Relaxed);
            Dropped::NoSocket
        })?;
        let mut record = Record::of_datagrams(self.worker.log.clone(), key.client, entrypoint.name.clone());
        record.route = Some(route);
        record.goes_to(&service, server);
        let under_way = server.begin();
        let session = Rc::new(Session {
            key,
            socket,
            open: Open::begin(&server.counters.carrying),
            service,
            index,
            carried: record.carried.clone(),
            last: Cell::new(Instant::now()),
            answered: Cell::new(false),
            place: Cell::new(Some(place)),
            cut: Notify::new(),
        });
        entrypoint.counters.accepted.fetch_add(1, Ordering::Relaxed);
        self.sessions.borrow_mut().add(key, session.clone());
        let (door, entrypoint, one) = (self.clone(), entrypoint.clone(), session.clone());
        let counted = self.worker.count_connection();
        tokio::task::spawn_local(async move {
            let (end, by) = one.carry(&door, &entrypoint).await;
            door.forget(&one);
            record.over(end, by);
            drop((under_way, counted));
        });
        Ok(session)
    }

    /// A place for one more. Where there are many, who was never answered gives way, and then who has been silent for long; where
    /// one client has too many, one of its own does.
    fn make_room(&self, entrypoint: &Entrypoint, client: IpAddr) -> Option<Place> {
        let now = Instant::now();
        let look = |session: &Rc<Session>| {
            (!session.answered.get(), now.saturating_duration_since(session.last.get()))
        };
        if self.sessions.borrow().are_many() {
            let worst = self.sessions.borrow().to_give_way(None, look)?;
            self.forget(&worst);
        }
        let enter = || entrypoint.crowd.enter(client, false, &entrypoint.limits).ok();
        enter().or_else(|| {
            let own = self.sessions.borrow().to_give_way(Some(client), look)?;
            self.forget(&own);
            enter()
        })
    }

    /// Its next datagram begins another session.
    fn forget(&self, session: &Rc<Session>) {
        self.sessions.borrow_mut().remove(&session.key, |known| Rc::ptr_eq(known, session));
        session.place.take();
        session.cut.notify_one();
    }
}

/// A socket towards a server, from any port that is free.
fn connected(server: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = std::net::UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(server)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

// === impl Session ===

impl Session {
    fn server(&self) -> &Server {
        &self.service.servers[self.index]
    }

    /// A client's datagram.
    fn send(&self, datagram: &[u8]) -> Result<(), Dropped> {
        self.last.set(Instant::now());
        // Not by way of the runtime, which hasn't heard yet that a new socket can be written to. Nobody waits for that anyway.
        let socket = SockRef::from(&self.socket);
        let sent = match socket.send(datagram) {
            // The word that nobody listens there, about an earlier one. This one was not sent yet.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.refused();
                socket.send(datagram)
            }
            sent => sent,
        };
        match sent {
            Ok(_) => {
                let bytes = datagram.len() as u64;
                self.carried.to_server.set(self.carried.to_server.get() + bytes);
                self.open.counters().to_server.fetch_add(bytes, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => Err(Dropped::to_server(&error)),
        }
    }

    fn refused(&self) {
        self.server().health.suspect();
        self.open.counters().failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Carries what the server says, until the session is over.
    async fn carry(&self, door: &Door, entrypoint: &Entrypoint) -> (End, By) {
        let timeouts = &self.service.timeouts;
        let began = Instant::now();
        let ends = |now: Instant| {
            let patience = if self.answered.get() { timeouts.idle } else { timeouts.idle.min(UNANSWERED) };
            let silent = (self.last.get() + patience, End::Idle);
            let old = timeouts.lifetime.map(|lifetime| (began + lifetime, End::Lifetime));
            let (due, end) = old.filter(|old| old.0 < silent.0).unwrap_or(silent);
            (due, (due <= now).then_some(end))
        };
        let mut stopped = door.stopped.clone();
        loop {
            let (due, over) = ends(Instant::now());
            if let Some(end) = over {
                return (end, By::Weir);
            }
            tokio::select! {
                biased;
                ready = self.socket.readable() => match ready {
                    Ok(()) => self.take_some(door, entrypoint),
                    Err(_) => return (End::Reset, By::Server),
                },
                () = self.cut.notified() => return (End::Reset, By::Weir),
                () = sleep_until(due) => {}
                _ = stopped.wait_for(|stopped| *stopped) => {
                    // Nothing says when it is all. What is on its way may still come.
                    let rest = async {
                        while self.socket.readable().await.is_ok() {
                            self.take_some(door, entrypoint);
                            tokio::task::yield_now().await;
                        }
                    };
                    let _ = tokio::time::timeout(ON_THEIR_WAY, rest).await;
                    return (End::Drain, By::Weir);
                }
            }
        }
    }

    fn take_some(&self, door: &Door, entrypoint: &Entrypoint) {
        let mut buffer = door.buffer.borrow_mut();
        for _ in 0..TURNS {
            match self.socket.try_recv(&mut buffer) {
                Ok(length) => {
                    self.last.set(Instant::now());
                    self.answered.set(true);
                    self.server().health.heard(Moment::recent());
                    match door.front.send(&buffer[..length], &self.key) {
                        Ok(()) => {
                            let bytes = length as u64;
                            self.carried.to_client.set(self.carried.to_client.get() + bytes);
                            self.open.counters().to_client.fetch_add(bytes, Ordering::Relaxed);
                        }
                        Err(_) => entrypoint.counters.datagrams.count(Dropped::ToClient),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => self.refused(),
                // Nothing more; or another word about what was sent, which the client's next datagram meets again.
                Err(_) => return,
            }
        }
    }
}
