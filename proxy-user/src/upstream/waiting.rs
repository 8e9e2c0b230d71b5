//! The requests of a worker that wait for the first byte of an answer.
//!
//! Instead of a timer for each request, one ticker per worker looks at all of them every [`TICK`]: it raises the
//! suspicion when a server has been silent too long, and releases the requests that wait in vain. Entering and
//! leaving is the hot path and costs no allocation and no clock.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use crate::{
    clock::Moment,
    health::{Health, Status},
};

/// How often the ticker looks.
pub const TICK: Duration = Duration::from_millis(25);

/// When a request has waited this long (in ms), and nothing came from its server for as long, it is probed.
pub const SUSPICION_MS: u64 = 150;

/// Why a request need not wait any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GaveUp {
    /// The server was taken out because it fell silent.
    ServerSilent,
    /// The server was taken out, and the request has somewhere else to go.
    ServerDown,
    /// The service's `first_byte` timeout passed.
    FirstByteTimeout,
}

#[derive(Debug, Default)]
pub struct WaitingRoom {
    seats: RefCell<Seats>,
    /// As of the last look: precise enough for waits of many ticks, and free.
    now: Cell<Moment>,
}

#[derive(Debug, Default)]
struct Seats {
    seats: Vec<Option<Seat>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Seat {
    health: Arc<Health>,
    since: Moment,
    silences: u32,
    first_byte_ms: u64,
    /// The server is out; it was when the wait began, or whoever waits has been told.
    out: bool,
    told: bool,
    waker: Option<Waker>,
    gave_up: Option<GaveUp>,
}

/// Leaves the room when dropped.
struct Ticket<'a> {
    room: &'a WaitingRoom,
    seat: usize,
}

