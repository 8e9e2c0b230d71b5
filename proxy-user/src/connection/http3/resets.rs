//! Requests of HTTP/3 that a client gives up, and the end of a connection on which there are too many.

use h3::error::Code;
use quinn::VarInt;

use super::count;
use crate::{
    clock::Moment,
    hygiene::{Fault, given_up::Budget},
    request::Caller,
};

/// Ends a connection whose client gives up too many requests.
pub struct Resets {
    connection: quinn::Connection,
    budget: Budget,
}

impl Resets {
    pub fn of(connection: &quinn::Connection, caller: &Caller) -> Self {
        let budget = Budget::of_streams(caller.entrypoint.limits.streams);
        Self { connection: connection.clone(), budget }
    }

    /// The client gave a request up. Those that end with their connection don't count.
    pub fn one_more(&self, caller: &Caller) {
        if self.connection.close_reason().is_none() && self.budget.is_spent_by_one_more(Moment::recent()) {
            count(caller, Fault::Http3Flood);
            let why = VarInt::from_u64(Code::H3_EXCESSIVE_LOAD.value()).unwrap_or(VarInt::MAX);
            self.connection.close(why, b"too many requests were given up");
        }
    }
}
