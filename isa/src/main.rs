//! What the kernels become on GPUs that are not here: compiles every text that `select` gives a device with Mesa's
//! compilers, and reports registers, spills, occupancy, the hot loop and the share of the roofline that these admit.
//! `cargo xtask isa` brings Mesa and starts this; `docs/machine-code.md` is the guide.
// The rest waits for the compilers, which are Linux's.
#![cfg_attr(not(target_os = "linux"), allow(dead_code))]

#[cfg(target_os = "linux")]
mod compile;
mod devices;
mod launch;
mod listing;
mod model;
mod options;
mod page;
mod record;
mod roofline;
mod row;
#[cfg(target_os = "linux")]
mod spirv;
mod statistics;
mod table;
mod texts;
#[cfg(target_os = "linux")]
mod vulkan;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::options::Options;
use crate::record::Record;
use crate::row::{Compiled, Row};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.split_first() {
        Some((first, rest)) if first == "compile" => compile_here(rest),
        _ => Options::parse(&args).and_then(|options| report(&options)),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Compiles for the device whose shim this process was started with; prints JSON.
#[cfg(target_os = "linux")]
fn compile_here(args: &[String]) -> Result<bool, String> {
    let options = Options::parse(args)?;
    let device = options.devices.first().ok_or("wanted a device, found none")?;
    println!("{}", json(&compile::compile(device, &options)?)?);
    Ok(true)
}

#[cfg(not(target_os = "linux"))]
fn compile_here(_: &[String]) -> Result<bool, String> {
    Err(format!("found {}, wanted Linux: the drivers that compile here are Linux's", std::env::consts::OS))
}

fn json(value: &impl serde::Serialize) -> Result<String, String> {
    serde_json::to_string(value).map_err(|e| e.to_string())
}

fn report(options: &Options) -> Result<bool, String> {
    if options.list {
        print!("{}", table::devices());
        return Ok(true);
    }
    if options.packages.as_os_str().is_empty() {
        return Err("wanted --packages FOLDER, found none: `cargo xtask isa` brings them".into());
    }
    let all = launch::compile_all(options)?;
    let rows: Vec<Row> = all.iter().flat_map(|compiled| compiled.rows.clone()).collect();
    if rows.is_empty() {
        return Err(format!("no kernel is called {}", options.filters.join(" or ")));
    }
    let mut good = true;
    for refused in all.iter().flat_map(|compiled| &compiled.refused) {
        eprintln!("refused: {refused}");
        good = false;
    }
    // Only what is recorded can be matched with: recorded rows have no selection.
    let wants = |row: &Row| options.wants(&row.label());
    if options.check {
        good &= check(&all, wants)?;
    } else if options.record {
        write_record(&all, wants)?;
    } else if options.json {
        println!("{}", json(&all)?);
    } else {
        print!("{}", table::table(&rows, options.loops));
        println!("listings: {}", options.out.display());
    }
    Ok(good)
}

/// Folder of the record.
fn benchmarks() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs").join("benchmarks")
}

fn read_record() -> Result<Record, String> {
    let path = benchmarks().join("isa.json");
    let text = std::fs::read_to_string(&path)
        .map_err(|e| format!("{}: {e}; `cargo xtask isa --record` writes it", path.display()))?;
    Record::read(&text)
}

fn check(all: &[Compiled], wants: impl Fn(&Row) -> bool) -> Result<bool, String> {
    let found = read_record()?.compare(all, wants);
    for note in &found.notes {
        println!("note: {note}");
    }
    for failure in &found.failures {
        println!("failed: {failure}");
    }
    let rows: usize = all.iter().map(|compiled| compiled.rows.len()).sum();
    println!("isa: {rows} rows on {} devices, {} failed", all.len(), found.failures.len());
    Ok(found.failures.is_empty())
}

fn write_record(all: &[Compiled], wants: impl Fn(&Row) -> bool) -> Result<(), String> {
    let folder = benchmarks();
    let mut record = if folder.join("isa.json").exists() { read_record()? } else { Record::default() };
    record.update(all, wants);
    for (name, text) in [("isa.json", record.json()?), ("isa.md", page::page(&record))] {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("written: {}", path.display());
    }
    Ok(())
}
