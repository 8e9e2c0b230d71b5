//! `[service.NAME] pool`

use super::{
    merge::Item,
    scalar::{self, HOUR, MILLISECOND},
};
use crate::config::{code::Code, default, findings::Findings, model::Pool, written};

pub fn pool(item: &Item<'_, written::Service>, findings: &mut Findings) -> Pool {
    let (file, name) = (item.file, &item.name.value);
    let written = item.body.pool.as_ref().map(|pool| &pool.value);
    let what = |key: &str| format!("service `{name}`: pool.{key}");
    let mut count = |key, written, default, most| {
        scalar::count(file, &what(key), written, default, 0..=most, findings) as usize
    };
    let (idle_written, warm_written) =
        (written.and_then(|pool| pool.idle.as_ref()), written.and_then(|pool| pool.warm.as_ref()));
    let idle = count("idle", idle_written, default::POOL_IDLE, 10_000);
    let warm = count("warm", warm_written, default::POOL_WARM, 1000);
    let idle_timeout = scalar::duration(
        file,
        &what("idle_timeout"),
        written.and_then(|pool| pool.idle_timeout.as_ref()),
        default::POOL_IDLE_TIMEOUT,
        100 * MILLISECOND..=HOUR,
        findings,
    );
    if let Some(written) = warm_written.filter(|_| warm > 0) {
        if warm > idle {
            let message = format!("{} is {warm}, but only {idle} connections are kept", what("warm"));
            findings
                .error(Code::Contradiction, file, &written.span, message)
                .hint("`warm` can't be more than `idle`");
        }
        if item.body.send_proxy.is_some() {
            let message = format!(
                "service `{name}` opens connections ahead, but `send_proxy` makes each of them one client's own"
            );
            findings
                .error(Code::Contradiction, file, &written.span, message)
                .hint("take `warm` or `send_proxy` out");
        }
    }
    Pool { warm: warm.min(idle), idle, idle_timeout }
}
