//! `weir flows`: what the kernel carries by port, and what was handed to it by name. Asks the daemon; where none runs, the kernel itself.

use std::fmt::Write as _;

use clap::Args;

use crate::{
    admin::status::forwarding::{ForwardingStatus, MOST},
    cli::{
        Failure,
        admin::AdminArgs,
        kernel::Place,
        print,
        table::{self, Cell, Table},
    },
    handover::Standing,
    kernel::forward::flows::{self, FlowStatus, Flows, Wish},
};

#[derive(Debug, Args)]
pub struct FlowsArgs {
    /// Only those of this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Show at most so many: those with the latest packets
    #[arg(long, value_name = "NUMBER", default_value_t = MOST)]
    most: usize,
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    place: Place,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &FlowsArgs) -> Result<(), Failure> {
    let flows = asked(args)?;
    if args.json {
        let json = serde_json::to_string(&flows).map_err(|error| Failure::Failed(error.to_string()))?;
        return print(&format!("{json}\n"));
    }
    print(&text(&flows))
}

fn asked(args: &FlowsArgs) -> Result<Flows, Failure> {
    // A service's name consists of what needs no escape in a query.
    let service = args.service.as_ref().map(|name| format!("&service={name}")).unwrap_or_default();
    if let Ok((status, body)) = args.admin.get(&format!("/api/v1/flows?most={}{service}", args.most)) {
        if !status.is_success() {
            let why = String::from_utf8_lossy(&body);
            return Err(Failure::Failed(format!("the daemon answered {status}: {}", why.trim())));
        }
        return serde_json::from_slice(&body).map_err(|error| {
            Failure::Failed(format!(
                "the daemon's answer is not understood ({error}): is it another version?"
            ))
        });
    }
    let wish = Wish {
        service: args.service.clone(),
        most: args.most,
        services: Vec::from_iter(args.service.clone()),
    };
    let found = flows::observe(&args.place.bpffs, &wish).map_err(|fault| {
        Failure::Failed(format!("no daemon answers, and the kernel can't be asked either: {fault}"))
    })?;
    Ok(found.unwrap_or_default())
}

/// What `weir status` tells.
pub fn lines(status: &ForwardingStatus) -> String {
    let mut text = String::new();
    for one in &status.entrypoints {
        let way = match &one.why_not {
            None => "carried by the kernel".to_owned(),
            Some(why) => format!("relayed by the daemon: {why}"),
        };
        // Writing to a String can't fail.
        let _ = writeln!(text, "passthrough at `{}` to `{}`: {way}", one.entrypoint, one.service);
    }
    for one in &status.services {
        let flows: Vec<_> = one.flows.iter().map(|(state, count)| format!("{count} {state}")).collect();
        let flows = if flows.is_empty() { "none now".to_owned() } else { flows.join(", ") };
        let _ = writeln!(text, "flows to `{}`: {flows}; {} since the kernel counts", one.service, one.opened);
        let stopped = one.stopped.iter().filter(|(_, packets)| **packets > 0);
        let stopped: Vec<_> = stopped.map(|(reason, packets)| format!("{packets} {reason}")).collect();
        if !stopped.is_empty() {
            let _ = writeln!(text, "  packets not carried on: {}", stopped.join(", "));
        }
    }
    if let Some(standing) = &status.handed_over {
        handed_over(standing, &mut text);
    }
    text
}

fn handed_over(standing: &Standing, text: &mut String) {
    let Standing { carried, handed_over, refused, dropped, .. } = standing;
    let _ = writeln!(
        text,
        "handed to the kernel by name: {carried} carried now; {handed_over} since the daemon started"
    );
    if !refused.is_empty() {
        let refused: Vec<_> = refused.iter().map(|(why, count)| format!("{count} {why}")).collect();
        let _ = writeln!(text, "  relayed instead: {}", refused.join(", "));
    }
    if *dropped > 0 {
        let _ = writeln!(text, "  packets not carried on: {dropped}");
    }
}

fn text(flows: &Flows) -> String {
    if flows.all == 0 {
        return "no flows\n".to_owned();
    }
    let mut table = Table::new([
        "service",
        "protocol",
        "client",
        "entrypoint",
        "server",
        "as",
        "state",
        "age",
        "idle",
        "sent",
        "received",
    ]);
    for flow in &flows.flows {
        table.add(row(flow).map(Cell::from));
    }
    let mut text = table.text(table::width());
    let states = flows.states.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>();
    let shown = flows.flows.len() as u64;
    let more = if shown < flows.all { format!(", {shown} of them shown") } else { String::new() };
    // Writing to a String can't fail.
    let _ = writeln!(text, "{} flows{more}: {}", flows.all, states.join(", "));
    text
}

fn row(flow: &FlowStatus) -> [String; 11] {
    [
        flow.service.clone(),
        flow.protocol.clone(),
        flow.client.to_string(),
        flow.entrypoint.to_string(),
        flow.server.to_string(),
        if flow.source_kept { "the client".to_owned() } else { flow.source.to_string() },
        if flow.handed_over { format!("{}, handed over", flow.state) } else { flow.state.clone() },
        format!("{:.0} s", flow.age_seconds),
        format!("{:.0} s", flow.idle_seconds),
        format!("{} B", flow.bytes_sent),
        format!("{} B", flow.bytes_received),
    ]
}