impl WaitingRoom {
    /// Waits for `answer`, unless the ticker finds that there is no sense in it: since the server was picked it has
    /// fallen silent more than `silences` times, or `first_byte` has passed, or it was taken out for whatever reason and
    /// the request `can_leave`. One that can't stays: a server that is told to stop finishes what it has.
    pub async fn wait<F: Future>(
        &self,
        health: &Arc<Health>,
        silences: u32,
        first_byte: Duration,
        can_leave: impl Fn() -> bool,
        answer: F,
    ) -> Result<F::Output, GaveUp> {
        let ticket = self.enter(health, silences, first_byte);
        let mut answer = pin!(answer);
        poll_fn(|cx| {
            if let Poll::Ready(output) = answer.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            let mut seats = self.seats.borrow_mut();
            let Some(seat) = seats.seats[ticket.seat].as_mut() else { return Poll::Pending };
            match seat.gave_up {
                Some(why) => Poll::Ready(Err(why)),
                None if seat.told && can_leave() => Poll::Ready(Err(GaveUp::ServerDown)),
                None => {
                    match &mut seat.waker {
                        Some(waker) => waker.clone_from(cx.waker()),
                        none => *none = Some(cx.waker().clone()),
                    }
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Looks at everybody who waits. Called every [`TICK`].
    pub fn look(&self, now: Moment) {
        self.now.set(now);
        let mut wake = Vec::new();
        for seat in self.seats.borrow_mut().seats.iter_mut().flatten() {
            if seat.gave_up.is_some() {
                continue;
            }
            seat.gave_up = if seat.health.silences() != seat.silences {
                Some(GaveUp::ServerSilent)
            } else if now.since(seat.since) >= seat.first_byte_ms {
                Some(GaveUp::FirstByteTimeout)
            } else {
                let heard = seat.health.last_byte().max(seat.since);
                if now.since(heard) >= SUSPICION_MS {
                    seat.health.suspect();
                }
                None
            };
            if !seat.out && seat.health.status() == Status::Down {
                (seat.out, seat.told) = (true, true);
                wake.extend(seat.waker.take());
            } else if seat.gave_up.is_some() {
                wake.extend(seat.waker.take());
            }
        }
        // Outside of the borrow: a waker may run code of its own.
        wake.into_iter().for_each(Waker::wake);
    }

    fn enter(&self, health: &Arc<Health>, silences: u32, first_byte: Duration) -> Ticket<'_> {
        let seat = Seat {
            health: health.clone(),
            since: self.now.get(),
            silences,
            out: health.status() == Status::Down,
            told: false,
            first_byte_ms: u64::try_from(first_byte.as_millis()).unwrap_or(u64::MAX),
            waker: None,
            gave_up: None,
        };
        let mut seats = self.seats.borrow_mut();
        let index = match seats.free.pop() {
            Some(index) => {
                seats.seats[index] = Some(seat);
                index
            }
            None => {
                seats.seats.push(Some(seat));
                seats.seats.len() - 1
            }
        };
        Ticket { room: self, seat: index }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut seats = self.room.seats.borrow_mut();
        seats.seats[self.seat] = None;
        seats.free.push(self.seat);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::pending, task::Context};

    const MINUTE: Duration = Duration::from_secs(60);

    /// Polls once; the waker does nothing, since the tests poll by hand.
    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn an_answer_comes_through() {
        let (room, health) = (WaitingRoom::default(), Arc::new(Health::new(Status::Up)));
        let waiting = pin!(room.wait(&health, 0, MINUTE, || false, async { 7 }));
        assert_eq!(poll(waiting), Poll::Ready(Ok(7)));
    }

    #[test]
    fn waiting_ends_at_the_first_byte_timeout() {
        let (room, health) = (WaitingRoom::default(), Arc::new(Health::new(Status::Up)));
        let mut waiting = pin!(room.wait(&health, 0, MINUTE, || false, pending::<()>()));
        assert!(poll(waiting.as_mut()).is_pending());
        room.look(Moment(59_999));
        assert!(poll(waiting.as_mut()).is_pending());
        room.look(Moment(60_000));
        assert_eq!(poll(waiting), Poll::Ready(Err(GaveUp::FirstByteTimeout)));
    }

    #[test]
    fn waiting_ends_when_the_server_was_taken_out_for_its_silence() {
        let (room, health) = (WaitingRoom::default(), Arc::new(Health::new(Status::Up)));
        let mut waiting = pin!(room.wait(&health, 0, MINUTE, || false, pending::<()>()));
        assert!(poll(waiting.as_mut()).is_pending());
        health.change(Status::Down, true, "no answer".into());
        room.look(Moment(1));
        assert_eq!(poll(waiting), Poll::Ready(Err(GaveUp::ServerSilent)));
    }

    #[test]
    fn whoever_can_go_elsewhere_leaves_a_server_that_was_taken_out_and_others_stay() {
        let (room, health) = (WaitingRoom::default(), Arc::new(Health::new(Status::Up)));
        let mut leaving = pin!(room.wait(&health, 0, MINUTE, || true, pending::<()>()));
        let mut staying = pin!(room.wait(&health, 0, MINUTE, || false, pending::<()>()));
        assert!(poll(leaving.as_mut()).is_pending() && poll(staying.as_mut()).is_pending());
        health.change(Status::Down, false, "refused".into());
        // It was asked for all the same, since no other was left.
        let mut asked_down = pin!(room.wait(&health, 0, MINUTE, || true, pending::<()>()));
        assert!(poll(asked_down.as_mut()).is_pending());
        room.look(Moment(1));
        assert_eq!(poll(leaving), Poll::Ready(Err(GaveUp::ServerDown)));
        assert!(poll(staying.as_mut()).is_pending() && poll(asked_down.as_mut()).is_pending());
        room.look(Moment(60_000));
        assert_eq!(poll(staying), Poll::Ready(Err(GaveUp::FirstByteTimeout)));
    }

    #[test]
    fn a_long_wait_on_a_silent_server_raises_suspicion_and_a_talking_server_does_not() {
        let (room, health) = (WaitingRoom::default(), Arc::new(Health::new(Status::Up)));
        let mut waiting = pin!(room.wait(&health, 0, MINUTE, || false, pending::<()>()));
        assert!(poll(waiting.as_mut()).is_pending());
        health.heard(Moment(150));
        room.look(Moment(SUSPICION_MS + 149));
        assert!(!health.is_suspected());
        room.look(Moment(SUSPICION_MS + 150));
        assert!(health.is_suspected());
    }

    #[test]
    fn seats_are_used_again() {
        let (room, health) = (WaitingRoom::default(), Arc::new(Health::new(Status::Up)));
        for _ in 0..3 {
            let mut waiting = pin!(room.wait(&health, 0, MINUTE, || false, pending::<()>()));
            assert!(poll(waiting.as_mut()).is_pending());
        }
        assert_eq!(room.seats.borrow().seats.len(), 1);
    }
}
