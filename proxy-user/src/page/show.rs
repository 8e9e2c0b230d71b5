//! A page takes the place of a server's answer: from its service where it has one that answers, else from memory.

use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Response, header};

use super::{Occasion, Page, Reader, Taste, Told, why::Why};
use crate::{access_log::Exchange, routing, snapshot::Snapshot, upstream::attempt::Means};

/// The page for a request that is under maintenance; `None`: it goes on. `path` is decoded.
pub async fn maintained(
    snapshot: &Snapshot,
    means: Means<'_>,
    reader: &Reader,
    path: &str,
    client: std::net::IpAddr,
    exchange: &mut Exchange,
) -> Option<Response<Bytes>> {
    let plan = snapshot.maintenance.plan();
    let host = exchange.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
    let host = routing::canonical(host);
    let route = exchange.route.as_deref().unwrap_or_default();
    let now = jiff::Timestamp::try_from(SystemTime::now()).ok()?;
    let window = plan.holding(route, &host, path, client, now)?;
    let occasion = Occasion { status: None, left: window.left(now) };
    let page = snapshot.page(&window.page);
    Some(show(page, Why::Maintenance, occasion, snapshot, means, reader, exchange).await)
}

/// What the client gets.
pub async fn show(
    page: &Page,
    why: Why,
    occasion: Occasion,
    snapshot: &Snapshot,
    means: Means<'_>,
    reader: &Reader,
    exchange: &mut Exchange,
) -> Response<Bytes> {
    exchange.flags.page = Some(why);
    let begun = exchange.trace.as_ref().filter(|trace| trace.is_sampled()).map(|_| Instant::now());
    let response = shown(page, why, occasion, snapshot, means, reader, exchange).await;
    if let (Some(begun), Some(trace)) = (begun, &mut exchange.trace) {
        trace.page(begun, why);
    }
    response
}

async fn shown(
    page: &Page,
    why: Why,
    occasion: Occasion,
    snapshot: &Snapshot,
    means: Means<'_>,
    reader: &Reader,
    exchange: &mut Exchange,
) -> Response<Bytes> {
    let from_memory = |exchange: &Exchange| page.answer(reader, Told::of(exchange), occasion);
    let Some(live) = page.live.as_ref().filter(|_| matches!(reader.taste(), Taste::Html | Taste::Any)) else {
        return from_memory(exchange);
    };
    // Boxed, since it is large and most pages are in memory.
    let Some(mut fetched) = Box::pin(live.fetch(snapshot, means, reader, why, exchange)).await else {
        return from_memory(exchange);
    };
    // As for any page of Weir's: its status, its time, and that nobody keeps it.
    let own = from_memory(exchange);
    *fetched.status_mut() = own.status();
    copy(own.headers(), fetched.headers_mut());
    fetched
}

fn copy(from: &HeaderMap, to: &mut HeaderMap) {
    for name in [header::RETRY_AFTER, header::CACHE_CONTROL, crate::identity::REQUEST_ID] {
        if let Some(value) = from.get(&name) {
            to.insert(name, value.clone());
        }
    }
}
