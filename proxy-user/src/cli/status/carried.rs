//! Connections that are carried untouched, by server.

use crate::{admin::status::ServiceStatus, cli::table::Table};

/// `None`: there were none.
pub fn table(services: &[ServiceStatus]) -> Option<Table> {
    let mut table = Table::new([
        "passthrough",
        "server",
        "open",
        "connections",
        "failures",
        "bytes to server",
        "bytes to client",
    ]);
    let mut any = false;
    for service in services {
        for server in &service.servers {
            let Some(carrying) = &server.carrying else { continue };
            any = true;
            table.add([
                service.name.clone().into(),
                server.address.clone().into(),
                carrying.active.to_string().into(),
                carrying.connections.to_string().into(),
                carrying.failures.to_string().into(),
                carrying.bytes_to_server.to_string().into(),
                carrying.bytes_to_client.to_string().into(),
            ]);
        }
    }
    any.then_some(table)
}
