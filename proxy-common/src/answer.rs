//! What `gate_explain` answers: the whole of what the gate knows about one packet, where the gate itself only lets
//! pass or drops.

/// How judging ended. Numbers are never reused.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Admitted = 1,
    Dropped = 2,
    NotIp = 3,
    NotAHeader = 4,
    NotGuardable = 5,
    LaterFragment = 6,
    NotGuarded = 7,
    /// It would be dropped, were its entrypoint not shadowed.
    Shadowed = 8,
    /// It is admitted, but is a step of a handshake that has to be proved now.
    Unproved = 9,
}

/// The answer to one packet, put in front of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The snapshot that was in force. 0: none.
    pub generation: u64,
    /// An [`Outcome`].
    pub outcome: u32,
    /// A [`DropReason`](crate::verdict::DropReason), if it was dropped.
    pub reason: u32,
    /// Slot among the names of entrypoints, if it was admitted or dropped.
    pub entrypoint: u32,
    /// The list that let it in, if it was admitted.
    pub list: u32,
}

const _: () = assert!(size_of::<Answer>() == 24);

// === impl Outcome ===

impl Outcome {
    pub const ALL: [Self; 9] = [
        Self::Admitted,
        Self::Dropped,
        Self::NotIp,
        Self::NotAHeader,
        Self::NotGuardable,
        Self::LaterFragment,
        Self::NotGuarded,
        Self::Shadowed,
        Self::Unproved,
    ];

    /// `None`: of another version's.
    #[must_use]
    pub fn of_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| *outcome as u32 == number)
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Dropped => "dropped",
            Self::NotIp => "not_ip",
            Self::NotAHeader => "not_a_header",
            Self::NotGuardable => "not_guardable",
            Self::LaterFragment => "later_fragment",
            Self::NotGuarded => "not_guarded",
            Self::Shadowed => "shadowed",
            Self::Unproved => "unproved",
        }
    }
}

// === impl Answer ===

impl Answer {
    pub const BYTES: usize = size_of::<Self>();

    /// As it stands in front of the packet.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        // SAFETY: as many bytes, and any of them are integers.
        unsafe { core::mem::transmute::<[u8; Self::BYTES], Self>(*bytes) }
    }

    #[inline(always)]
    #[must_use]
    pub const fn to_bytes(self) -> [u8; Self::BYTES] {
        // SAFETY: as many bytes, none of which is padding (asserted above).
        unsafe { core::mem::transmute::<Self, [u8; Self::BYTES]>(self) }
    }
}
