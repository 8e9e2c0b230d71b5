//! Connections that are opened before a request needs them (`pool.warm`), so that the first of a burst don't wait for a
//! handshake each. Every worker looks after its own, once a second.

use std::{rc::Rc, sync::Arc};

use tokio::time::timeout;

use crate::{
    service::Service,
    snapshot::Snapshot,
    upstream::{attempt, carrier::Carrier, pool::Pool},
};

/// Begins to open what is missing.
pub fn keep(pool: &Rc<Pool>, snapshot: &Snapshot) {
    for service in snapshot.services.iter().filter(|service| service.pool.warm > 0) {
        for (index, server) in service.servers.iter().enumerate() {
            if server.health.status().usable()
                && !server.health.is_draining()
                && pool.ready(server.pool_key) < service.pool.warm
                && pool.begins_warming(server.pool_key)
            {
                tokio::task::spawn_local(warm(pool.clone(), service.clone(), index));
            }
        }
    }
}

/// One after the other: a server that has just come up is not overrun.
async fn warm(pool: Rc<Pool>, service: Arc<Service>, index: usize) {
    let server = &service.servers[index];
    let key = server.pool_key;
    while pool.ready(key) < service.pool.warm {
        let opened = timeout(service.timeouts.connect, attempt::open(&pool, &service, server, None, false));
        match opened.await {
            Ok(Ok(Carrier::Http1(connection))) => pool.put(key, connection, service.pool),
            // It is shared, and kept by the pool.
            Ok(Ok(Carrier::Http2(_))) => break,
            Ok(Err(_)) | Err(_) => {
                server.health.suspect();
                break;
            }
        }
    }
    pool.ends_warming(key);
}
