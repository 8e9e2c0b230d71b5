//! A worker: one thread, one runtime, its own listening sockets, connections and pool. Workers share only the
//! snapshot and atomics; the control side talks to them through [`WorkerHandle`], and they pass connections to each
//! other that one of them has too many of ([`crew`]).

pub mod crew;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::poll_fn,
    io,
    rc::{Rc, Weak},
    sync::Arc,
    task::Poll,
    thread::{self, JoinHandle},
    time::Duration,
};

use arc_swap::{ArcSwap, Cache};
use socket2::SockRef;
use tokio::{
    net::TcpListener,
    runtime::{Builder, LocalOptions},
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    access_log::WorkerLog,
    address::{EntrypointAddr, PeerAddr},
    clock::Moment,
    connection::{self, Accepted, http3},
    handover::Post,
    hygiene::patience::Patience,
    listen::{Listener, Transport},
    passthrough::{datagrams, pipes::Pipes},
    proxy_protocol::Ends,
    snapshot::Snapshot,
    upstream::{
        attempt::Means,
        http1::Early,
        parcel::Memory,
        pool::Pool,
        waiting::{TICK, WaitingRoom},
        warm,
    },
    worker::crew::{Counted, Crew, Passed},
};

/// How long segments clients are asked to send, by listening socket: where connections may be handed to the kernel, no longer than
/// servers take.
pub type Longest = HashMap<EntrypointAddr, u32>;

/// The snapshot that runs, shared by all.
pub type Running = Arc<ArcSwap<Snapshot>>;

/// A worker's own handle on the snapshot that runs: requests count references per worker, not where all workers count.
pub type Current = Rc<Arc<Snapshot>>;

/// Pooled connections are looked through every so many ticks (a second).
const PRUNE_TICKS: u32 = 40;

/// All that waits is looked through, for those whose time is over, every so many ticks (a quarter of a second).
const PATIENCE_TICKS: u32 = 10;

/// Log lines wait no longer than so many ticks (100 ms) for their chunk to fill.
const FLUSH_TICKS: u32 = 4;

/// What a connection and a request use of their worker.
#[derive(Debug)]
pub struct Worker {
    running: RefCell<Cache<Running, Arc<Snapshot>>>,
    current: RefCell<Current>,
    pub log: Rc<WorkerLog>,
    pool: Rc<Pool>,
    waiting: WaitingRoom,
    kept: Memory,
    pub patience: Rc<Patience>,
    /// What bytes are carried in that nobody looks at.
    pub pipes: Pipes,
    /// Who hands connections to the kernel.
    pub handovers: Post,
    closing: watch::Receiver<bool>,
    is_closing: Cell<bool>,
    crew: Arc<Crew>,
    number: usize,
}

/// The control side's end of a worker.
#[derive(Debug)]
pub struct WorkerHandle {
    orders: mpsc::UnboundedSender<Order>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Order {
    Listen {
        at: EntrypointAddr,
        transport: Transport,
        listener: Listener,
    },
    Unlisten {
        at: EntrypointAddr,
        transport: Transport,
    },
    /// A new snapshot runs: take what is kept outside of it.
    Renewed,
    /// Ask new clients for no longer segments than these.
    Announce(Arc<Longest>),
    /// Accept no more, let requests in flight end for so long, then go.
    Drain {
        grace: Duration,
        done: oneshot::Sender<usize>,
    },
}

/// Spawns on the worker's own thread: nothing of a connection ever moves to another.
#[derive(Debug, Clone, Copy)]
pub struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

// === impl WorkerHandle ===

impl WorkerHandle {
    /// Starts a worker thread: the one with this number among the crew, which gets what the others pass to it.
    ///
    /// # Errors
    /// When the system gives no thread or no runtime.
    pub fn start(
        number: usize,
        running: Running,
        crew: Arc<Crew>,
        handovers: Post,
        passed: mpsc::UnboundedReceiver<Passed>,
    ) -> io::Result<Self> {
        let (orders, received) = mpsc::unbounded_channel();
        let (started, ready) = std::sync::mpsc::sync_channel(1);
        let thread = thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            let runtime =
                match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                    Ok(runtime) => runtime,
                    Err(error) => {
                        let _ = started.send(Err(error));
                        return;
                    }
                };
            let _ = started.send(Ok(()));
            runtime.block_on(run(number, running, received, crew, handovers, passed));
        })?;
        ready.recv().unwrap_or_else(|_| Err(io::Error::other("the worker ended at once")))?;
        Ok(Self { orders, thread: Some(thread) })
    }

    pub fn listen(&self, (at, transport): (EntrypointAddr, Transport), listener: Listener) {
        self.order(Order::Listen { at, transport, listener });
    }

    pub fn unlisten(&self, at: EntrypointAddr, transport: Transport) {
        self.order(Order::Unlisten { at, transport });
    }

    pub fn renewed(&self) {
        self.order(Order::Renewed);
    }

    pub fn announce(&self, longest: Arc<Longest>) {
        self.order(Order::Announce(longest));
    }

    /// Begins to drain; the receiver yields the number of connections that had to be cut off.
    pub fn drain(&self, grace: Duration) -> oneshot::Receiver<usize> {
        let (done, drained) = oneshot::channel();
        self.order(Order::Drain { grace, done });
        drained
    }

    /// Waits for the thread to end, after [`Self::drain`].
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a worker panicked");
        }
    }

    fn order(&self, order: Order) {
        if self.orders.send(order).is_err() {
            tracing::error!("a worker is gone");
        }
    }
}

