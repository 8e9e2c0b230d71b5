//! Puts into force what the names of servers mean now: the running configuration with other addresses, applied as a reload
//! is. New addresses are probed before they get work, and no request meets a change half done.

use std::sync::Arc;

use crate::control::{apply::Fleet, state::ControlState};
use crate::journal::{Kind, Note};

/// After a name was asked for. Most of the time nothing has changed.
pub async fn take(fleet: &mut Fleet, state: &ControlState) {
    let running = fleet.running().load_full();
    if !fleet.names.board.differs_from(&running.config) {
        return;
    }
    let mut config = (*running.config).clone();
    let moved = fleet.names.board.fill(&mut config);
    match fleet.replace(Arc::new(config)).await {
        Ok(()) => {
            state.kernel_is(&fleet.kernel.state);
            for moved in moved {
                tracing::info!(generation = fleet.generation(), "servers changed by DNS: {moved}");
                let message = format!("servers changed by DNS: {moved}");
                Note::new(Kind::ServersResolved, message).generation(fleet.generation()).write();
            }
        }
        // The next answer tries it again.
        Err(fault) => tracing::error!(%fault, "servers changed by DNS, and that could not be put into force"),
    }
}
