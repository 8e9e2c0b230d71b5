//! A log on the daemon's own output, for containers.

use std::io::{self, Write};

use super::{Place, Stopped};

pub struct Stdout;

impl Place for Stdout {
    fn write(&mut self, lines: &[u8]) -> Result<(), Stopped> {
        let written = io::stdout().lock().write_all(lines).and_then(|()| io::stdout().flush());
        written.map_err(|error| Stopped { done: 0, error })
    }
}