// === impl Worker ===

impl Worker {
    /// The snapshot that runs now. A request asks once and keeps what it got.
    pub fn snapshot(&self) -> Current {
        let mut running = self.running.borrow_mut();
        let running = running.load();
        let mut current = self.current.borrow_mut();
        if !Arc::ptr_eq(running, &current) {
            *current = Rc::new(running.clone());
        }
        current.clone()
    }

    pub fn means(self: &Rc<Self>, ends: Ends) -> Means<'_> {
        Means {
            worker: self,
            pool: &self.pool,
            waiting: &self.waiting,
            kept: &self.kept,
            ends,
            early: Early::default(),
        }
    }

    /// Whether clients are told to take their connections elsewhere.
    pub fn host_drains(&self) -> bool {
        self.snapshot().drains.host.is_on()
    }

    /// For connections that serve many requests: resolves when this host drains and this one has served some. A new one that
    /// was told at once would only be opened again. Must be polled whenever the connection is.
    pub async fn host_drains_after(&self, requests: &Cell<u64>) {
        let drains = self.snapshot().drains.clone();
        drains.host.begins().await;
        poll_fn(|_| if requests.get() > 0 { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Nothing idle keeps a server busy that is about to go.
    fn leave_drained_servers(&self) {
        for service in &self.snapshot().services {
            for server in service.servers.iter().filter(|server| server.health.is_draining()) {
                self.pool.leave(server.pool_key);
            }
        }
    }

    /// Counts one more connection, until the result is dropped.
    pub fn count_connection(&self) -> Counted {
        self.crew.enter(self.number)
    }

    fn connections(&self) -> usize {
        self.crew.load(self.number)
    }

    /// Whether the worker drains: every answer is its connection's last.
    pub fn is_closing(&self) -> bool {
        self.is_closing.get()
    }

    /// Resolves when the worker begins to drain.
    pub async fn closing(&self) {
        // An error means that the worker is gone, and its connections with it.
        let _ = self.closing.clone().wait_for(|closing| *closing).await;
    }
}

async fn run(
    number: usize,
    running: Running,
    mut orders: mpsc::UnboundedReceiver<Order>,
    crew: Arc<Crew>,
    handovers: Post,
    passed: mpsc::UnboundedReceiver<Passed>,
) {
    let (close, closing) = watch::channel(false);
    let worker = Rc::new(Worker {
        current: RefCell::new(Rc::new(running.load_full())),
        running: RefCell::new(Cache::new(running)),
        log: Rc::default(),
        pool: Rc::default(),
        waiting: WaitingRoom::default(),
        kept: Memory::default(),
        patience: Rc::default(),
        pipes: Pipes::default(),
        handovers,
        closing,
        is_closing: Cell::default(),
        crew,
        number,
    });
    worker.log.switch_to(&worker.snapshot().access_logs);
    let ticker = tokio::task::spawn_local(tick(worker.clone()));
    tokio::task::spawn_local(take_over(worker.clone(), passed));
    let mut listening: HashMap<(EntrypointAddr, Transport), watch::Sender<bool>> = HashMap::new();
    // Held by whoever accepts: a socket that is only held would take connections that nobody ever accepts.
    let mut sockets: HashMap<EntrypointAddr, Weak<TcpListener>> = HashMap::new();
    let mut longest = Arc::<Longest>::default();
    while let Some(order) = orders.recv().await {
        match order {
            Order::Listen { at, transport, listener } => {
                let (stop, stopped) = watch::channel(false);
                let worker = worker.clone();
                match listener {
                    Listener::Tcp(listener) => match TcpListener::from_std(listener) {
                        Ok(listener) => {
                            let listener = Rc::new(listener);
                            announce(&listener, longest.get(&at));
                            sockets.insert(at, Rc::downgrade(&listener));
                            tokio::task::spawn_local(accept(worker, at, listener, stopped));
                        }
                        Err(error) => {
                            tracing::error!(%at, %error, "can't listen");
                            continue;
                        }
                    },
                    Listener::Udp(socket) if transport == Transport::Datagrams => {
                        tokio::task::spawn_local(datagrams::listen(worker, at, socket, stopped));
                    }
                    Listener::Udp(socket) => {
                        tokio::task::spawn_local(http3::listen(worker, at, socket, stopped));
                    }
                }
                listening.insert((at, transport), stop);
            }
            Order::Unlisten { at, transport } => {
                if let Some(stop) = listening.remove(&(at, transport)) {
                    stop.send_replace(true);
                }
            }
            Order::Renewed => {
                worker.log.switch_to(&worker.snapshot().access_logs);
                warm::keep(&worker.pool, &worker.snapshot());
            }
            Order::Announce(next) => {
                sockets.retain(|_, listener| listener.strong_count() > 0);
                for (at, listener) in &sockets {
                    if let Some(listener) = listener.upgrade() {
                        announce(&listener, next.get(at));
                    }
                }
                longest = next;
            }
            Order::Drain { grace, done } => {
                for stop in listening.values() {
                    stop.send_replace(true);
                }
                drain(&worker, &close, grace).await;
                ticker.abort();
                worker.log.cut();
                worker.log.flush();
                let _ = done.send(worker.connections());
                return;
            }
        }
    }
}

/// `None`: whatever the way to a client takes.
fn announce(listener: &TcpListener, longest: Option<&u32>) {
    // What the kernel doesn't take as a length is none that it could announce.
    let _ = SockRef::from(listener).set_tcp_mss(longest.copied().unwrap_or(0));
}

/// Accepts until told to stop, and then once more what the kernel has accepted already: those clients think that
/// they are connected.
async fn accept(
    worker: Rc<Worker>,
    at: EntrypointAddr,
    listener: Rc<TcpListener>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stopped| *stopped) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let accepted = Accepted { stream, peer: PeerAddr(peer), at };
                if let Some((accepted, counted)) = worker.crew.pass(worker.number, accepted) {
                    tokio::task::spawn_local(serve(worker.clone(), accepted, counted));
                }
            }
            Err(error) => {
                // Out of file descriptors, or the client was quicker. Accepting again at once would spin.
                tracing::warn!(%at, %error, "can't accept");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// Serves what other workers pass on, until the worker drains; then still what is on its way.
async fn take_over(worker: Rc<Worker>, mut passed: mpsc::UnboundedReceiver<Passed>) {
    loop {
        let next = tokio::select! {
            biased;
            next = passed.recv() => next,
            () = worker.closing(), if !passed.is_closed() => {
                passed.close();
                continue;
            }
        };
        let Some(next) = next else { return };
        if let Some((accepted, counted)) = next.take() {
            tokio::task::spawn_local(serve(worker.clone(), accepted, counted));
        }
    }
}

async fn serve(worker: Rc<Worker>, accepted: Accepted, counted: Counted) {
    connection::serve(worker, accepted).await;
    drop(counted);
}

async fn drain(worker: &Worker, close: &watch::Sender<bool>, grace: Duration) {
    let until = Instant::now() + grace;
    // Let the accept loops take what is in their queues before connections are told to close.
    tokio::task::yield_now().await;
    worker.is_closing.set(true);
    close.send_replace(true);
    let mut ticks = interval(TICK);
    while worker.connections() > 0 && Instant::now() < until {
        ticks.tick().await;
    }
    worker.pool.clear();
}

async fn tick(worker: Rc<Worker>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count: u32 = 0;
    loop {
        ticks.tick().await;
        count = count.wrapping_add(1);
        let now = Moment::tick();
        worker.crew.ticks(worker.number, now);
        worker.waiting.look(now);
        worker.patience.tick(now);
        if count.is_multiple_of(PATIENCE_TICKS) {
            worker.patience.look();
        }
        if count.is_multiple_of(FLUSH_TICKS) {
            worker.log.flush();
        }
        if count.is_multiple_of(PRUNE_TICKS) {
            worker.pool.prune();
            if !*worker.closing.borrow() {
                warm::keep(&worker.pool, &worker.snapshot());
            }
            worker.leave_drained_servers();
        }
    }
}
