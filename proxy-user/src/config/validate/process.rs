//! `[process]`

use super::merge::Merged;
use crate::config::{
    code::Code, findings::Findings, model::Process, source::FileId, value::quoted, written::At,
};

/// What Linux allows (`LOGIN_NAME_MAX`).
const LONGEST: usize = 256;

pub fn process(written: &Merged<'_>, findings: &mut Findings) -> Process {
    let Some((file, section)) = written.process else {
        return Process { user: None, group: None, sandbox: true };
    };
    let section = &section.value;
    if let (Some(group), None) = (&section.group, &section.user)
        && !findings.lost("process.user")
    {
        let message = "process.group is written without process.user";
        findings
            .error(Code::Contradiction, file, &group.span, message)
            .hint("name the user too, or take `group` out");
    }
    Process {
        user: account(file, "user", section.user.as_ref(), findings),
        group: account(file, "group", section.group.as_ref(), findings),
        sandbox: section.sandbox.as_ref().is_none_or(|sandbox| sandbox.value),
    }
}

/// Whether there is such an account is for the host to say on which it runs.
fn account(file: FileId, key: &str, written: Option<&At<String>>, findings: &mut Findings) -> Option<String> {
    let written = written?;
    let name = &written.value;
    let odd =
        |letter: char| letter.is_whitespace() || letter.is_control() || matches!(letter, ':' | '/' | ',');
    if name.is_empty() || name.len() > LONGEST || name.contains(odd) || name.starts_with('-') {
        let message = format!("process.{key}: {} is not the name of a {key}", quoted(name));
        findings
            .error(Code::WrongValue, file, &written.span, message)
            .hint(format!("write a name as `getent {}` lists it, such as `weir`", table(key)));
    }
    Some(name.clone())
}

fn table(key: &str) -> &'static str {
    if key == "user" { "passwd" } else { "group" }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::load_text;

    const REST: &str = "[entrypoint.web]\nbind = '127.0.0.1:8080'\n";

    #[test]
    fn a_process_without_a_section_stays_as_it_was_started_and_is_sandboxed() {
        let process = load_text(Path::new("weir.toml"), REST).unwrap().config.process;
        assert_eq!((process.user, process.group, process.sandbox), (None, None, true));
    }

    #[test]
    fn odd_accounts_are_told_with_their_place() {
        for (section, told) in [
            ("user = 'we ir'", "error[W005]: weir.toml:2:8: process.user: `we ir` is not the name of a user"),
            ("user = ''", "error[W005]: weir.toml:2:8: process.user: `` is not the name of a user"),
            (
                "user = 'weir'\ngroup = 'a:b'",
                "error[W005]: weir.toml:3:9: process.group: `a:b` is not the name of a group",
            ),
            ("group = 'weir'", "process.group is written without process.user"),
        ] {
            let text = format!("[process]\n{section}\n{REST}");
            let report = load_text(Path::new("weir.toml"), &text).unwrap_err();
            assert!(report.lines().contains(told), "{}", report.lines());
        }
    }
}
