//! A headless Chromium and its chromedriver, as long as the value lives.

use std::fmt;
use std::fs;
use std::future::Future;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use fantoccini::error::CmdError;
use fantoccini::wd::{Capabilities, TimeoutConfiguration, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use xtask::browser::{CHROMEDRIVER, CHROMIUM};

/// The longest that a test may take: some load models of hundreds of megabytes on a CPU device.
const LONGEST_TEST: Duration = Duration::from_mins(10);

/// Headless, on any user account, with WebGPU on the CPU.
const FLAGS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--hide-scrollbars",
];

/// A running chromedriver.
struct Chromedriver {
    process: Child,
    url: String,
}

impl Chromedriver {
    fn start() -> Result<Self, String> {
        let program = CHROMEDRIVER.require()?;
        let process = Command::new(&program)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("{}: {e}", program.display()))?;
        let mut driver = Self { process, url: String::new() };
        let mut lines = driver.process.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines);
        // "ChromeDriver was started successfully on port 42101."
        let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
            line.split_once("successfully on port ")?.1.trim_end_matches('.').parse::<u16>().ok()
        });
        let port = port.ok_or_else(|| format!("{} did not say on which port it is", program.display()))?;
        driver.url = format!("http://127.0.0.1:{port}");
        std::thread::spawn(move || lines.for_each(drop)); // a full pipe would stop it
        Ok(driver)
    }
}

impl Drop for Chromedriver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The folder of a browser's profile; goes with the value, and so does every process that uses it.
struct Profile(PathBuf);

impl Profile {
    fn new() -> Result<Self, String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("girih-chromium-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self(path))
    }

    /// Processes that name the folder on their command line (Linux).
    fn users(&self) -> Vec<String> {
        let folder = self.0.to_string_lossy().into_owned();
        let uses = |process: &Path| {
            let line = fs::read(process.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&folder)
        };
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
        let named = |path: PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
        processes
            .filter(|path| uses(path))
            .filter_map(named)
            .filter(|name| name.parse::<u32>().is_ok())
            .collect()
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        // A browser that was closed is gone in a moment; one whose driver died would stay.
        let begun = Instant::now();
        while !self.users().is_empty() && begun.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(50));
        }
        for process in self.users() {
            let _ = Command::new("kill").args(["-9", &process]).status();
        }
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A browser with one window.
pub(crate) struct Chromium {
    runtime: Runtime,
    client: Option<Client>,
    /// What is open in the window.
    url: Option<String>,
    // In this order: the driver ends before its browser is looked for.
    driver: Chromedriver,
    profile: Profile,
}

