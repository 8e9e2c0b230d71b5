//! Whether many routes cost more than one: Weir with one host and with ten thousand, each asked for all of its hosts in
//! turn, so that no processor cache holds the same few for long.

use std::path::PathBuf;

use crate::lab::Island;

/// The two configurations that are compared, by how many hosts they have.
pub const PAIR: [(&str, usize); 2] = [("weir_1_host", 1), ("weir_10k_hosts", 10_000)];

/// A route for each host, and one for all others.
pub fn routes(hosts: usize) -> String {
    let each = (0..hosts).map(|nth| format!("[[route]]\nhost = \"{}\"\nservice = \"app\"\n", name(nth)));
    each.collect::<String>() + "[[route]]\nservice = \"app\"\n"
}

/// What makes wrk ask for one host after the other.
pub fn script(island: &Island, hosts: usize) -> anyhow::Result<PathBuf> {
    let path = island.folder().join(format!("hosts-{hosts}.lua"));
    let text = format!(
        "local requests, nth = {{}}, 0\n\
         init = function()\n\
           for i = 0, {hosts} - 1 do\n\
             requests[i] = wrk.format(nil, nil, {{ Host = 'h' .. i .. '.example.com' }})\n\
           end\n\
         end\n\
         request = function()\n\
           nth = (nth + 1) % {hosts}\n\
           return requests[nth]\n\
         end\n"
    );
    std::fs::write(&path, text)?;
    Ok(path)
}

fn name(nth: usize) -> String {
    format!("h{nth}.example.com")
}
