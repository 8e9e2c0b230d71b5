//! Probes against servers on loopback that say what a test wants.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside of test functions")]

use tokio::{io::AsyncReadExt as _, net::TcpListener};

use super::*;
use crate::{
    config::{self, model::Config},
    health::Status,
};

fn config(service: &str) -> Config {
    let text = format!(
        "[entrypoint.web]\nbind = '127.0.0.1:80'\n[service.app]\nservers = '127.0.0.1:1'\n{service}\n[[route]]\nservice = 'app'\n"
    );
    config::load_text(std::path::Path::new("weir.toml"), &text)
        .unwrap_or_else(|report| panic!("{report}"))
        .config
}

/// What a probe by `health` makes of a server that reads something, if `reads`, and then says `says`.
fn outcome(health: &str, reads: bool, says: &'static [u8]) -> Result<(), ProbeFault> {
    let check =
        config(&format!("health = {{ {health}, timeout = '1s' }}")).services[0].health.clone().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default());
    runtime.unwrap().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = ServerAddr(listener.local_addr().unwrap());
        tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            if reads {
                let _ = stream.read(&mut [0; 4096]).await.unwrap();
            }
            stream.write_all(says).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let target = Target::new(addr, None, ServerProtocol::Auto, None, check);
        probe(&target, &Health::new(Status::Up)).await.outcome
    })
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nX-Ready: yes\r\nContent-Length: 15\r\n\r\n{\"state\":\"well\"}";

#[test]
fn an_http_probe_looks_at_what_it_is_told_to() {
    let ok = Ok(());
    for (health, expected) in [
        ("path = '/'", ok.clone()),
        ("path = '/', status = '204'", Err(ProbeFault::Status(200))),
        ("path = '/', status = ['204', '200-201']", ok.clone()),
        ("path = '/', expect_header = { x-ready = 'yes' }", ok.clone()),
        ("path = '/', expect_header = { x-ready = '' }", ok.clone()),
        (
            "path = '/', expect_header = { x-ready = 'no' }",
            Err(ProbeFault::Unexpected("the answer has no field `x-ready: \"no\"`".into())),
        ),
        ("path = '/', expect_body = '\"well\"'", ok.clone()),
        ("path = '/', expect_body_regex = 'state.*(well|fine)'", ok),
    ] {
        assert_eq!(outcome(health, true, OK), expected, "{health}");
    }
    for health in ["expect_body = 'ill'", "expect_body_regex = '^well'"] {
        let outcome = outcome(&format!("path = '/', {health}"), true, OK);
        assert!(matches!(outcome, Err(ProbeFault::Unexpected(_))), "{health}: {outcome:?}");
    }
}

#[test]
fn a_script_goes_step_by_step() {
    let redis = "send = 'PING\\r\\n', expect = '+PONG'";
    assert_eq!(outcome(redis, true, b"+PONG\r\n"), Ok(()));
    let outcome_of = outcome(redis, true, b"-LOADING\r\n");
    assert_eq!(outcome_of.unwrap_err().to_string(), "`+PONG` did not come, but `-LOADING\\r\\n`");
    let mail = "script = [{ expect = '220 ' }, { send = 'QUIT\\r\\n', expect = '221 ' }]";
    assert_eq!(outcome(mail, false, b"220 mail ready\r\n221 bye\r\n"), Ok(()));
    assert!(outcome(mail, false, b"221 bye\r\n220 mail\r\n").is_err(), "in another order");
}

#[test]
fn a_connection_is_enough_where_that_is_what_is_asked_for() {
    assert_eq!(outcome("tcp = true", false, b""), Ok(()));
    let refused = outcome("tcp = true, port = 1", false, b"");
    assert_eq!(refused, Err(ProbeFault::Refused), "another port");
}

#[test]
fn what_speaks_no_tls_fails_a_handshake() {
    let outcome = outcome("tls = true, host = 'app.example.com'", true, b"220 mail ready\r\n");
    assert!(matches!(outcome, Err(ProbeFault::Tls(_))), "{outcome:?}");
}

#[test]
fn a_grpc_probe_needs_http2() {
    let outcome = outcome("grpc = ''", true, OK);
    assert!(matches!(outcome, Err(ProbeFault::Broken(_))), "{outcome:?}");
}
