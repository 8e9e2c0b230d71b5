//! Access logs in the places where operators keep them: files, and a real rsyslog over every transport.

use std::{path::Path, time::Duration};

use anyhow::Context;
use nix::sys::signal::Signal;
use serde_json::Value;
use weir_lab::{
    Lab,
    lab::{
        addresses::ONE,
        client::body,
        process::Process,
        stand::{PATIENCE, Stand},
        wait,
    },
    needs,
    needs::Need,
};

type Done = anyhow::Result<()>;

/// Starts rsyslogd in the namespace of server one, which the edge reaches; its socket is a file that all see.
fn rsyslog(lab: &Lab) -> anyhow::Result<Process> {
    let folder = lab.folder().display();
    let config = lab.folder().join("rsyslog.conf");
    let text = format!(
        r#"global(workDirectory="{folder}" defaultNetstreamDriverCAFile="{folder}/ca.pem"
       defaultNetstreamDriverCertFile="{folder}/server/server.crt"
       defaultNetstreamDriverKeyFile="{folder}/server/server.key")
module(load="imuxsock" SysSock.Use="off")
module(load="imudp")
module(load="imtcp")
input(type="imuxsock" Socket="{folder}/syslog.sock" UsePIDFromSystem="off")
input(type="imudp" address="{ONE}" port="5514")
input(type="imtcp" address="{ONE}" port="5515")
input(type="imtcp" address="{ONE}" port="5516" StreamDriver.Name="ossl" StreamDriver.Mode="1" StreamDriver.AuthMode="anon")
template(name="line" type="string" string="%app-name% %syslogfacility-text%.%syslogseverity-text% %msgid% %msg%\n")
action(type="omfile" file="{folder}/rsyslog.out" template="line")
"#
    );
    std::fs::write(&config, text)?;
    let mut command = lab.one.command(needs::find_program("rsyslogd").context("no rsyslogd")?)?;
    command.arg("-n").arg("-f").arg(&config).arg("-i").arg(lab.folder().join("rsyslog.pid"));
    Process::start("rsyslogd", command, &lab.folder().join("rsyslog.log"))
}

fn configured(lab: &Lab, toml: &str) -> String {
    let folder = lab.folder().display();
    let syslog = |name: &str, to: &str, more: &str| {
        format!("[access_log.{name}]\nto = \"{to}\"\nsyslog = {{ tag = \"weir-{name}\"{more} }}\n\n")
    };
    let logs = [
        format!(
            "[access_log.errors]\nto = \"{folder}/errors.log\"\nstatus = \"500-599\"\n\
             format = \"{{method}} {{path}} {{status}} {{fault}} {{why}} {{request_header:x-a}}\"\n\n"
        ),
        syslog("unix", &format!("syslog+unix:{folder}/syslog.sock"), ""),
        syslog("udp", &format!("syslog+udp://{ONE}:5514"), ", facility = \"local3\""),
        syslog("tcp", &format!("syslog+tcp://{ONE}:5515"), ""),
        syslog("tls", &format!("syslog+tls://{ONE}:5516"), &format!(", ca = \"{folder}/ca.pem\"")),
    ];
    toml.replace("[state]", "level = \"warn\"\nredact = { query = [\"token\"] }\n\n[state]")
        .replace("[service.app]", &format!("[shutdown]\ngrace = \"200ms\"\n\n{}[service.app]", logs.concat()))
}

/// The file's lines that have this in them, when there is one.
fn lines(file: &Path, wanted: &str) -> anyhow::Result<Vec<String>> {
    wait::until(&format!("{} has {wanted:?}", file.display()), PATIENCE, || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let found: Vec<_> = text.lines().filter(|line| line.contains(wanted)).map(str::to_owned).collect();
        Ok((!found.is_empty()).then_some(found))
    })
}

fn line(file: &Path, wanted: &str) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&lines(file, wanted)?[0])?)
}

