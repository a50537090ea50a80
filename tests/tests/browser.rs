//! The tests that run in a browser: headless Chromium with the CPU device SwiftShader, through chromedriver.
//!
//! A test page has `window.girihTests`, with `list()` and `run(name)`; each of its tests is one test here, and counts
//! as skipped if it compared nothing. The page of `web/site` in cargo's target folder is looked at as well, and
//! screenshots of it stay in `web/screenshots`.
//!
//! `cargo xtask web` builds what is tested, `cargo xtask test` does so too; `cargo test --workspace --test browser --
//! FILTER` runs again what is there.

#[path = "browser/chromium.rs"]
mod chromium;
#[path = "browser/site.rs"]
mod site;

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use girih_model::checkpoint::source::ByteSource;
use girih_model::checkpoint::synthetic::SyntheticSource;
use girih_web_build::package::Paths;
use girih_web_build::serve::{Content, Options, Route, Server};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};
use xtask::{process, source};

use chromium::Chromium;

/// Test pages: the start of their tests' names, their path, and beginnings of the names of tests that another page has.
/// Kernels run every variant of t0 at t1 too; models choose others there, of which the logits tell. Greedy tokens come from
/// the logits of steps, which `incremental` compares at t0; the package's stories are greedy.
const PAGES: [(&str, &str, &[&str]); 3] = [
    ("api", "tests/api.html", &[]),
    ("t0", "tests/kernels.html?tier=t0", &["kernel_twins::", "models::greedy"]),
    ("t1", "tests/kernels.html?tier=t1", &["models::greedy", "models::incremental", "models::a_ragged"]),
];

/// Variables of the environment that a page gets as parameters.
const NARROWING: [&str; 2] = ["GIRIH_KERNEL", "GIRIH_MODEL"];

/// What all tests share.
struct Bed {
    server: Server,
    chromium: Mutex<Chromium>,
}

impl Bed {
    fn new() -> Result<Self, String> {
        let root = source::root();
        let paths = Paths::of(&root, &process::target_dir()?);
        if !paths.report().is_file() {
            return Err(format!(
                "found no {}, wanted the package for browsers: `cargo xtask web` builds it",
                paths.report().display()
            ));
        }
        let routes = vec![
            Route::folder("/", paths.out.join("site")),
            Route::folder("/girih/", paths.out.join("girih")),
            Route::folder("/tests/", paths.out.join("tests")),
            Route::folder("/goldens/", root.join("tests/goldens")),
            Route::folder("/assets/", root.join("assets")),
            synthetic(),
        ];
        let server = Server::start(routes, Options { port: 0, faults: true }).map_err(|e| e.to_string())?;
        Ok(Self { server, chromium: Mutex::new(Chromium::start()?) })
    }

    fn chromium(&self) -> MutexGuard<'_, Chromium> {
        self.chromium.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One trial for each test of a page, or one that fails if the page has none.
    fn page_trials(self: &Arc<Self>, (prefix, path, without): (&str, &str, &[&str])) -> Vec<Trial> {
        let mut url = format!("{}{path}", self.server.url());
        for (name, value) in NARROWING.iter().filter_map(|name| Some((name, std::env::var(name).ok()?))) {
            url = format!("{url}{}{name}={value}", if url.contains('?') { '&' } else { '?' });
        }
        let mut chromium = self.chromium();
        let listed = chromium.open(&url).and_then(|()| chromium.call("list", &[]));
        drop(chromium);
        let names: Result<Vec<String>, String> =
            listed.and_then(|names| serde_json::from_value(names).map_err(|e| e.to_string()));
        match names {
            Ok(mut names) if !names.is_empty() => {
                names.retain(|name| !without.iter().any(|start| name.starts_with(start)));
                let trial = |name: String| {
                    let (bed, url) = (Arc::clone(self), url.clone());
                    let test = format!("{prefix}::{name}");
                    Trial::test(test.clone(), move || bed.run_in_page(&url, &name, &test))
                };
                names.into_iter().map(trial).collect()
            }
            other => {
                let why = other.map_or_else(|error| error, |_| "found no tests in it".into());
                let why = format!("{path}: {why}");
                vec![Trial::test(format!("{prefix}::the_page_lists_its_tests"), move || Err(why.into()))]
            }
        }
    }

    /// Runs a test of a page, which is called `test` here.
    fn run_in_page(&self, url: &str, name: &str, test: &str) -> Result<(), Failed> {
        let mut chromium = self.chromium();
        let outcome = chromium.open(url).and_then(|()| chromium.call("run", &[json!(name)]));
        let console = chromium.console();
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                // The page hangs or is gone; the next test shall not be its victim.
                chromium.restart()?;
                return Err(failure(&error, &[], &console).into());
            }
        };
        let log: Vec<&str> =
            outcome["log"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if outcome["ok"] != json!(true) {
            return Err(failure(outcome["message"].as_str().unwrap_or("no message"), &log, &console).into());
        }
        if let Some(why) = outcome["skipped"].as_str() {
            girih_tests::print_skipped(test, why);
        }
        match console.iter().find(|line| line.contains("Content Security Policy")) {
            Some(violation) => Err(violation.into()),
            None => Ok(()),
        }
    }
}

/// The message of a failed test with the lines that it and the browser's console wrote.
fn failure(message: &str, log: &[&str], console: &[String]) -> String {
    let lines = |title: &str, lines: &mut dyn Iterator<Item = &str>| {
        lines.fold(String::new(), |text, line| format!("{text}\n  {title}: {line}"))
    };
    message.to_owned()
        + &lines("log", &mut log.iter().copied())
        + &lines("console", &mut console.iter().map(String::as_str))
}

/// `/synthetic/<name>/<file>`: checkpoints that are never in memory or on disk.
fn synthetic() -> Route {
    let made: Mutex<HashMap<String, Arc<SyntheticSource>>> = Mutex::default();
    Route::new("/synthetic/", move |path| {
        let (name, file) = path.split_once('/')?;
        let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
        if !made.contains_key(name) {
            made.insert(name.to_owned(), Arc::new(SyntheticSource::new(name).ok()?));
        }
        let source = Arc::clone(&made[name]);
        let len = pollster::block_on(source.size(file)).ok()??;
        Some(Box::new(SyntheticFile { source, file: file.to_owned(), len }) as Box<dyn Content>)
    })
}

struct SyntheticFile {
    source: Arc<SyntheticSource>,
    file: String,
    len: u64,
}

impl Content for SyntheticFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn etag(&self) -> String {
        format!("\"synthetic-{}\"", self.len)
    }

    fn read(&mut self, range: Range<u64>) -> io::Result<Vec<u8>> {
        pollster::block_on(self.source.read(&self.file, range)).map_err(io::Error::other)
    }
}

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    args.test_threads = Some(1); // one browser, and a CPU that it needs for itself
    let bed = match Bed::new() {
        Ok(bed) => Arc::new(bed),
        Err(error) => {
            // Whatever was asked for: nothing of it can run.
            args.filter = None;
            args.skip.clear();
            let trial = Trial::test("what_the_tests_need_is_there", move || Err(error.into()));
            return libtest_mimic::run(&args, vec![trial]).exit_code();
        }
    };
    let mut trials: Vec<Trial> = PAGES.into_iter().flat_map(|page| bed.page_trials(page)).collect();
    trials.extend(site::trials(&bed));
    let code = libtest_mimic::run(&args, trials).exit_code();
    drop(bed); // ends the browser
    code
}
