//! What a client's connection and its requests tell each other: why a client is let go that doesn't leave by itself.

use std::cell::Cell;

use super::Fault;

#[derive(Debug, Default)]
pub struct Link {
    letting_go: Cell<Option<Fault>>,
}

impl Link {
    /// Lets go of a request, for this fault: whatever ends in `work` ends for it.
    pub fn let_go<T>(&self, fault: Fault, work: impl FnOnce() -> T) -> T {
        self.letting_go.set(Some(fault));
        let done = work();
        self.letting_go.set(None);
        done
    }

    /// Why a client is let go at this moment. `None`: it leaves by itself.
    pub fn why_let_go(&self) -> Option<Fault> {
        self.letting_go.get()
    }
}
