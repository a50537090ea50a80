//! The report as text: all devices of a launch below each other.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::devices::DEVICES;
use crate::row::{Row, or_dash};

/// The table; with the classes of instructions below each row if `loops`.
pub fn table(rows: &[Row], loops: bool) -> String {
    let mut text = format!(
        "{:<54} {:<9} {:>4} {:>4} {:>6} {:>4} {:>6} {:>6} {:>6} {:>5} {:>6}  {}\n",
        "kernel",
        "device",
        "wave",
        "regs",
        "spills",
        "occ",
        "shared",
        "scratch",
        "instr",
        "loop",
        "cycles",
        "admits at most"
    );
    for row in sorted(rows) {
        let hot = row.hot.as_ref();
        let _ = writeln!(
            text,
            "{:<54} {:<9} {:>4} {:>4} {:>6} {:>4} {:>6} {:>6} {:>6} {:>5} {:>6}  {}",
            row.name(),
            row.device,
            row.subgroup,
            or_dash(row.registers),
            row.spills,
            or_dash(row.occupancy),
            row.workgroup_bytes,
            row.scratch_bytes,
            or_dash(row.instructions),
            or_dash(hot.map(|hot| hot.instructions)),
            or_dash(hot.map(|hot| hot.cycles)),
            row.share()
        );
        if let Some(hot) = hot.filter(|_| loops) {
            let _ = writeln!(text, "    {}", classes(&hot.classes));
        }
    }
    text
}

/// `fma 256, int 4`.
pub fn classes(classes: &BTreeMap<String, u32>) -> String {
    classes.iter().map(|(class, count)| format!("{class} {count}")).collect::<Vec<_>>().join(", ")
}

/// Rows by launch in the order in which the first device has them, then by device.
fn sorted(rows: &[Row]) -> Vec<&Row> {
    let mut order: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows {
        let next = order.len();
        order.entry(row.name()).or_insert(next);
    }
    let device = |row: &Row| DEVICES.iter().position(|device| device.name == row.device);
    let mut sorted: Vec<&Row> = rows.iter().collect();
    sorted.sort_by_key(|row| (order.get(&row.name()).copied(), device(row)));
    sorted
}

/// The devices that can be asked for.
pub fn devices() -> String {
    let mut text = String::new();
    for device in DEVICES {
        let model = &device.model;
        let _ = writeln!(
            text,
            "{:<10} {:<22} {:>5} SIMDs of {:>3} lanes, {:>5} GHz, {:>5} GB/s, {}{}",
            device.name,
            model.product,
            model.all_simds(),
            model.lanes,
            model.gigahertz,
            model.gigabytes,
            device.driver.compiler(),
            if device.is_default { ", default" } else { "" }
        );
    }
    text
}
