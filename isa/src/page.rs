//! `docs/benchmarks/isa.md`: the record for readers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::devices::{DEVICES, Device};
use crate::record::Record;
use crate::row::{Row, or_dash};

/// The page.
pub fn page(record: &Record) -> String {
    let is_recorded = |device: &&Device| record.rows.iter().any(|row| row.device == device.name);
    let devices: Vec<&Device> = DEVICES.iter().filter(is_recorded).collect();
    let mut text = format!(
        "# What the kernels become\n\nWritten by `cargo xtask isa --record`, compiled with {} for hardware that was not \
         there; nothing was run. [machine-code.md](../machine-code.md) says how to read it. `isa.json` has the same rows, \
         and the instructions of the hot loops by class.\n",
        record.driver
    );
    text += &spills(&record.rows);
    text += &shares(&record.rows, &devices);
    for device in devices {
        text += &figures(&record.rows, device);
    }
    text
}

fn spills(rows: &[Row]) -> String {
    let spilling: Vec<&Row> = rows.iter().filter(|row| row.spills > 0).collect();
    if spilling.is_empty() {
        return "\n## Spills\n\nNone.\n".into();
    }
    let mut text =
        "\n## Spills\n\n| device | kernel | spills | scratch, bytes |\n|---|---|---|---|\n".to_owned();
    for row in spilling {
        let (name, scratch) = (row.name(), row.scratch_bytes);
        let _ = writeln!(text, "| {} | {name} | {} | {scratch} |", row.device, row.spills);
    }
    text
}

/// A line for each kernel with a shape, a column for each device.
fn shares(rows: &[Row], devices: &[&Device]) -> String {
    let names: Vec<&str> = devices.iter().map(|device| device.name).collect();
    let mut text = format!(
        "\n## Share of the roofline that is admitted, at most\n\nPercent, and what binds: m memory, a arithmetic, \
         i instructions, w waves, l latency.\n\n| kernel | {} |\n|---|{}\n",
        names.join(" | "),
        "---|".repeat(names.len())
    );
    let mut by_name: BTreeMap<String, BTreeMap<&str, &Row>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.admits.is_some()) {
        by_name.entry(row.name()).or_default().insert(&row.device, row);
    }
    for (name, of_device) in &by_name {
        let cell = |device: &&str| of_device.get(*device).map_or_else(|| "-".into(), |row| share(row));
        let _ = writeln!(text, "| {name} | {} |", names.iter().map(cell).collect::<Vec<_>>().join(" | "));
    }
    text
}

fn share(row: &Row) -> String {
    let limit = row.limit.map_or("", |limit| &limit.name()[..1]);
    format!("{} {limit}", or_dash(row.admits))
}

fn figures(rows: &[Row], device: &Device) -> String {
    let mut text = format!(
        "\n## {} ({})\n\n| kernel | wave | registers | spills | occupancy | shared | instructions | loop | cycles |\n\
         |---|---|---|---|---|---|---|---|---|\n",
        device.name, device.model.product
    );
    for row in rows.iter().filter(|row| row.device == device.name) {
        let hot = row.hot.as_ref();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.name(),
            row.subgroup,
            or_dash(row.registers),
            row.spills,
            or_dash(row.occupancy),
            row.workgroup_bytes,
            or_dash(row.instructions),
            or_dash(hot.map(|hot| hot.instructions)),
            or_dash(hot.map(|hot| hot.cycles))
        );
    }
    text
}
