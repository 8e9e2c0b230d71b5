//! Connections that are carried untouched, by server.

use comfy_table::Table;

use super::plain_table;
use crate::admin::status::ServiceStatus;

/// `None`: there were none.
pub fn table(services: &[ServiceStatus]) -> Option<Table> {
    let mut table = plain_table([
        "passthrough",
        "server",
        "open",
        "connections",
        "failures",
        "bytes to server",
        "bytes to client",
    ]);
    for service in services {
        for server in &service.servers {
            let Some(carrying) = &server.carrying else { continue };
            table.add_row([
                &service.name,
                &server.address,
                &carrying.active.to_string(),
                &carrying.connections.to_string(),
                &carrying.failures.to_string(),
                &carrying.bytes_to_server.to_string(),
                &carrying.bytes_to_client.to_string(),
            ]);
        }
    }
    (!table.is_empty()).then_some(table)
}
