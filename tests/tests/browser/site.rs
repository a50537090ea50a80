//! The page itself: tells a story, fits on a desktop and on a phone, in light and in dark. Screenshots for reviewers
//! stay in `web/screenshots` of cargo's target folder.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use girih_web_build::package;
use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use xtask::process;

use crate::Bed;
use crate::chromium::Chromium;

/// Name, width, height, whether it is a phone.
const SCREENS: [(&str, u32, u32, bool); 2] = [("desktop", 1280, 800, false), ("phone", 390, 844, true)];

/// Views of the page by their address.
const VIEWS: [&str; 4] = ["story", "model", "device", "bench"];

/// One trial for each screen and colour scheme.
pub(crate) fn trials(bed: &Arc<Bed>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for screen in SCREENS {
        for scheme in ["light", "dark"] {
            let bed = Arc::clone(bed);
            let run = move || {
                let mut chromium = bed.chromium();
                let result = look(&mut chromium, bed.server.url(), screen, scheme);
                // The next test gets a window as it was.
                chromium.restart()?;
                result
            };
            trials.push(Trial::test(format!("site::{}_{scheme}", screen.0), run));
        }
    }
    trials
}

/// Has the page tell a story, then looks at its views.
fn look(
    chromium: &mut Chromium,
    url: &str,
    (screen, width, height, is_phone): (&str, u32, u32, bool),
    scheme: &str,
) -> Result<(), Failed> {
    let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone });
    chromium.devtools("Emulation.setDeviceMetricsOverride", &metrics)?;
    let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
    chromium.devtools("Emulation.setEmulatedMedia", &features)?;
    chromium.goto(url)?;

    wait_for(
        chromium,
        "the story model",
        "return document.getElementById('story-write').disabled === false",
    )?;
    chromium.evaluate("document.getElementById('story-write').click()")?;
    wait_for(
        chromium,
        "the end of a story",
        "return document.getElementById('story-foot').hidden === false",
    )?;
    let text = |chromium: &Chromium, id: &str| -> Result<String, String> {
        let script = format!("return document.getElementById('{id}').textContent.trim()");
        Ok(chromium.evaluate(&script)?.as_str().unwrap_or_default().to_owned())
    };
    let story = text(chromium, "story-text")?;
    if story.split_whitespace().count() < 20 {
        return Err(format!("found the story {story:?}, wanted at least 20 words").into());
    }
    let compiled = text(chromium, "figure-pipelines")?;
    if compiled != "0" {
        return Err(format!("found {compiled:?} pipelines compiled during the story, wanted 0").into());
    }

    let dir = package::out(&process::target_dir()?).join("screenshots");
    fs::create_dir_all(&dir)?;
    for view in VIEWS {
        chromium.evaluate(&format!("location.hash = '#{view}'"))?;
        let shown = format!("return document.getElementById('{view}').hidden === false");
        wait_for(chromium, view, &shown)?;
        chromium.evaluate("scrollTo(0, 0)")?;
        let wide = chromium.evaluate("return [document.documentElement.scrollWidth, innerWidth]")?;
        if wide[0].as_u64() > wide[1].as_u64() {
            return Err(format!("{view} is {} pixels wide, wanted at most {}", wide[0], wide[1]).into());
        }
        let png = chromium.screenshot()?;
        if dimensions(&png) != Some((width, height)) {
            let found = dimensions(&png);
            return Err(format!("found a screenshot of {found:?} pixels, wanted {width} x {height}").into());
        }
        fs::write(dir.join(format!("{view}-{screen}-{scheme}.png")), png)?;
    }
    match chromium
        .console()
        .iter()
        .find(|line| line.starts_with("SEVERE") || line.contains("Security Policy"))
    {
        Some(line) => Err(line.into()),
        None => Ok(()),
    }
}

/// Waits until a script returns true.
fn wait_for(chromium: &Chromium, what: &str, script: &str) -> Result<(), Failed> {
    let begun = Instant::now();
    while chromium.evaluate(script)? != Value::Bool(true) {
        if begun.elapsed() > Duration::from_mins(3) {
            let state = chromium.evaluate("return document.body.innerText.slice(0, 600)")?;
            let console = chromium.console().join("\n  ");
            return Err(format!("found no {what} within 180 s; the page says {state}\n  {console}").into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Width and height of a PNG.
fn dimensions(png: &[u8]) -> Option<(u32, u32)> {
    let number = |at: usize| Some(u32::from_be_bytes(png.get(at..at + 4)?.try_into().ok()?));
    png.starts_with(b"\x89PNG\r\n\x1a\n").then_some(())?;
    Some((number(16)?, number(20)?))
}
