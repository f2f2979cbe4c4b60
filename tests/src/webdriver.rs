//! Pages in a real browser: headless Chromium, driven over the WebDriver protocol.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use serde_json::{Value, json};

use crate::program::Running;
use crate::{installed, listens, on_free_port, wait_until};

/// A browser window that closes with the test.
pub struct Browser {
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
    session: String,
    // After these, so that the driver and the browser end after the session, and then goes what they leave behind.
    _driver: Running,
    _folder: tempfile::TempDir,
}

impl Browser {
    /// A window of this size in pixels; `None` with a message where this machine has no Chromium.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(width: u32, height: u32) -> Option<Self> {
        let program = installed("chromedriver")?;
        let folder = tempfile::tempdir().expect("a folder");
        let drive = |port: u16| {
            // The browser too ends with it, where it does not by itself.
            Running::start_group(
                Command::new(&program)
                    .arg(format!("--port={port}"))
                    .env("TMPDIR", folder.path()),
            )
        };
        let (driver, port) = on_free_port("chromedriver", drive, listens);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_mins(2))
            .build()
            .expect("a client");
        let mut browser = Self {
            client,
            runtime,
            session: format!("http://127.0.0.1:{port}"),
            _driver: driver,
            _folder: folder,
        };
        wait_until("chromedriver", || browser.try_get("/status").is_some());
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            &format!("--window-size={width},{height}"),
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        }}});
        let made = browser.post("/session", &wanted);
        let id = made["sessionId"].as_str().expect("a session");
        browser.session = format!("http://127.0.0.1:{port}/session/{id}");
        // A window has borders; a page on a phone has none.
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        browser.command("Emulation.setDeviceMetricsOverride", &metrics);
        Some(browser)
    }

    /// Opens a file.
    ///
    /// # Panics
    /// When the driver refuses.
    pub fn open(&self, path: &Path) {
        let path = path.canonicalize().expect("the page");
        let url = reqwest::Url::from_file_path(path).expect("an address");
        self.go(url.as_str());
    }

    /// Opens an address.
    pub fn go(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    /// Runs the body of a function in the page and gives what it returns.
    pub fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Presses keys, one after the other: characters, or WebDriver's code points of special keys.
    pub fn press(&self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() })))
            .collect();
        self.post(
            "/actions",
            &json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": actions }] }),
        );
    }

    /// Lets pages see this value of a media feature, as `dark` of `prefers-color-scheme`.
    pub fn prefer(&self, feature: &str, value: &str) {
        let features = json!({ "features": [{ "name": feature, "value": value }] });
        self.command("Emulation.setEmulatedMedia", &features);
    }

    /// What was written to the console since the last call, errors of loading included.
    pub fn console(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({ "type": "browser" }));
        let entries = entries.as_array().cloned().unwrap_or_default();
        entries.iter().map(ToString::to_string).collect()
    }

    /// The window as a PNG.
    ///
    /// # Panics
    /// When the driver gives none.
    pub fn screenshot(&self) -> Vec<u8> {
        let taken = self.try_get("/screenshot").expect("a screenshot");
        base64::engine::general_purpose::STANDARD
            .decode(taken.as_str().expect("text"))
            .expect("base64")
    }

    fn command(&self, name: &str, parameters: &Value) {
        self.post("/goog/cdp/execute", &json!({ "cmd": name, "params": parameters }));
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let request = self.client.post(format!("{}{path}", self.session)).json(body);
        let answer: Value = self
            .runtime
            .block_on(async { request.send().await?.json().await })
            .unwrap_or_else(|error: reqwest::Error| panic!("{path}: {error}"));
        let value = answer["value"].clone();
        assert!(value.get("error").is_none(), "{path} {body}: {value}");
        value
    }

    fn try_get(&self, path: &str) -> Option<Value> {
        let request = self.client.get(format!("{}{path}", self.session));
        let answer: Value = self
            .runtime
            .block_on(async { request.send().await?.json::<Value>().await })
            .ok()?;
        Some(answer["value"].clone())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // In order, where that is still possible.
        let _ = self
            .runtime
            .block_on(async { self.client.delete(&self.session).send().await });
    }
}
