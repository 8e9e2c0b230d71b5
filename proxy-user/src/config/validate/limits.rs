//! `limits = { … }` of an entrypoint.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    merge::Item,
    scalar::{self, DAY, HOUR, SECOND},
};
use crate::config::{
    default,
    findings::Findings,
    model::Limits,
    written::{self, At},
};

const KIB: u64 = 1024;

pub fn limits(item: &Item<'_, written::Entrypoint>, findings: &mut Findings) -> Limits {
    let file = item.file;
    let none = written::Limits::default();
    let body = item.body.limits.as_ref().map_or(&none, |limits| &limits.value);
    let what = |key: &str| format!("entrypoint `{}`: limits.{key}", item.name.value);
    let mut time =
        |key: &str, written: &Option<At<String>>, default: &str, range: RangeInclusive<Duration>| {
            scalar::duration(file, &what(key), written.as_ref(), default, range, findings)
        };
    let head_time = time("head_time", &body.head_time, default::LIMIT_HEAD_TIME, SECOND..=HOUR);
    let body_idle = time("body_idle", &body.body_idle, default::LIMIT_BODY_IDLE, SECOND..=DAY);
    let stream_idle = time("stream_idle", &body.stream_idle, default::LIMIT_STREAM_IDLE, SECOND..=30 * DAY);
    let keep_alive = time("keep_alive", &body.keep_alive, default::LIMIT_KEEP_ALIVE, SECOND..=DAY);
    let size = KIB..=KIB * KIB;
    let head = scalar::size(file, &what("head"), body.head.as_ref(), default::LIMIT_HEAD, size, findings);
    let mut count = |key: &str, written: &Option<At<i64>>, default: u32, range: RangeInclusive<u32>| {
        scalar::count(file, &what(key), written.as_ref(), default, range, findings)
    };
    let some = |limit: u32| Some(limit).filter(|limit| *limit > 0);
    let most = 10_000_000;
    Limits {
        fields: count("fields", &body.fields, default::LIMIT_FIELDS, 10..=1000) as usize,
        head: usize::try_from(head).unwrap_or(usize::MAX),
        head_time,
        body_idle,
        stream_idle,
        keep_alive,
        streams: count("streams", &body.streams, default::LIMIT_STREAMS, 1..=10_000),
        connections: some(count("connections", &body.connections, default::LIMIT_CONNECTIONS, 0..=most)),
        connections_per_client: some(count(
            "connections_per_client",
            &body.connections_per_client,
            default::LIMIT_CONNECTIONS_PER_CLIENT,
            0..=most,
        )),
    }
}
