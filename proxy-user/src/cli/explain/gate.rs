//! What the gate in the kernel says, in sentences.

use std::fmt::Write as _;

use jiff::Timestamp;
use proxy_common::{answer::Outcome, verdict::DropReason};
use serde_json::{Value, json};

use super::{
    ExplainArgs,
    lists::{Because, Listed, Lists},
    question::{self, Question, Target},
};
use crate::{
    admin::status::blocks::BlocksDocument,
    blocklist::Blocklist,
    cli::{Failure, print},
    kernel::{
        KernelFault,
        explain::{Explainer, Explanation, Guard, Verdict},
    },
    packet,
};

struct Explained {
    question: Question,
    explanation: Explanation,
    because: Option<Because>,
    /// Which block keeps it out, until when, and why.
    block: Option<String>,
}

pub fn explain(args: &ExplainArgs, explainer: &Explainer) -> Result<(), Failure> {
    let failed = |fault: KernelFault| Failure::Failed(fault.to_string());
    let guards = explainer.guards().map_err(failed)?.into_iter();
    let targets: Vec<Target> = guards
        .map(|Guard { entrypoint, address, protocol }| Target { entrypoint, address, protocol })
        .collect();
    let mut explained = Vec::new();
    for question in question::of(args, &targets, "the gate guards")? {
        let explanation = explainer.explain(&question.frame).map_err(failed)?;
        explained.push((question, explanation));
    }
    let lists = if explained.iter().any(|(_, explanation)| explanation.entrypoint.is_some()) {
        Lists::learn(args)
    } else {
        Err(String::new())
    };
    let explained: Vec<_> = explained
        .into_iter()
        .map(|(question, explanation)| {
            let because = because(&lists, &question, &explanation);
            let block =
                (explanation.reason == Some(DropReason::Blocked)).then(|| block(args, &question)).flatten();
            Explained { question, explanation, because, block }
        })
        .collect();
    if args.json {
        return print(&format!("{}\n", json(explainer, &explained)));
    }
    let mut text = String::new();
    for (number, one) in explained.iter().enumerate() {
        // Writing to a String can't fail.
        let _ = if args.pcap.is_some() {
            writeln!(text, "{}", line(number + 1, one))
        } else {
            write!(text, "{}{}", if number > 0 { "\n" } else { "" }, sentences(one))
        };
    }
    if explained.is_empty() {
        text.push_str("there is no packet in it\n");
    }
    text.push_str(&footnotes(explainer, &explained, &lists));
    print(&text)
}

/// The block that the daemon has for a packet's source.
fn block(args: &ExplainArgs, question: &Question) -> Option<String> {
    let source = packet::parse(&question.frame)?.source;
    let (status, body) = args.admin.get("/api/v1/blocks").ok()?;
    let document: BlocksDocument = serde_json::from_slice(&body).ok().filter(|_| status.is_success())?;
    let list: Blocklist = document.blocks.into_iter().map(|one| one.block).collect();
    let now = Timestamp::now();
    let block = list.find(source, false, now)?;
    let until = block.until.map_or_else(|| "for ever".to_owned(), |until| format!("until {until}"));
    Some(format!("{}, {until}: {}", block.prefix, block.why))
}

/// What the lists say of an entrypoint's packet. `None`: there is nothing to say.
fn because(lists: &Result<Lists, String>, question: &Question, explanation: &Explanation) -> Option<Because> {
    let source = packet::parse(&question.frame)?.source;
    lists.as_ref().ok()?.because(explanation.entrypoint.as_deref()?, source)
}

fn json(explainer: &Explainer, explained: &[Explained]) -> Value {
    let packets: Vec<Value> = explained
        .iter()
        .map(|Explained { question, explanation, because, block }| {
            let mut packet = json!(explanation);
            packet["lists"] = json!(because);
            packet["block"] = json!(block);
            let headers = packet::parse(&question.frame);
            packet["from"] = json!(headers.map(|headers| headers.from()));
            packet["to"] = json!(headers.map(|headers| headers.to()));
            packet["protocol"] = json!(headers.map(|headers| headers.protocol_name()));
            packet["cut"] = json!(question.cut);
            packet
        })
        .collect();
    json!({ "judged_by": "kernel", "attached_to": explainer.interfaces(), "packets": packets })
}

/// `203.0.113.9:40000 → 198.51.100.1:443 tcp`
fn title(frame: &[u8]) -> String {
    packet::parse(frame).map_or_else(
        || format!("a packet of {} bytes", frame.len()),
        |headers| format!("{} → {} {}", headers.from(), headers.to(), headers.protocol_name()),
    )
}

fn line(number: usize, Explained { question, explanation, because, .. }: &Explained) -> String {
    let verdict = match explanation.verdict {
        Verdict::Pass => "passes",
        Verdict::Drop => "dropped",
        Verdict::Answer => "answered",
    };
    let why = explanation.reason.map_or(explanation.outcome.name(), DropReason::name);
    let mut line = format!("{number:>4}  {verdict:<7}  {why:<17}  {}", title(&question.frame));
    let decided = because.as_ref().and_then(|because| because.decided.as_ref());
    let decided = decided.map(|Listed { prefix, list }| format!("{prefix} ({list})"));
    for more in explanation.entrypoint.iter().chain(&decided) {
        let _ = write!(line, "  {more}");
    }
    if question.cut {
        line.push_str("  (captured in part)");
    }
    line
}

