//! Waiting on state, with a bound and a sentence for when it doesn't come.

use std::time::{Duration, Instant};

use anyhow::bail;

/// How often a state is looked at.
const EVERY: Duration = Duration::from_millis(5);

/// Looks until there is something. Errors of the look end the wait: what may fail for a while is the look's
/// own business to turn into `None`.
pub fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    // An emulated machine takes its time, for the kernel's verifier above all.
    let within = if std::env::var_os("WEIR_TEST_IN_VM").is_some() { within * 12 } else { within };
    let begun = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if begun.elapsed() > within {
            bail!("waited {within:?} in vain until: {what}");
        }
        std::thread::sleep(EVERY);
    }
}

/// Looks until it holds.
pub fn until_true(
    what: &str,
    within: Duration,
    mut holds: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    until(what, within, || Ok(holds()?.then_some(())))
}