#[test]
fn requests_are_told_wherever_an_operator_wants_them() -> Done {
    needs!(
        Need::Root,
        Need::Weir,
        Need::Ebpf,
        Need::Program("rsyslogd"),
        Need::Program("/usr/share/doc/rsyslog-openssl/copyright")
    );
    let mut stand = Stand::up_with(|lab, toml| configured(lab, &toml))?;
    let folder = stand.lab.folder().to_owned();
    let (access, errors, received) =
        (folder.join("access.log"), folder.join("errors.log"), folder.join("rsyslog.out"));

    // Nobody listens yet: that is told, and holds no request up.
    wait::until_true("a log that nobody takes is told", PATIENCE, || {
        stand.visitor.get("/early")?;
        let status = stand.weir.status()?;
        let failing = |name: &str| {
            let logs = status["access_logs"].as_array()?;
            logs.iter().find(|log| log["name"] == name)?["failing"].as_str().map(str::to_owned)
        };
        Ok(failing("tcp").is_some_and(|why| why.contains("refused")) && failing("unix").is_some())
    })?;
    let mut daemon = rsyslog(&stand.lab)?;

    // It is there, and gets everything over every transport, also what waited for it.
    let everywhere = |path: &str, severity: &str| -> Done {
        for (tag, facility) in
            [("weir-unix", "local0"), ("weir-udp", "local3"), ("weir-tcp", "local0"), ("weir-tls", "local0")]
        {
            wait::until_true(&format!("{tag} tells of {path}"), PATIENCE, || {
                let text = std::fs::read_to_string(&received).unwrap_or_default();
                let begin = format!("{tag} {facility}.{severity} ");
                Ok(text
                    .lines()
                    .any(|line| line.starts_with(&begin) && line.contains(&format!("\"path\":\"{path}"))))
            })?;
        }
        Ok(())
    };
    wait::until_true("the socket is there", PATIENCE, || Ok(folder.join("syslog.sock").exists()))?;
    wait::until_true("rsyslog listens", PATIENCE, || {
        stand.visitor.get("/knock")?;
        Ok(std::fs::read_to_string(&received).unwrap_or_default().contains("weir-udp"))
    })?;
    stand.visitor.get("/well")?;
    everywhere("/well", "info")?;
    lines(&received, "\"path\":\"/early\"")?;
    let request = stand.visitor.request("GET", "/status/500?token=abc123").header("x-a", "1");
    assert_eq!(stand.visitor.send(request.body(body(""))?)?.status, 500);
    everywhere("/status/500", "warning")?;
    assert_eq!(lines(&errors, "/status/500")?, ["GET /status/500?token=[redacted] 500 server - 1"]);
    for file in [&access, &errors, &received] {
        assert!(!std::fs::read_to_string(file)?.contains("abc123"), "{}", file.display());
    }
    assert!(!std::fs::read_to_string(&errors)?.contains("/well"), "only what the filter asks for");

    // A syslog that is restarted is found again.
    daemon.kill()?;
    stand.visitor.get("/alone")?;
    let _daemon = rsyslog(&stand.lab)?;
    for tag in ["weir-tcp", "weir-tls"] {
        wait::until_true(&format!("{tag} has come back"), PATIENCE, || {
            stand.visitor.get("/back")?;
            let text = std::fs::read_to_string(&received).unwrap_or_default();
            Ok(text.lines().any(|line| line.starts_with(tag) && line.contains("/back")))
        })?;
    }

    // Where the time went.
    stand.visitor.get("/slow?ms=120")?;
    let slow = line(&access, "/slow?ms=120")?;
    assert!(slow["first_byte_us"].as_u64() >= Some(120_000), "{slow:#}");
    let parts = ["wait_us", "connect_us", "first_byte_us", "answer_us"];
    let sum: u64 = parts.iter().filter_map(|part| slow[*part].as_u64()).sum();
    assert!(Some(sum) <= slow["duration_us"].as_u64(), "{slow:#}");
    let request = stand.visitor.request("POST", "/count");
    stand.visitor.send(request.body(body("x".repeat(1000)))?)?;
    assert!(line(&access, "/count")?["body_us"].is_u64());

    // How much the daemon tells is changed while it runs.
    let louder =
        configured(&stand.lab, &weir_lab::lab::weir::standard(&stand.lab)).replace("\"warn\"", "\"debug\"");
    let told = || stand.weir.log_text().matches("INFO").count();
    let before = told();
    stand.weir.rewrite_config(&louder)?;
    wait::until_true("more is told", PATIENCE, || Ok(told() > before))?;

    // What is cut off when the daemon ends is this host's doing.
    std::thread::scope(|scope| -> Done {
        let hanging = scope.spawn(|| stand.visitor.get("/slow?ms=8000"));
        wait::until_true("a request is under way", PATIENCE, || {
            let servers = stand.weir.status()?["services"][0]["servers"].clone();
            Ok(servers.as_array().is_some_and(|all| all.iter().any(|one| one["active"].as_u64() > Some(0))))
        })?;
        stand.weir.signal(Signal::SIGTERM)?;
        let answered = hanging.join();
        assert!(!matches!(answered, Ok(Ok(_))), "{answered:?}");
        Ok(())
    })?;
    stand.weir.wait(Duration::from_secs(20))?;
    let cut = line(&access, "/slow?ms=8000")?;
    assert_eq!((&cut["flags"], &cut["fault"]), (&serde_json::json!(["cut"]), &"weir".into()), "{cut:#}");
    Ok(())
}
