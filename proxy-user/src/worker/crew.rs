//! How much each worker has to do, and who takes a connection.
//!
//! The kernel spreads connections over the workers' sockets by chance. Of many, each worker gets about as many; of few that
//! last, as CDNs and clients of HTTP/2 have them, one may get most. So a worker that has clearly more than another passes what
//! it accepts on, before a byte of it was read.

use std::{
    net::TcpStream as StdTcpStream,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::{net::TcpStream, sync::mpsc};

use crate::{
    address::{EntrypointAddr, PeerAddr},
    clock::Moment,
    connection::Accepted,
};

/// All workers, by their number.
#[derive(Debug)]
pub struct Crew(Box<[Member]>);

/// Alone on its cache line: each worker counts its own all the time.
#[derive(Debug)]
#[repr(align(64))]
struct Member {
    connections: AtomicUsize,
    /// The moment of its last tick.
    beat: AtomicU64,
    door: mpsc::UnboundedSender<Passed>,
}

/// A connection on its way from the worker that accepted it to the one that serves it.
#[derive(Debug)]
pub struct Passed {
    stream: StdTcpStream,
    peer: PeerAddr,
    at: EntrypointAddr,
    counted: Counted,
}

/// A connection that a drain waits for; counted until dropped.
#[derive(Debug)]
pub struct Counted {
    crew: Arc<Crew>,
    worker: usize,
}

// === impl Crew ===

impl Crew {
    /// For so many workers, with what is passed to each of them.
    pub fn new(workers: usize) -> (Arc<Self>, Vec<mpsc::UnboundedReceiver<Passed>>) {
        let (members, doors) = (0..workers)
            .map(|_| {
                let (door, passed) = mpsc::unbounded_channel();
                (
                    Member { connections: AtomicUsize::new(0), beat: AtomicU64::new(Moment::now().0), door },
                    passed,
                )
            })
            .unzip::<_, _, Vec<_>, _>();
        (Arc::new(Self(members.into())), doors)
    }

    /// How many connections each of them has.
    pub fn loads(&self) -> Vec<usize> {
        (0..self.0.len()).map(|worker| self.load(worker)).collect()
    }

    /// A worker ticks.
    pub fn ticks(&self, worker: usize, now: Moment) {
        self.0[worker].beat.store(now.0, Ordering::Relaxed);
    }

    /// When each of them ticked last.
    pub fn beats(&self) -> Vec<Moment> {
        self.0.iter().map(|member| Moment(member.beat.load(Ordering::Relaxed))).collect()
    }

    pub fn load(&self, worker: usize) -> usize {
        self.0[worker].connections.load(Ordering::Relaxed)
    }

    /// Counts one more connection of a worker, until the result is dropped.
    pub fn enter(self: &Arc<Self>, worker: usize) -> Counted {
        self.0[worker].connections.fetch_add(1, Ordering::Relaxed);
        Counted { crew: self.clone(), worker }
    }

    /// Passes a connection on if another worker has clearly less to do than `worker`, which accepted it; gives it back if
    /// it is to keep it.
    pub fn pass(self: &Arc<Self>, worker: usize, accepted: Accepted) -> Option<(Accepted, Counted)> {
        let Some(to) = better_placed(worker, self.0.len(), |worker| self.load(worker)) else {
            return Some((accepted, self.enter(worker)));
        };
        let Accepted { stream, peer, at } = accepted;
        let passed = Passed { stream: stream.into_std().ok()?, peer, at, counted: self.enter(to) };
        match self.0[to].door.send(passed) {
            Ok(()) => None,
            // It takes nothing more, since it ends.
            Err(mpsc::error::SendError(passed)) => Some((passed.take()?.0, self.enter(worker))),
        }
    }
}

/// The worker with the least to do, if `worker` has so much more that it is worth the way: two connections, and of many
/// an eighth. Whoever is asked begins behind itself, so that not all of them run to the same one.
fn better_placed(worker: usize, workers: usize, load: impl Fn(usize) -> usize) -> Option<usize> {
    let others = (1..workers).map(|step| (worker + step) % workers);
    let least = others.min_by_key(|&other| load(other))?;
    let its = load(least);
    (load(worker) > its + 1 + its / 8).then_some(least)
}

// === impl Passed ===

impl Passed {
    /// As the worker that takes it has it. `None`: the system doesn't let it have it.
    pub fn take(self) -> Option<(Accepted, Counted)> {
        let Self { stream, peer, at, counted } = self;
        match TcpStream::from_std(stream) {
            Ok(stream) => Some((Accepted { stream, peer, at }, counted)),
            Err(error) => {
                tracing::warn!(%at, %error, "can't take a connection over");
                None
            }
        }
    }
}

// === impl Counted ===

impl Drop for Counted {
    fn drop(&mut self) {
        self.crew.0[self.worker].connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_goes_to_who_has_clearly_less_to_do() {
        for (loads, worker, to) in [
            (&[5][..], 0, None),
            (&[0, 0], 0, None),
            (&[1, 0], 0, None),
            (&[2, 0], 0, Some(1)),
            (&[2, 9], 0, None),
            (&[9, 2], 1, None),
            (&[112, 100], 0, None),
            (&[114, 100], 0, Some(1)),
            (&[0, 9, 0, 1], 1, Some(2)),
            (&[0, 9, 1, 1], 1, Some(0)),
        ] {
            assert_eq!(better_placed(worker, loads.len(), |nth| loads[nth]), to, "{loads:?} {worker}");
        }
    }

    #[test]
    fn however_the_kernel_spreads_them_workers_end_up_even() {
        for spread in [|_| 0, |nth: usize| nth % 7 / 6, |nth: usize| usize::from(nth > 50)] {
            let mut loads = [0_usize; 2];
            for nth in 0..200 {
                let accepts: usize = spread(nth);
                let to = better_placed(accepts, 2, |worker| loads[worker]).unwrap_or(accepts);
                loads[to] += 1;
            }
            assert!(loads[0].abs_diff(loads[1]) <= 2 + 100 / 8, "{loads:?}");
        }
    }

    #[test]
    fn who_has_left_takes_nothing_and_who_is_gone_is_not_counted() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let (crew, mut doors) = Crew::new(2);
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let at = listener.local_addr().unwrap();
            let _clients = [TcpStream::connect(at).await.unwrap(), TcpStream::connect(at).await.unwrap()];
            let accepted = async || {
                let (stream, peer) = listener.accept().await.unwrap();
                Accepted { stream, peer: PeerAddr(peer), at: EntrypointAddr(at) }
            };
            let busy = [crew.enter(0), crew.enter(0)];
            assert!(crew.pass(0, accepted().await).is_none());
            assert_eq!(crew.loads(), [2, 1], "it counts from the moment at which it is passed");
            let (_, counted) = doors[1].try_recv().unwrap().take().unwrap();
            drop(counted);
            doors.pop();
            let (_, counted) = crew.pass(0, accepted().await).unwrap();
            assert_eq!(crew.loads(), [3, 0]);
            drop((busy, counted));
            assert_eq!(crew.loads(), [0, 0]);
        });
    }
}
