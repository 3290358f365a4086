//! A real Chromium without a screen, steered over the DevTools protocol: what a page shows, what
//! becomes of a click, and whether it complained.

use std::{fs, net::TcpStream, path::Path, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket, client};

use crate::{
    namespace::Namespace,
    pace::at_this_pace,
    process::{Process, installed, wait_for},
};

/// How long it may take to come up, and to answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// What it prints before the address that it listens at.
const LISTENS: &str = "DevTools listening on ";

/// A browser with one page. Dropping it ends it.
pub struct Browser {
    socket: WebSocket<TcpStream>,
    session: Option<String>,
    requests: u64,
    complaints: Vec<String>,
    _process: Process,
}

impl Browser {
    /// Starts one in a namespace, with its files in `directory`.
    pub fn start(namespace: &Namespace, directory: &Path) -> Result<Self> {
        if !installed("chromium") {
            bail!("chromium is not installed; `cargo xtask setup` installs it");
        }
        let directory = directory.join("chromium");
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let mut command = namespace.command("chromium")?;
        command
            .args([
                "--headless",
                // Of the tests, which are root.
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--remote-debugging-port=0",
            ])
            .arg(format!("--user-data-dir={}", directory.display()))
            .arg("about:blank")
            .env("HOME", &directory);
        let log = directory.join("log");
        let process = Process::start("chromium", command, &log)?;
        let url = wait_for("Chromium to listen", PATIENCE, || {
            process.ensure_running()?;
            let text = fs::read_to_string(&log).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(LISTENS));
            Ok(line.map(str::to_owned))
        })?;
        let address = url
            .strip_prefix("ws://")
            .and_then(|rest| rest.split('/').next())
            .with_context(|| format!("{url} is no address of Chromium's"))?;
        let stream = namespace
            .run(|| TcpStream::connect(address))
            .context("cannot connect to Chromium")?;
        stream.set_read_timeout(Some(at_this_pace(PATIENCE)))?;
        let (socket, _) =
            client(&url, stream).map_err(|error| anyhow!("Chromium refuses {url}: {error}"))?;
        let mut browser = Self {
            socket,
            session: None,
            requests: 0,
            complaints: Vec::new(),
            _process: process,
        };
        browser.attach()?;
        Ok(browser)
    }

    fn attach(&mut self) -> Result<()> {
        let target = self.ask("Target.createTarget", json!({ "url": "about:blank" }))?;
        let id = &target["targetId"];
        let way = json!({ "targetId": id, "flatten": true });
        let attached = self.ask("Target.attachToTarget", way)?;
        self.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            self.ask(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(())
    }

    /// Goes to a page, which need not have finished when this returns.
    pub fn open(&mut self, url: &str) -> Result<()> {
        let answer = self.ask("Page.navigate", json!({ "url": url }))?;
        match answer["errorText"].as_str() {
            None => Ok(()),
            Some(error) => bail!("Chromium cannot open {url}: {error}"),
        }
    }

    /// The value of an expression in the page, awaited if it is a promise.
    pub fn evaluate(&mut self, script: &str) -> Result<Value> {
        let way = json!({
            "expression": script,
            "awaitPromise": true,
            "returnByValue": true,
            "userGesture": true,
        });
        let mut answer = self.ask("Runtime.evaluate", way)?;
        if !answer["exceptionDetails"].is_null() {
            bail!("`{script}` failed: {}", answer["exceptionDetails"]);
        }
        Ok(answer["result"]["value"].take())
    }

    /// Waits until an expression is true.
    pub fn wait_until(&mut self, script: &str) -> Result<()> {
        wait_for(&format!("`{script}` in the page"), PATIENCE, || {
            let found = self.evaluate(&format!("Boolean({script})"))?;
            Ok((found == true).then_some(()))
        })
    }

    /// Looks at the page through a window of this size in pixels, in dark colours or in light ones.
    pub fn view(&mut self, width: u32, height: u32, dark: bool) -> Result<()> {
        let size = json!({
            "width": width,
            "height": height,
            "deviceScaleFactor": 1,
            "mobile": width < 600,
        });
        self.ask("Emulation.setDeviceMetricsOverride", size)?;
        let scheme = if dark { "dark" } else { "light" };
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        let media = json!({ "features": [feature] });
        self.ask("Emulation.setEmulatedMedia", media)?;
        Ok(())
    }

    /// Writes what the window shows as PNG.
    pub fn screenshot(&mut self, path: &Path) -> Result<()> {
        let answer = self.ask("Page.captureScreenshot", json!({ "format": "png" }))?;
        let text = answer["data"].as_str().context("Chromium has no picture")?;
        let picture = BASE64_STANDARD.decode(text).context("no picture")?;
        fs::write(path, picture).with_context(|| format!("cannot write {}", path.display()))
    }

    /// What the page has complained of so far: uncaught errors, and what its policy forbade.
    pub fn complaints(&mut self) -> Result<Vec<String>> {
        // What was said before this answer has arrived with it.
        self.evaluate("0")?;
        Ok(self.complaints.clone())
    }

    fn ask(&mut self, method: &str, params: Value) -> Result<Value> {
        self.requests += 1;
        let id = self.requests;
        let mut request = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            request["sessionId"] = session.as_str().into();
        }
        let failed = || format!("asking Chromium for {method}");
        self.socket
            .send(Message::text(request.to_string()))
            .with_context(failed)?;
        loop {
            let message = self.socket.read().with_context(failed)?;
            let Message::Text(text) = message else {
                continue;
            };
            let mut answer: Value = serde_json::from_str(&text).with_context(failed)?;
            if answer["id"] != id {
                self.listen(&answer);
            } else if answer["error"].is_null() {
                return Ok(answer["result"].take());
            } else {
                bail!("Chromium refuses {method}: {}", answer["error"]);
            }
        }
    }

    fn listen(&mut self, event: &Value) {
        let params = &event["params"];
        let complaint = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => params["exceptionDetails"].to_string(),
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
                params["entry"].to_string()
            }
            _ => return,
        };
        self.complaints.push(complaint);
    }
}
