//! A real browser without a screen, told what to do over the DevTools protocol: over two pipes, one JSON object after the other,
//! each with a NUL at its end.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{namespace::Namespace, wait};

/// A machine that is busy with other things takes long to start a browser.
const PATIENCE: Duration = Duration::from_secs(30);

/// A browser with one page. It ends on drop.
#[derive(Debug)]
pub struct Chromium {
    child: Child,
    orders: ChildStdin,
    answers: Receiver<Value>,
    /// Of the page.
    session: Option<String>,
    asked: u64,
    happened: Vec<Value>,
}

impl Chromium {
    /// Starts it inside of a namespace, with a profile of its own below `folder`.
    pub fn open(namespace: &Namespace, folder: &Path) -> anyhow::Result<Self> {
        let profile = folder.join("chromium");
        // It reads orders from descriptor 3 and answers on 4.
        let script = "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null";
        let mut command = namespace.command("sh")?;
        command.args(["-c", script, "sh", "chromium", "--headless", "--no-sandbox", "--disable-gpu"]);
        command.args(["--no-first-run", "--disable-background-networking", "--disable-component-update"]);
        command.args(["--disable-sync", "--hide-scrollbars", "--remote-debugging-pipe"]);
        command.arg(format!("--user-data-dir={}", profile.display())).env("HOME", &profile);
        let log = std::fs::File::create(folder.join("chromium.log"))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().context("can't start chromium")?;
        let orders = child.stdin.take().context("its input was not piped")?;
        let output = child.stdout.take().context("its output was not piped")?;
        let (tell, answers) = mpsc::channel();
        std::thread::spawn(move || {
            for message in BufReader::new(output).split(0) {
                let told = message.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
                let Some(told) = told else { return };
                // Nobody listens any more when the browser is dropped.
                let _ = tell.send(told);
            }
        });
        let mut browser = Self { child, orders, answers, session: None, asked: 0, happened: Vec::new() };
        let page = browser.call("Target.createTarget", json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": page["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach)?;
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(browser)
    }

    pub fn go(&mut self, url: &str) -> anyhow::Result<()> {
        let went = self.call("Page.navigate", json!({ "url": url }))?;
        ensure!(went.get("errorText").is_none(), "{url} can't be opened: {went}");
        Ok(())
    }

    /// What an expression gives in the page.
    pub fn evaluate(&mut self, expression: &str) -> anyhow::Result<Value> {
        let how = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", how)?;
        ensure!(answer.get("exceptionDetails").is_none(), "`{expression}` failed: {answer}");
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until an expression holds in the page.
    pub fn until(&mut self, expression: &str, within: Duration) -> anyhow::Result<()> {
        let waited = wait::until_true(expression, within, || Ok(self.evaluate(expression)? == true));
        waited.with_context(|| format!("the page says:\n{}", self.text().unwrap_or_default()))
    }

    /// What can be read on the page.
    pub fn text(&mut self) -> anyhow::Result<String> {
        let text = self.evaluate("document.body.innerText")?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// As a mouse does it: in the middle of what the selector names, which must be there to be pressed.
    pub fn click(&mut self, selector: &str) -> anyhow::Result<()> {
        let place = format!(
            "(() => {{ const it = document.querySelector({selector:?}); if (!it) return null; \
             it.scrollIntoView({{ block: 'center' }}); const box = it.getBoundingClientRect(); \
             return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        );
        let (x, y) = wait::until(&format!("`{selector}` is on the page"), PATIENCE, || {
            let place = self.evaluate(&place)?;
            Ok(place[0].as_f64().zip(place[1].as_f64()))
        })?;
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": x, "y": y, "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event)?;
        }
        Ok(())
    }

    /// Types where the focus is.
    pub fn write(&mut self, text: &str) -> anyhow::Result<()> {
        self.call("Input.insertText", json!({ "text": text })).map(drop)
    }

    /// The size of the window, and which colours its owner prefers.
    pub fn screen(&mut self, width: u32, height: u32, dark: bool) -> anyhow::Result<()> {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.call("Emulation.setDeviceMetricsOverride", size)?;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features })).map(drop)
    }

    /// A picture of the page, down to its end or to `height`.
    pub fn picture(&mut self, file: &Path, width: u32, height: u32) -> anyhow::Result<()> {
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
        let how = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let answer = self.call("Page.captureScreenshot", how)?;
        let data = BASE64_STANDARD.decode(answer["data"].as_str().context("no picture")?)?;
        std::fs::write(file, data).with_context(|| format!("can't write {}", file.display()))
    }

    /// What the console says: exceptions, errors, and what the page's policy forbade. Not that a request was refused.
    pub fn complaints(&mut self) -> anyhow::Result<Vec<String>> {
        // Whatever happened before this was answered has been told.
        self.evaluate("0")?;
        let complaint = |event: &Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown" | "Runtime.consoleAPICalled") => Some(event.to_string()),
            Some("Log.entryAdded") => {
                let is_of_network = event["params"]["entry"]["source"] == "network";
                (!is_of_network).then(|| event.to_string())
            }
            _ => None,
        };
        Ok(self.happened.iter().filter_map(complaint).collect())
    }

    /// How many bytes came over the network until now, heads and all.
    pub fn transferred(&mut self) -> anyhow::Result<u64> {
        self.evaluate("0")?;
        let of = |event: &Value| match event["method"].as_str() {
            Some("Network.loadingFinished") => event["params"]["encodedDataLength"].as_f64(),
            _ => None,
        };
        Ok(self.happened.iter().filter_map(of).sum::<f64>() as u64)
    }

    fn call(&mut self, method: &str, arguments: Value) -> anyhow::Result<Value> {
        self.asked += 1;
        let mut order = json!({ "id": self.asked, "method": method });
        order["params"] = arguments;
        if let Some(session) = &self.session {
            order["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&order)?;
        bytes.push(0);
        self.orders.write_all(&bytes).context("chromium has ended")?;
        let begun = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            match self.answers.recv_timeout(left) {
                Ok(mut told) if told["id"] == self.asked => {
                    ensure!(told.get("error").is_none(), "{method}: {told}");
                    return Ok(told["result"].take());
                }
                Ok(event) => self.happened.push(event),
                Err(RecvTimeoutError::Timeout) => bail!("chromium does not answer {method}"),
                Err(RecvTimeoutError::Disconnected) => bail!("chromium ended before it answered {method}"),
            }
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // It leads a group of its own, in which its helpers are.
        let group = Pid::from_raw(self.child.id().cast_signed());
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}
