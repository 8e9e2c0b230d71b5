//! The Date field of answers whose server left it out: written once a second and worker.

use std::{cell::RefCell, time::SystemTime};

use http::HeaderValue;

thread_local! {
    static LAST: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
}

/// What the time is, as HTTP writes it.
pub fn now() -> HeaderValue {
    at(SystemTime::now())
}

fn at(now: SystemTime) -> HeaderValue {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|(of, text)| {
        if *of != seconds
            && let Some(written) = written(now)
        {
            (*of, *text) = (seconds, written);
        }
        text.clone()
    })
}

fn written(now: SystemTime) -> Option<HeaderValue> {
    let now = jiff::Timestamp::try_from(now).ok()?;
    HeaderValue::try_from(now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_date_is_written_as_http_writes_it_and_anew_each_second() {
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(at(then), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(at(then + Duration::from_millis(999)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(at(then + Duration::from_secs(1)), "Sun, 06 Nov 1994 08:49:38 GMT");
    }
}