impl Chromium {
    /// Starts a driver and a browser.
    pub(crate) fn start() -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| e.to_string())?;
        let (driver, profile) = (Chromedriver::start()?, Profile::new()?);
        let mut chromium = Self { runtime, client: None, url: None, driver, profile };
        chromium.connect()?;
        Ok(chromium)
    }

    fn connect(&mut self) -> Result<(), String> {
        let profile = format!("--user-data-dir={}", self.profile.0.display());
        let args: Vec<&str> = FLAGS.into_iter().chain([profile.as_str()]).collect();
        let mut capabilities = Capabilities::new();
        let binary = CHROMIUM.require()?;
        capabilities.insert("goog:chromeOptions".into(), json!({ "binary": binary, "args": args }));
        capabilities.insert("goog:loggingPrefs".into(), json!({ "browser": "ALL" }));
        let url = self.driver.url.clone();
        let connecting = async move {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            builder.capabilities(capabilities);
            tokio::time::timeout(Duration::from_mins(1), builder.connect(&url)).await
        };
        let client = self.runtime.block_on(connecting);
        let client = client.map_err(|_| "Chromium did not start within 60 s")?;
        let client = client.map_err(|e| format!("Chromium did not start: {e}"))?;
        let timeouts = TimeoutConfiguration::new(Some(LONGEST_TEST), Some(Duration::from_mins(1)), None);
        self.client = Some(client.clone());
        self.wait(async move { client.update_timeouts(timeouts).await })
    }

    /// Closes the browser and starts another.
    pub(crate) fn restart(&mut self) -> Result<(), String> {
        self.close();
        self.driver = Chromedriver::start()?;
        self.profile = Profile::new()?;
        self.connect()
    }

    fn close(&mut self) {
        self.url = None;
        if let Some(client) = self.client.take() {
            let closing = async move { tokio::time::timeout(Duration::from_secs(10), client.close()).await };
            let _ = self.runtime.block_on(closing);
        }
    }

    fn client(&self) -> Result<Client, String> {
        self.client.clone().ok_or_else(|| "the browser is not running".into())
    }

    fn wait<T>(&self, command: impl Future<Output = Result<T, CmdError>>) -> Result<T, String> {
        let longest = LONGEST_TEST + Duration::from_secs(30);
        match self.runtime.block_on(async { tokio::time::timeout(longest, command).await }) {
            Ok(result) => result.map_err(|e| e.to_string()),
            Err(_) => Err(format!("no answer of the browser within {} s", longest.as_secs())),
        }
    }

    /// Opens a test page, if it is not open, and waits until it has `girihTests`.
    pub(crate) fn open(&mut self, url: &str) -> Result<(), String> {
        if self.url.as_deref() == Some(url) {
            return Ok(());
        }
        self.goto(url)?;
        let begun = Instant::now();
        while self.evaluate("return window.girihTests !== undefined")? != json!(true) {
            if begun.elapsed() > Duration::from_mins(1) {
                self.url = None;
                return Err(format!(
                    "{url}: no window.girihTests within 60 s\n  {}",
                    self.console().join("\n  ")
                ));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Opens a page anew.
    pub(crate) fn goto(&mut self, url: &str) -> Result<(), String> {
        let client = self.client()?;
        self.url = None;
        self.console(); // what the page before wrote
        self.wait(async { client.goto(url).await }).map_err(|e| format!("{url}: {e}"))?;
        self.url = Some(url.into());
        Ok(())
    }

    /// Calls a function of the page's `girihTests` and waits for its promise.
    pub(crate) fn call(&mut self, function: &str, args: &[Value]) -> Result<Value, String> {
        const SCRIPT: &str = "
            const done = arguments[arguments.length - 1];
            Promise.resolve()
                .then(() => window.girihTests[arguments[0]](...arguments[1]))
                .then(value => done({ value }), error => done({ error: String(error?.stack ?? error) }));";
        let client = self.client()?;
        let args = vec![json!(function), json!(args)];
        let answer = self.wait(async { client.execute_async(SCRIPT, args).await })?;
        match &answer["error"] {
            Value::String(error) => Err(error.clone()),
            _ => Ok(answer["value"].clone()),
        }
    }

    /// Runs the body of a function in the page.
    pub(crate) fn evaluate(&self, script: &str) -> Result<Value, String> {
        let client = self.client()?;
        self.wait(async { client.execute(script, vec![]).await })
    }

    /// A command of Chromium's own protocol.
    pub(crate) fn devtools(&self, command: &str, params: &Value) -> Result<Value, String> {
        self.vendor("goog/cdp/execute", json!({ "cmd": command, "params": params }))
    }

    /// A PNG of the window.
    pub(crate) fn screenshot(&self) -> Result<Vec<u8>, String> {
        let client = self.client()?;
        self.wait(async { client.screenshot().await })
    }

    /// What the console got since this was last asked, a line each.
    pub(crate) fn console(&self) -> Vec<String> {
        let entries = self.vendor("se/log", json!({ "type": "browser" })).unwrap_or_default();
        let line = |entry: &Value| {
            format!("{} {}", entry["level"].as_str().unwrap_or("?"), entry["message"].as_str().unwrap_or("?"))
        };
        entries.as_array().into_iter().flatten().map(line).collect()
    }

    fn vendor(&self, path: &'static str, body: Value) -> Result<Value, String> {
        let client = self.client()?;
        self.wait(async { client.issue_cmd(Vendor { path, body }).await })
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        self.close();
    }
}

/// A command that is not in the standard.
#[derive(Debug)]
struct Vendor {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Vendor {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.body.to_string()))
    }
}

impl fmt::Debug for Chromium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chromium").field("url", &self.url).finish_non_exhaustive()
    }
}
