//! This host in its fleet, for people.

use std::fmt::Write as _;

use super::indented;
use crate::{
    admin::status::fleet::MemberStatus,
    fleet::survey::{shown, taken_back},
};

/// Nothing, where there is no fleet. In the words of `weir fleet status`.
pub fn lines(member: Option<&MemberStatus>) -> String {
    let Some(member) = member else { return String::new() };
    let mut text = member.line();
    text.push('\n');
    // Writing to a String can't fail.
    if let Some(rejected) = &member.standing.rejected {
        let _ = writeln!(
            text,
            "  could not run generation {}:\n{}",
            rejected.generation,
            indented(&indented(&rejected.why))
        );
    }
    if let Some(halted) = &member.halted {
        let _ = writeln!(text, "  {} ({})", taken_back(halted), shown(halted.at));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fleet::report::{Rejected, Standing},
        store::layout::Halted,
    };

    #[test]
    fn a_host_says_what_it_runs_and_should_who_is_there_and_what_was_taken_back() {
        let mut member = MemberStatus {
            host: "edge-1".into(),
            provider: "store".into(),
            endpoint: Some("10.0.0.5:2379".into()),
            away: None,
            known: Some(7),
            wanted: Some(7),
            standing: Standing { generation: Some(7), since: 1, rejected: None },
            halted: None,
            hosts: Some(3),
            hosts_gone: Some(0),
        };
        assert_eq!(
            lines(Some(&member)),
            "fleet: edge-1 runs generation 7; 3 hosts; store at 10.0.0.5:2379\n"
        );
        assert!(!member.is_odd());
        member.standing = Standing {
            generation: Some(6),
            rejected: Some(Rejected { generation: 7, why: "port taken".into() }),
            ..member.standing
        };
        member.halted = Some(Halted { generation: 5, by: "edge-2".into(), why: "no page".into(), at: 1_000 });
        (member.away, member.hosts_gone) = (Some("no answer".into()), Some(1));
        assert!(member.is_odd());
        assert_eq!(
            lines(Some(&member)),
            "fleet: edge-1 runs generation 6, SHOULD 7; 3 hosts, 1 GONE; STORE AWAY, what ran runs on: no answer\n  \
             could not run generation 7:\n    port taken\n  \
             generation 5 was taken back by edge-2: no page (1970-01-01T00:00:01Z)\n"
        );
    }
}
