//! Whether SYN cookies can be had here, and what the gate knows of floods.
//!
//! Three things can be in the way: a kernel whose functions for it are missing, the setting of the network namespace that
//! has listeners refuse cookies, and an interface that isn't served at XDP. None of them is a fault: listeners defend
//! themselves as they would without Weir.

use std::{fs, time::Duration};

use aya::{
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
};
use nix::time::{ClockId, clock_gettime};
use proxy_common::{scope::protect, syn_flood::Flood};
use serde::Serialize;

use super::attach::Programs;
use crate::config::model::{SynCookies, SynCookiesMode};

/// Where the network namespace says whether listeners take cookies: 0 never, 1 when their queue has overflowed, 2 always.
const SETTING: &str = "/proc/sys/net/ipv4/tcp_syncookies";

/// What the newest of the functions that the gate calls is for: whoever has it has the others.
const HELPERS: [BpfHelper; 4] = [
    BpfHelper::BPF_FUNC_tcp_raw_gen_syncookie_ipv4,
    BpfHelper::BPF_FUNC_tcp_raw_check_syncookie_ipv6,
    BpfHelper::BPF_FUNC_tcp_gen_syncookie,
    BpfHelper::BPF_FUNC_check_mtu,
];

/// What is known of floods of an entrypoint that has handshakes proved.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, utoipa::ToSchema)]
pub struct FloodStatus {
    /// At any time, and not only during a flood.
    pub always: bool,
    /// From so many SYNs a second on it is a flood.
    pub from: u64,
    /// Also from a CDN's addresses.
    pub of_cdn: bool,
    /// It is asked for, and not done: see [`why_not`].
    pub off: bool,
    /// There is a flood now.
    pub active: bool,
    /// How long ago the present flood or the last one began. `None`: there was none.
    pub began_seconds_ago: Option<f64>,
}

/// Whether a program that makes them can be loaded.
pub(super) fn kernel_has_them() -> bool {
    HELPERS.into_iter().all(|helper| is_helper_supported(ProgramType::Xdp, helper).unwrap_or(false))
}

/// Why handshakes can't be proved, though somebody asks for it.
pub(super) fn off(programs: &Programs) -> Option<String> {
    programs.no_proof().map(str::to_owned).or_else(why_not)
}

/// What is said where [`kernel_has_them`] doesn't hold.
pub const NO_HELPERS: &str =
    "this kernel has no functions for it (it needs Linux 6.0 or newer, with CONFIG_SYN_COOKIES)";

/// As far as the network namespace of this process is concerned.
#[must_use]
pub fn why_not() -> Option<String> {
    match fs::read_to_string(SETTING) {
        Ok(setting) if setting.trim() == "0" => Some(
            "net.ipv4.tcp_syncookies is 0, so that no listener takes a cookie; set it to 1, `sysctl -w \
             net.ipv4.tcp_syncookies=1`, and reload"
                .to_owned(),
        ),
        Ok(_) => None,
        Err(error) => Some(format!("{SETTING} can't be read ({error}): is this kernel without SYN cookies?")),
    }
}

/// An entrypoint's flags in its policy.
pub(super) const fn flags(asked: SynCookies) -> u8 {
    let mode = match asked.mode {
        SynCookiesMode::Off => return 0,
        SynCookiesMode::Auto => protect::SYN_COOKIES,
        SynCookiesMode::Always => protect::SYN_COOKIES | protect::SYN_COOKIES_ALWAYS,
    };
    if asked.cdn { mode | protect::SYN_COOKIES_OF_CDN } else { mode }
}

/// From how many SYNs a second on. 0: never.
pub(super) fn threshold(asked: SynCookies) -> u64 {
    if asked.mode == SynCookiesMode::Off { 0 } else { asked.from.into() }
}

/// `None`: nobody asks for cookies there.
pub(super) fn status(flood: &Flood, flags: u8) -> Option<FloodStatus> {
    if flood.from == 0 {
        return None;
    }
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    let began = (flood.active_since != 0).then(|| now.saturating_sub(flood.active_since));
    Some(FloodStatus {
        always: flags & protect::SYN_COOKIES_ALWAYS != 0,
        from: flood.from,
        of_cdn: flags & protect::SYN_COOKIES_OF_CDN != 0,
        off: flags & protect::SYN_COOKIES == 0,
        active: flood.active_until >= now,
        began_seconds_ago: began.map(|ago| Duration::from_nanos(ago).as_secs_f64()),
    })
}
