use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
};

use super::*;
use crate::config;

/// A guarded entrypoint at `bind` that lets in 203.0.113.0/24 and 2001:db8::/32, and an open one.
fn guarding(bind: &str) -> Config {
    let toml = format!(
        "kernel.interfaces = ['eth0']\nallowlist.office.prefixes = ['203.0.113.0/24', '2001:db8::/32']\n\
         entrypoint.web = {{ bind = {bind}, allow = 'office' }}\nentrypoint.open.bind = '0.0.0.0:80'\n\
         service.app.servers = '10.0.0.1:80'\nroute = [{{ service = 'app' }}]\nadmin.bind = '127.0.0.1:9190'\n"
    );
    config::load_text(Path::new("weir.toml"), &toml).unwrap_or_else(|report| panic!("{report}")).config
}

fn session(local: &str, remote: &str) -> Session {
    Session { local: local.parse().unwrap(), remote: remote.parse().unwrap() }
}

fn sentences(config: &Config, sockets: &Sockets) -> Vec<String> {
    faults(config, sockets).iter().map(ToString::to_string).collect()
}

#[test]
fn an_operator_is_cut_off_where_the_entrypoint_guards_the_session_and_does_not_list_the_remote() {
    for (bind, local, remote, cut_off) in [
        ("'0.0.0.0:22'", "192.0.2.1:22", "198.51.100.7:50000", true),
        ("'192.0.2.1:22'", "192.0.2.1:22", "198.51.100.7:50000", true),
        ("'0.0.0.0:22'", "192.0.2.1:22", "203.0.113.9:50000", false),
        ("'192.0.2.2:22'", "192.0.2.1:22", "198.51.100.7:50000", false),
        ("'0.0.0.0:443'", "192.0.2.1:22", "198.51.100.7:50000", false),
        ("'[::]:22'", "192.0.2.1:22", "198.51.100.7:50000", false),
        ("'[::]:22'", "[2001:db8::1]:22", "[2001:db9::7]:50000", true),
        ("'[::]:22'", "[2001:db8::1]:22", "[2001:db8::7]:50000", false),
        ("'0.0.0.0:80'", "192.0.2.1:22", "198.51.100.7:50000", false),
    ] {
        let bind = if bind.contains(":80") { "'0.0.0.0:8080'" } else { bind };
        let sockets = Sockets { operator: Some(session(local, remote)), ..Sockets::default() };
        assert_eq!(!faults(&guarding(bind), &sockets).is_empty(), cut_off, "{bind} {local} {remote}");
    }
}

#[test]
fn nobody_looks_who_is_connected_for_what_drops_nothing_else() {
    let before = guarding("'192.0.2.1:443'");
    assert!(changes_nothing(&before, Some(&before)));
    assert!(!changes_nothing(&before, None), "the first");
    assert!(!changes_nothing(&guarding("'192.0.2.2:443'"), Some(&before)));
    let change = |change: fn(&mut Config)| {
        let mut next = before.clone();
        change(&mut next);
        next
    };
    let fewer = change(|next| next.allowlists[0].prefixes.truncate(1));
    let elsewhere = change(|next| next.admin.bind.clear());
    let shadowed = change(|next| next.entrypoints.iter_mut().for_each(|one| one.shadow = true));
    let off = change(|next| next.kernel.mode = KernelMode::Off);
    for (next, nothing) in [(fewer, false), (elsewhere, false), (shadowed, true), (off, true)] {
        assert_eq!(changes_nothing(&next, Some(&before)), nothing, "{:?}", next.entrypoints);
    }
    let off = change(|next| next.kernel.mode = KernelMode::Off);
    assert!(!changes_nothing(&before, Some(&off)), "it begins to drop");
}

#[test]
fn the_sentence_names_the_entrypoint_the_session_and_what_to_add() {
    let operator = Some(session("192.0.2.1:22", "198.51.100.7:50000"));
    let sockets = Sockets { operator, ..Sockets::default() };
    assert_eq!(
        sentences(&guarding("'0.0.0.0:22'"), &sockets),
        [
            "entrypoint `web` would guard 192.0.2.1:22, where your own SSH session from 198.51.100.7 comes in, and its \
          lists (`office`) don't hold that address: add \"198.51.100.7\" to one of them"
        ]
    );
}

#[test]
fn a_port_where_another_program_listens_is_not_guarded() {
    let sockets = Sockets {
        foreign: vec!["0.0.0.0:22".parse().unwrap()],
        established: vec![
            session("192.0.2.1:22", "198.51.100.7:50000"),
            session("192.0.2.1:22", "198.51.100.8:50000"),
            session("192.0.2.1:22", "203.0.113.5:50000"),
            session("192.0.2.1:443", "198.51.100.9:50000"),
        ],
        ..Sockets::default()
    };
    assert_eq!(
        sentences(&guarding("'192.0.2.1:22'"), &sockets),
        [
            "entrypoint `web` would guard 0.0.0.0:22, where another program listens (`ss -ltnp` shows it), and cut off \
          198.51.100.7 and 1 more, which is connected there: add \"198.51.100.7\" to one of its lists (`office`), or \
          give the entrypoint another address or port"
        ]
    );
    assert!(faults(&guarding("'192.0.2.1:443'"), &sockets).is_empty());
    assert!(faults(&guarding("'[::]:22'"), &sockets).is_empty(), "IPv6 is another family");
}

