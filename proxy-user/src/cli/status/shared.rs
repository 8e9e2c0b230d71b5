//! What `weir status` says of what the hosts of a fleet tell each other.

use crate::fleet::shared::board::SharedStatus;

/// In a line.
pub fn line(shared: &SharedStatus) -> String {
    let SharedStatus {
        away, unsaid, keys, switches_told, switches_taken, switches_refused, passed_over, ..
    } = shared;
    let mut parts = match away {
        None => vec![format!(
            "told the others of {switches_told} switches and took up {switches_taken} of theirs"
        )],
        Some(why) => vec![format!("NOTHING IS HEARD OR TOLD: {why}")],
    };
    if *unsaid > 0 {
        parts.push(format!("{unsaid} switches are yet to be told"));
    }
    if *switches_refused > 0 {
        parts.push(format!("{switches_refused} of theirs COULD NOT BE TAKEN UP (see the log)"));
    }
    if *passed_over > 0 {
        parts.push(format!("{passed_over} values in the store were not understood"));
    }
    parts.push(keys.clone());
    format!("between hosts: {}\n", parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_should_not_stay_as_it_is_is_told_in_capitals() {
        let well = SharedStatus {
            away: None,
            unsaid: 0,
            keys: "session tickets shared".into(),
            switches_told: 3,
            switches_taken: 5,
            switches_refused: 0,
            hints_told: 1,
            hints_taken: 1,
            passed_over: 0,
        };
        assert_eq!(
            line(&well),
            "between hosts: told the others of 3 switches and took up 5 of theirs; session tickets shared\n"
        );
        let away = SharedStatus {
            away: Some("10.0.0.5:2379 is away".into()),
            unsaid: 2,
            switches_refused: 1,
            passed_over: 4,
            ..well
        };
        let told = line(&away);
        for part in [
            "NOTHING IS HEARD OR TOLD: 10.0.0.5:2379 is away",
            "2 switches are yet",
            "1 of theirs COULD NOT",
            "4 values",
        ] {
            assert!(told.contains(part), "{told}");
        }
    }
}
