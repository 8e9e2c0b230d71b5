//! A limit on what others do, kept by somebody who may be late himself.
//!
//! A thousand servers are probed by one thread, and on a starved host that thread runs now and then. An answer that came in
//! time and was read too late must not count as none. So a limit is spent in slices, each of which counts as what it was
//! meant to last, however late its end is noticed, and at the end there is one more look. Who really says nothing is given up
//! as soon as ever where this thread runs on time.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use tokio::{task::yield_now, time::timeout};

/// What a late moment costs the other side at most is a slice.
const SLICES: u32 = 8;

/// However starved: nobody waits longer than so many times the limit.
const MOST: u32 = 8;

/// `None`: its time is over.
pub async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let began = Instant::now();
    let mut left = limit;
    while !left.is_zero() && began.elapsed() < limit.saturating_mul(MOST) {
        let slice = (limit / SLICES).max(Duration::from_millis(1)).min(left);
        if let Ok(done) = timeout(slice, &mut work).await {
            return Some(done);
        }
        left -= slice;
    }
    // What came meanwhile is known to the kernel; behind the others' turn it is known here.
    yield_now().await;
    timeout(Duration::ZERO, work).await.ok()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use tokio::{
        runtime::{Builder, LocalOptions},
        sync::oneshot,
        task::spawn_local,
    };

    use super::*;

    const LIMIT: Duration = Duration::from_millis(100);

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        runtime.unwrap().block_on(future)
    }

    /// Asks four times, one after the other, somebody who answers at once, on a thread of their own.
    async fn conversation() -> &'static str {
        for _ in 0..4 {
            let (answer, asked) = oneshot::channel();
            thread::spawn(move || answer.send(()));
            asked.await.unwrap();
        }
        "well"
    }

    /// Has the thread to itself again and again, for most of a limit at a time.
    async fn busy() {
        loop {
            thread::sleep(LIMIT * 6 / 10);
            yield_now().await;
        }
    }

    #[test]
    fn who_answers_in_time_is_heard_however_busy_this_thread_is() {
        let heard = block_on(async {
            spawn_local(busy());
            within(LIMIT, conversation()).await
        });
        assert_eq!(heard, Some("well"));
    }

    #[test]
    fn who_says_nothing_is_given_up_in_time() {
        let began = Instant::now();
        assert_eq!(block_on(within(LIMIT, std::future::pending::<()>())), None);
        assert!(began.elapsed() >= LIMIT, "{:?}", began.elapsed());
    }

    #[test]
    fn no_thread_is_so_busy_that_a_limit_has_no_end() {
        let began = Instant::now();
        let heard = block_on(async {
            spawn_local(busy());
            within(LIMIT, std::future::pending::<()>()).await
        });
        assert_eq!(heard, None);
        // The last slice, and the last look, are noticed late.
        assert!(began.elapsed() < LIMIT * 30, "{:?}", began.elapsed());
    }
}
