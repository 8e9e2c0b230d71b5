//! How long peers may take: one ticker per worker looks at all that wait, instead of a timer for each.
//!
//! Waiting and going on costs a few stores and no allocation; clocks are as precise as the ticker, which is plenty for
//! limits of seconds.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::clock::Moment;

/// No deadline.
const NEVER: u64 = u64::MAX;

/// All that a worker waits for.
#[derive(Debug, Default)]
pub struct Patience {
    now: Cell<Moment>,
    stalls: RefCell<Places>,
}

#[derive(Debug, Default)]
struct Places {
    taken: Vec<Option<Stalled>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Stalled {
    due: u64,
    waker: Waker,
}

/// Watches one side of something that should move: for how long it has not.
#[derive(Debug)]
pub struct Stall {
    room: Rc<Patience>,
    limit: Duration,
    place: Option<usize>,
}

// === impl Patience ===

impl Patience {
    /// What the time is. Called at every tick: waiting begins with it.
    pub fn tick(&self, now: Moment) {
        self.now.set(now);
    }

    /// Wakes everybody whose time has come. They may be many: called at some of the ticks.
    pub fn look(&self) {
        let now = self.now.get();
        let due: Vec<Waker> = self
            .stalls
            .borrow()
            .taken
            .iter()
            .flatten()
            .filter(|stalled| now.0 >= stalled.due)
            .map(|stalled| stalled.waker.clone())
            .collect();
        // Outside of the borrow: a waker may run code of its own.
        due.into_iter().for_each(Waker::wake);
    }
}

impl Places {
    fn put(&mut self, stalled: Stalled) -> usize {
        match self.free.pop() {
            Some(place) => {
                self.taken[place] = Some(stalled);
                place
            }
            None => {
                self.taken.push(Some(stalled));
                self.taken.len() - 1
            }
        }
    }
}

// === impl Stall ===

impl Stall {
    pub fn new(room: Rc<Patience>, limit: Duration) -> Self {
        Self { room, limit, place: None }
    }

    /// Something moved.
    pub fn moves(&mut self) {
        if let Some(stalled) = self.stalled(&mut self.room.stalls.borrow_mut()) {
            stalled.due = NEVER;
        }
    }

    /// Something moved, and what comes next may take so long.
    pub fn begins(&mut self, limit: Duration) {
        self.moves();
        self.limit = limit;
    }

    /// Waits for `what`, unless nothing of it moves for too long.
    pub async fn watch<T>(&mut self, what: impl Future<Output = T>) -> Option<T> {
        let mut what = pin!(what);
        poll_fn(|cx| {
            if let Poll::Ready(done) = what.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            // Woken for nothing by the ticker, it is over; woken by anything else, its time begins anew.
            if self.is_over(cx) {
                return Poll::Ready(None);
            }
            self.moves();
            let _ = self.is_over(cx);
            Poll::Pending
        })
        .await
    }

    /// Nothing moves; whether that has gone on for too long. The task is woken when it has.
    pub fn is_over(&mut self, cx: &Context<'_>) -> bool {
        let now = self.room.now.get();
        let mut stalls = self.room.stalls.borrow_mut();
        match self.stalled(&mut stalls) {
            None => {
                let due = now.after(self.limit).0;
                self.place = Some(stalls.put(Stalled { due, waker: cx.waker().clone() }));
                false
            }
            Some(stalled) => {
                if stalled.due == NEVER {
                    stalled.due = now.after(self.limit).0;
                }
                stalled.waker.clone_from(cx.waker());
                now.0 >= stalled.due
            }
        }
    }

    fn stalled<'a>(&self, stalls: &'a mut Places) -> Option<&'a mut Stalled> {
        self.place.and_then(|place| stalls.taken[place].as_mut())
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let mut stalls = self.room.stalls.borrow_mut();
            stalls.taken[place] = None;
            stalls.free.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Wake, Waker},
    };

    use super::*;

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_stall_is_over_at_its_limit_and_moving_begins_it_anew() {
        let room = Rc::new(Patience::default());
        let woken = Arc::new(Counting::default());
        let waker = Waker::from(woken.clone());
        let cx = Context::from_waker(&waker);
        let wakes = || woken.0.swap(0, Ordering::Relaxed);
        let mut stall = Stall::new(room.clone(), Duration::from_secs(1));
        assert!(!stall.is_over(&cx));
        room.tick(Moment(999));
        room.look();
        assert!(!stall.is_over(&cx));
        assert_eq!(wakes(), 0);
        room.tick(Moment(1000));
        room.look();
        assert_eq!(wakes(), 1);
        assert!(stall.is_over(&cx));
        stall.moves();
        room.tick(Moment(5000));
        room.look();
        assert_eq!(wakes(), 0, "what moves is not waited for");
        assert!(!stall.is_over(&cx));
        stall.begins(Duration::from_secs(2));
        assert!(!stall.is_over(&cx));
        room.tick(Moment(6999));
        room.look();
        assert!(!stall.is_over(&cx));
        room.tick(Moment(7000));
        room.look();
        assert!(stall.is_over(&cx));
        drop(stall);
        assert!(room.stalls.borrow().taken.iter().all(Option::is_none));
    }
}