fn sentences(Explained { question, explanation, because, block }: &Explained) -> String {
    let Explanation { program, program_id, generation, .. } = explanation;
    let entrypoint = explanation.entrypoint.as_deref().unwrap_or("?");
    let mut text = title(&question.frame);
    let why = match (explanation.outcome, explanation.reason) {
        (Outcome::Admitted, _) => {
            text.push_str(": passes\n");
            match because.as_ref().map(|because| &because.decided) {
                Some(Some(Listed { prefix, list })) => format!(
                    "Its source is listed: {prefix}, of the allowlist `{list}`, lets it in at entrypoint `{entrypoint}`."
                ),
                Some(None) => format!(
                    "The gate lets its source in at entrypoint `{entrypoint}`, though the lists asked below don't have it: \
                     they are not those that the gate was given."
                ),
                None => format!("Its source is on an allowlist of entrypoint `{entrypoint}`."),
            }
        }
        (Outcome::Dropped, reason) => {
            let name = reason.map_or("?", DropReason::name);
            let _ = writeln!(text, ": dropped, {name}");
            let meaning = reason.map_or("for a reason of another version's", DropReason::meaning);
            format!("It is for entrypoint `{entrypoint}`, and dropped: {meaning}.")
        }
        (Outcome::Shadowed, reason) => {
            let name = reason.map_or("?", DropReason::name);
            let _ = writeln!(text, ": passes, would be dropped, {name}");
            let meaning = reason.map_or("for a reason of another version's", DropReason::meaning);
            format!(
                "It is for entrypoint `{entrypoint}`, which is shadowed, and would be dropped else: {meaning}."
            )
        }
        (Outcome::Unproved, reason) => {
            let why = "is listed, but handshakes there have to be proved now, by SYN cookies";
            match (explanation.verdict, reason) {
                (Verdict::Pass, _) => passes(
                    &mut text,
                    &format!(
                        "It is for entrypoint `{entrypoint}`. Its source {why}: this packet is of a connection, or proves \
                         it, or the listener takes no cookies."
                    ),
                ),
                (Verdict::Answer, _) => {
                    text.push_str(": answered by the gate\n");
                    format!("It asks entrypoint `{entrypoint}` for a connection. Its source {why}.")
                }
                (Verdict::Drop, reason) => {
                    let meaning = reason.map_or("for a reason of another version's", DropReason::meaning);
                    let _ = writeln!(text, ": dropped, {}", reason.map_or("?", DropReason::name));
                    format!("It is for entrypoint `{entrypoint}`. Its source {why}, and {meaning}.")
                }
            }
        }
        (Outcome::NotIp, _) => {
            passes(&mut text, "It is neither IPv4 nor IPv6, or behind more than two VLAN tags.")
        }
        (Outcome::NotAHeader, _) => passes(
            &mut text,
            "It ends before its addresses, or its header has an impossible length: it is for nobody, and the stack \
             discards it.",
        ),
        (Outcome::NotGuardable, _) => {
            passes(&mut text, "It is neither TCP nor UDP, which is what the gate guards.")
        }
        (Outcome::LaterFragment, _) => passes(
            &mut text,
            "It is a later fragment, without ports. Its first fragment is judged, and nothing is put together without \
             that.",
        ),
        (Outcome::NotGuarded, _) => passes(
            &mut text,
            "No guarded entrypoint has this address, protocol and port: the gate never touches it.",
        ),
    };
    let _ = writeln!(text, "{why}");
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<16} {value}");
    };
    if let Some(because) = because.as_ref().filter(|_| explanation.reason == Some(DropReason::NotListed)) {
        row("it lets in", &because.allows.join(", "));
        if let Some(Listed { prefix, list }) = &because.decided {
            row(
                "but",
                &format!("{prefix} ({list}) has the source: the gate was given other lists than those asked"),
            );
        }
        for Listed { prefix, list } in &because.nearest {
            row("nearest prefix", &format!("{prefix} ({list})"));
        }
        for Listed { prefix, list } in &because.elsewhere {
            row("listed elsewhere", &format!("{prefix} ({list}), which `{entrypoint}` does not allow"));
        }
    }
    if explanation.reason == Some(DropReason::Blocked) {
        row(
            "blocked by",
            block.as_deref().unwrap_or("a block that no daemon answers for (`weir block list`)"),
        );
    }
    row("judged by", &format!("{program}, program {program_id}, generation {generation}"));
    text
}

fn passes(title: &mut String, why: &str) -> String {
    title.push_str(": passes untouched\n");
    why.to_owned()
}

/// What is to be known about all of it.
fn footnotes(explainer: &Explainer, explained: &[Explained], lists: &Result<Lists, String>) -> String {
    let mut notes = String::new();
    match lists {
        Ok(lists) => {
            let _ = writeln!(notes, "\nLists and prefixes are those of {}.", lists.origin());
        }
        Err(why) if !why.is_empty() => {
            let _ = writeln!(notes, "\nWhich list and prefix that is by can't be told: {why}");
        }
        Err(_) => {}
    }
    if explainer.interfaces().is_empty() {
        notes.push_str("\nThe gate is attached to no interface: real packets don't meet it.\n");
    }
    let added: u32 = explained.iter().map(|one| one.explanation.added).sum();
    if added > 0 {
        let _ = writeln!(
            notes,
            "Asked of the running program: its raw counters went up by {added}, which `weir kernel status` takes off again."
        );
    }
    notes
}
