//! What may happen to a server, and how it is brought about and mended.

use std::{thread::sleep, time::Duration};

use crate::{
    lab::{Lab, server::Server},
    upstream::Mood,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed: its port is closed, its connections are reset.
    Refused,
    /// It accepts, and resets whoever asks.
    Reset,
    /// The process stands still: its kernel accepts and acknowledges.
    Hang,
    /// Nothing comes from the host any more.
    Gone,
    /// It answers everything with 503.
    Unavailable,
    /// It is killed and comes back: it accepts at once, and answers only later.
    SlowStart,
    /// It is killed and comes back, again and again.
    Flapping,
}

/// How long a fault lasts.
const LASTS: Duration = Duration::from_secs(2);

const FLAPS: usize = 3;

/// One state of a server that flaps.
const FLAP: Duration = Duration::from_millis(600);

impl Fault {
    pub const ALL: [Self; 7] = [
        Self::Refused,
        Self::Reset,
        Self::Hang,
        Self::Gone,
        Self::Unavailable,
        Self::SlowStart,
        Self::Flapping,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Hang => "hang of the application",
            Self::Gone => "host gone",
            Self::Unavailable => "503",
            Self::SlowStart => "slow start-up",
            Self::Flapping => "flapping",
        }
    }

    /// Brings it about; what follows is measured from when this returns.
    pub fn begin(self, lab: &Lab, server: &mut Server) -> anyhow::Result<()> {
        match self {
            Self::Refused | Self::Flapping => server.kill(),
            Self::Reset => server.be(lab, Mood::Reset),
            Self::Hang => server.hang(),
            Self::Gone => server.vanish(lab),
            Self::Unavailable => server.be(lab, Mood::Unavailable),
            Self::SlowStart => {
                server.kill()?;
                server.start_again_in(lab, Mood::Hang)
            }
        }
    }

    /// Goes on with it for its time, then mends it: the server is well when this returns.
    pub fn last(self, lab: &Lab, server: &mut Server) -> anyhow::Result<()> {
        if self == Self::Flapping {
            for flap in 0..FLAPS {
                sleep(FLAP);
                server.start_again(lab)?;
                if flap + 1 < FLAPS {
                    sleep(FLAP);
                    server.kill()?;
                }
            }
            return Ok(());
        }
        sleep(LASTS);
        match self {
            Self::Refused | Self::Flapping => server.start_again(lab),
            Self::Hang => server.resume(),
            Self::Gone => server.appear(lab),
            Self::Reset | Self::Unavailable | Self::SlowStart => server.be(lab, Mood::Fine),
        }
    }
}
