//! How long peers may take: one ticker per worker looks at all that wait, instead of a timer for each.
//!
//! Waiting and going on costs a few stores and no allocation; clocks are as precise as the ticker, which is plenty for
//! limits of seconds.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::pin,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::{clock::Moment, hygiene::stream::Link};

/// No deadline.
const NEVER: u64 = u64::MAX;

/// The deadlines of a connection, which may move between tasks (after a switch of protocols).
#[derive(Debug)]
pub struct Watch {
    reading: AtomicU64,
    writing: AtomicU64,
    waker: Mutex<Option<Waker>>,
}

/// All that a worker watches.
#[derive(Debug, Default)]
pub struct Patience {
    now: Cell<Moment>,
    watches: RefCell<Places<Arc<Link>>>,
    stalls: RefCell<Places<Stalled>>,
}

#[derive(Debug)]
struct Places<T> {
    taken: Vec<Option<T>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Stalled {
    due: u64,
    waker: Waker,
}

/// Has a [`Watch`] looked after until it is dropped.
#[derive(Debug)]
pub struct Attended {
    room: Rc<Patience>,
    place: usize,
}

/// Watches one direction of one exchange: how long nothing has moved.
#[derive(Debug)]
pub struct Stall {
    room: Rc<Patience>,
    limit: Duration,
    place: Option<usize>,
}

// === impl Watch ===

impl Default for Watch {
    fn default() -> Self {
        Self { reading: AtomicU64::new(NEVER), writing: AtomicU64::new(NEVER), waker: Mutex::new(None) }
    }
}

impl Watch {
    /// The owner waits to read, until `due`; it is woken then.
    pub fn waits_to_read(&self, due: Moment, cx: &Context<'_>) {
        self.wake_me(cx);
        self.reading.store(due.0, Ordering::Relaxed);
    }

    pub fn reads(&self) {
        self.reading.store(NEVER, Ordering::Relaxed);
    }

    /// The owner waits to write, until `due`; it is woken then.
    pub fn waits_to_write(&self, due: Moment, cx: &Context<'_>) {
        self.wake_me(cx);
        self.writing.store(due.0, Ordering::Relaxed);
    }

    pub fn writes(&self) {
        self.writing.store(NEVER, Ordering::Relaxed);
    }

    /// Remembers whom to wake.
    pub fn wake_me(&self, cx: &Context<'_>) {
        let mut waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *waker {
            Some(known) => known.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    pub fn wake(&self) {
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn is_due(&self, now: Moment) -> bool {
        now.0 >= self.reading.load(Ordering::Relaxed).min(self.writing.load(Ordering::Relaxed))
    }
}

// === impl Patience ===

impl Patience {
    /// As of the last look.
    pub fn now(&self) -> Moment {
        self.now.get()
    }

    pub fn attend(self: &Rc<Self>, link: Arc<Link>) -> Attended {
        Attended { room: self.clone(), place: self.watches.borrow_mut().put(link) }
    }

    /// Wakes everybody whose time has come. Called at every tick; `all`, at some of them, looks at connections too,
    /// which may be many.
    pub fn look(&self, now: Moment, all: bool) {
        self.now.set(now);
        let mut wake: Vec<Waker> = Vec::new();
        for stalled in self.stalls.borrow().taken.iter().flatten() {
            if now.0 >= stalled.due {
                wake.push(stalled.waker.clone());
            }
        }
        let due: Vec<_> = if all {
            self.watches
                .borrow()
                .taken
                .iter()
                .flatten()
                .filter(|link| link.watch.is_due(now))
                .cloned()
                .collect()
        } else {
            Vec::new()
        };
        // Outside of the borrows: a waker may run code of its own.
        due.iter().for_each(|link| link.watch.wake());
        wake.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        self.room.watches.borrow_mut().clear(self.place);
    }
}

// === impl Places ===

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self { taken: Vec::new(), free: Vec::new() }
    }
}

impl<T> Places<T> {
    fn put(&mut self, one: T) -> usize {
        match self.free.pop() {
            Some(place) => {
                self.taken[place] = Some(one);
                place
            }
            None => {
                self.taken.push(Some(one));
                self.taken.len() - 1
            }
        }
    }

    fn clear(&mut self, place: usize) {
        self.taken[place] = None;
        self.free.push(place);
    }
}

// === impl Stall ===

impl Stall {
    pub fn new(room: Rc<Patience>, limit: Duration) -> Self {
        Self { room, limit, place: None }
    }

    /// Something moved.
    pub fn moves(&mut self) {
        if let Some(place) = self.place.take() {
            self.room.stalls.borrow_mut().clear(place);
        }
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
        let now = self.room.now();
        let mut stalls = self.room.stalls.borrow_mut();
        match self.place {
            None => {
                let due = now.0.saturating_add(millis(self.limit));
                self.place = Some(stalls.put(Stalled { due, waker: cx.waker().clone() }));
                false
            }
            Some(place) => match &mut stalls.taken[place] {
                Some(stalled) => {
                    stalled.waker.clone_from(cx.waker());
                    now.0 >= stalled.due
                }
                None => false,
            },
        }
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        self.moves();
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::AtomicUsize,
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
        let mut stall = Stall::new(room.clone(), Duration::from_secs(1));
        assert!(!stall.is_over(&cx));
        room.look(Moment(999), false);
        assert!(!stall.is_over(&cx));
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        room.look(Moment(1000), false);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(stall.is_over(&cx));
        stall.moves();
        assert!(!stall.is_over(&cx));
        drop(stall);
        assert!(room.stalls.borrow().taken.iter().all(Option::is_none));
    }

    #[test]
    fn a_watch_wakes_its_owner_for_either_direction() {
        let room = Rc::new(Patience::default());
        let woken = Arc::new(Counting::default());
        let waker = Waker::from(woken.clone());
        let cx = Context::from_waker(&waker);
        let link = Arc::new(Link::default());
        let (watch, attended) = (&link.watch, room.attend(link.clone()));
        let wakes = || woken.0.swap(0, Ordering::Relaxed);
        watch.waits_to_read(Moment(10), &cx);
        watch.waits_to_write(Moment(20), &cx);
        room.look(Moment(9), true);
        assert_eq!(wakes(), 0);
        room.look(Moment(10), true);
        assert_eq!(wakes(), 1);
        watch.reads();
        room.look(Moment(19), true);
        assert_eq!(wakes(), 0);
        room.look(Moment(20), true);
        assert_eq!(wakes(), 1);
        drop(attended);
        room.look(Moment(30), true);
        assert_eq!(wakes(), 0);
    }
}
