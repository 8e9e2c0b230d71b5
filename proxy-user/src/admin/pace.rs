//! Documents about everything take the control side's thread for a while, and every local user may ask for them. Probes run on
//! that thread, too: so one such document is made at a time, and after each there is a rest as long as it took. Whoever asks
//! every few seconds never waits.

use std::time::Duration;

use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until},
};

/// No rest is longer than this, whatever held the last one up.
const LONGEST_REST: Duration = Duration::from_millis(200);

/// When the next one may be made.
static NEXT: Mutex<Option<Instant>> = Mutex::const_new(None);

pub async fn paced<T>(work: impl Future<Output = T>) -> T {
    let mut next = NEXT.lock().await;
    if let Some(at) = *next {
        sleep_until(at).await;
    }
    let began = Instant::now();
    let made = work.await;
    *next = Some(Instant::now() + began.elapsed().min(LONGEST_REST));
    made
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn half_of_the_time_is_left_to_others() {
        let began = Instant::now();
        // A sleep counts from where it is made.
        let work = || paced(async { sleep(Duration::from_millis(20)).await });
        tokio::join!(work(), work(), work());
        assert!(began.elapsed() >= Duration::from_millis(5 * 20), "{:?}", began.elapsed());
    }
}
