//! Which metrics a daemon tells, and which ones docs/ names: the same.

use std::collections::BTreeSet;

/// The metrics that the tables in docs/ name.
#[must_use]
pub fn described() -> BTreeSet<&'static str> {
    let pages =
        [include_str!("../../../docs/metrics.md"), include_str!("../../../docs/kernel-passthrough.md")];
    let lines = pages.into_iter().flat_map(str::lines);
    let cells = lines.filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let names = cells.flat_map(|cell| cell.split('`')).filter(|name| name.starts_with("weir_"));
    names.filter(|name| !name.ends_with('*')).collect()
}

/// The metrics of ours in an exposition.
#[must_use]
pub fn told(exposition: &str) -> BTreeSet<&str> {
    let lines = exposition.lines();
    let names = lines.filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    names.filter(|name| name.starts_with("weir_")).collect()
}