#[test]
fn the_admin_address_is_not_guarded_without_its_client() {
    let at = |clients: &[&str]| {
        let sockets = Sockets {
            admin: vec!["192.0.2.1:9191".parse().unwrap()],
            established: clients.iter().map(|client| session("192.0.2.1:9191", client)).collect(),
            ..Sockets::default()
        };
        faults(&guarding("'0.0.0.0:9191'"), &sockets).len()
    };
    assert_eq!(at(&[]), 1, "nobody is there to tell who may");
    assert_eq!(at(&["198.51.100.7:50000"]), 1);
    assert_eq!(at(&["203.0.113.7:50000"]), 0);
}

#[test]
fn a_shadowed_entrypoint_locks_nobody_out() {
    let operator = Some(session("192.0.2.1:22", "198.51.100.7:50000"));
    let foreign = vec!["0.0.0.0:22".parse().unwrap()];
    let sockets = Sockets { operator, foreign, ..Sockets::default() };
    let mut config = guarding("'0.0.0.0:22'");
    assert_eq!(faults(&config, &sockets).len(), 2);
    for entrypoint in &mut config.entrypoints {
        entrypoint.shadow = true;
    }
    assert!(faults(&config, &sockets).is_empty());
}

#[test]
fn another_ones_session_is_not_cut_off_either() {
    let (own, other) = (session("192.0.2.1:22", "198.51.100.7:1"), session("192.0.2.1:22", "198.51.100.8:1"));
    let listed = session("192.0.2.1:22", "203.0.113.5:1");
    let sockets = Sockets { operator: Some(own), logged_in: vec![own, other, listed], ..Sockets::default() };
    let sentences = sentences(&guarding("'0.0.0.0:22'"), &sockets);
    assert_eq!(sentences.len(), 2, "{sentences:?}");
    assert!(sentences[0].contains("your own SSH session from 198.51.100.7 "), "{sentences:?}");
    assert!(sentences[1].contains("an SSH session from 198.51.100.8 "), "{sentences:?}");
}

#[test]
fn without_a_gate_nobody_is_cut_off() {
    let operator = Some(session("192.0.2.1:22", "198.51.100.7:50000"));
    let sockets = Sockets { operator, ..Sockets::default() };
    let mut config = guarding("'0.0.0.0:22'");
    config.kernel.interfaces.clear();
    assert!(faults(&config, &sockets).is_empty());
}

#[test]
fn what_sshd_tells_is_understood() {
    let told = Session::from_ssh("198.51.100.7 50000 192.0.2.1 22").unwrap();
    assert_eq!(told, session("192.0.2.1:22", "198.51.100.7:50000"));
    let told = Session::from_ssh("fe80::7%eth0 50000 ::ffff:192.0.2.1 22").unwrap();
    assert_eq!(told, session("192.0.2.1:22", "[fe80::7]:50000"));
    for nonsense in ["", "a b c d", "198.51.100.7 50000 192.0.2.1", "198.51.100.7 70000 192.0.2.1 22"] {
        assert_eq!(Session::from_ssh(nonsense), None, "{nonsense}");
    }
}

#[test]
fn the_sockets_of_this_host_are_read() {
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(listen).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let wanted = Session { local: server.local_addr().unwrap(), remote: client.local_addr().unwrap() };
        let sockets = host::sockets();
        assert!(sockets.established.contains(&wanted), "{wanted:?} is not in {:?}", sockets.established);
        assert!(!sockets.foreign.contains(&listener.local_addr().unwrap()), "it is ours");
    }
}

#[test]
fn a_session_is_known_by_the_processes_that_were_started_in_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (local, remote) = (listener.local_addr().unwrap(), client.local_addr().unwrap());
    let told = format!("{} {} {} {}", remote.ip(), remote.port(), local.ip(), local.port());
    let mut shell = std::process::Command::new("cat");
    shell
        .env("SSH_CONNECTION", told)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut shell = shell.spawn().unwrap();
    // It has its environment once it runs: when it is spawned, the kernel may still be putting its memory in order.
    shell.stdin.as_mut().unwrap().write_all(b".").unwrap();
    shell.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let established = [Session { local, remote }];
    let found = (host::logged_in(&established), host::logged_in(&[]));
    drop(shell.stdin.take());
    shell.wait().unwrap();
    assert_eq!(found, (established.to_vec(), vec![]));
}
