//! `docs/benchmarks/isa.json`: what was recorded, and whether today's rows are worse.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::row::{Compiled, Key, Row, or_dash};

/// The recorded rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the drivers.
    pub driver: String,
    /// Sorted by [`Row::key`].
    pub rows: Vec<Row>,
}

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Rows that are worse than recorded, or not recorded.
    pub failures: Vec<String>,
    /// What else there is to know.
    pub notes: Vec<String>,
}

impl Record {
    /// Reads `isa.json`.
    pub fn read(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|e| format!("the record cannot be read: {e}"))
    }

    /// Takes over rows: all of the devices that were compiled, where `wants` says that a row was asked for.
    pub fn update(&mut self, all: &[Compiled], wants: impl Fn(&Row) -> bool) {
        let rows = || all.iter().flat_map(|compiled| &compiled.rows);
        let devices: BTreeSet<&str> = rows().map(|row| row.device.as_str()).collect();
        let keys: BTreeSet<Key<'_>> = rows().map(Row::key).collect();
        self.rows.retain(|old| {
            let is_gone = devices.contains(old.device.as_str()) && wants(old);
            !is_gone && !keys.contains(&old.key())
        });
        self.rows.extend(rows().map(|row| Row { selection: String::new(), ..row.clone() }));
        self.rows.sort_by(|a, b| a.key().cmp(&b.key()));
        if let Some(compiled) = all.first() {
            self.driver.clone_from(&compiled.driver);
        }
    }

    /// One row a line, so that differences can be read.
    pub fn json(&self) -> Result<String, String> {
        let lines: Result<Vec<String>, _> = self.rows.iter().map(serde_json::to_string).collect();
        let lines = lines.map_err(|e| e.to_string())?;
        let driver = serde_json::to_string(&self.driver).map_err(|e| e.to_string())?;
        Ok(format!("{{\"driver\":{driver},\"rows\":[\n{}\n]}}\n", lines.join(",\n")))
    }

    /// Whether rows spill more than recorded, or fewer of them run at once. `wants` says which recorded rows are
    /// expected.
    pub fn compare(&self, all: &[Compiled], wants: impl Fn(&Row) -> bool) -> Comparison {
        let mut found = Comparison::default();
        let recorded: BTreeMap<_, _> = self.rows.iter().map(|row| (row.key(), row)).collect();
        for compiled in all {
            if compiled.driver != self.driver {
                let note = format!("recorded with {}, compiled with {}", self.driver, compiled.driver);
                if !found.notes.contains(&note) {
                    found.notes.push(note);
                }
            }
            for row in &compiled.rows {
                let place = format!("{} {}", row.device, row.name());
                match recorded.get(&row.key()) {
                    None => found.failures.push(format!(
                        "{place}: not recorded; `cargo xtask isa --record` and look at the difference"
                    )),
                    Some(old) => compare_row(&place, row, old, &mut found),
                }
            }
        }
        let is_there = |old: &Row| all.iter().flat_map(|c| &c.rows).any(|row| row.key() == old.key());
        let of_device = |old: &Row| all.iter().flat_map(|c| &c.rows).any(|row| row.device == old.device);
        for old in self.rows.iter().filter(|old| of_device(old) && wants(old) && !is_there(old)) {
            found.notes.push(format!("{} {}: recorded, no longer there", old.device, old.name()));
        }
        found
    }
}

fn compare_row(place: &str, row: &Row, old: &Row, found: &mut Comparison) {
    if row.spills > old.spills {
        found.failures.push(format!("{place}: {} spills, recorded are {}", row.spills, old.spills));
    } else if row.spills > 0 {
        found.notes.push(format!("{place}: {} spills, as the record admits ({})", row.spills, old.spills));
    }
    if row.occupancy < old.occupancy {
        let (now, before) = (or_dash(row.occupancy), or_dash(old.occupancy));
        found.failures.push(format!("{place}: occupancy {now}, recorded is {before}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roofline::Limit;
    use crate::row::Hot;

    fn row(device: &str, kernel: &str, spills: u32, occupancy: u32) -> Row {
        Row {
            device: device.into(),
            kernel: kernel.into(),
            variant: "tiled".into(),
            case: "1x1".into(),
            selection: "TM=8".into(),
            spills,
            occupancy: Some(occupancy),
            hot: Some(Hot { instructions: 3, cycles: 4, classes: [("fma".to_owned(), 2)].into() }),
            admits: Some(71),
            limit: Some(Limit::Instructions),
            ..Row::default()
        }
    }

    fn compiled(rows: &[Row]) -> Vec<Compiled> {
        vec![Compiled { driver: "Mesa 26".into(), rows: rows.to_vec(), ..Compiled::default() }]
    }

    fn recorded(rows: &[Row]) -> Record {
        let mut record = Record::default();
        record.update(&compiled(rows), |_| true);
        record
    }

    #[test]
    fn worse_rows_fail_and_admitted_spills_are_listed() {
        let record =
            recorded(&[row("navi31", "a", 0, 16), row("navi31", "b", 5, 8), row("navi31", "c", 0, 8)]);
        let now = [row("navi31", "a", 1, 16), row("navi31", "b", 5, 8), row("navi31", "c", 0, 7)];
        let found = record.compare(&compiled(&now), |_| true);
        assert_eq!(
            found.failures,
            [
                "navi31 a/tiled 1x1: 1 spills, recorded are 0",
                "navi31 c/tiled 1x1: occupancy 7, recorded is 8"
            ]
        );
        assert_eq!(found.notes, ["navi31 b/tiled 1x1: 5 spills, as the record admits (5)"]);
        let better = [row("navi31", "a", 0, 20), row("navi31", "b", 4, 9), row("navi31", "c", 0, 8)];
        assert!(record.compare(&compiled(&better), |_| true).failures.is_empty());
    }

    #[test]
    fn unknown_rows_fail_and_lost_ones_are_noted() {
        let record = recorded(&[row("navi31", "a", 0, 16), row("m1", "a", 0, 16)]);
        let found = record.compare(&compiled(&[row("navi31", "b", 0, 16)]), |_| true);
        assert_eq!(found.failures.len(), 1);
        assert!(found.failures[0].contains("--record"), "{found:?}");
        assert_eq!(found.notes, ["navi31 a/tiled 1x1: recorded, no longer there"], "m1 was not compiled");
        // A filter leaves out the rest on purpose.
        let filtered = record.compare(&compiled(&[row("navi31", "a", 0, 16)]), |row| row.kernel == "z");
        assert_eq!(filtered, Comparison::default());
    }

    #[test]
    fn another_driver_is_noted() {
        let record = Record { driver: "Mesa 25".into(), ..recorded(&[row("navi31", "a", 0, 16)]) };
        let found = record.compare(&compiled(&[row("navi31", "a", 0, 16)]), |_| true);
        assert_eq!(found.notes, ["recorded with Mesa 25, compiled with Mesa 26"]);
    }

    #[test]
    fn records_are_sorted_stable_and_read_again() {
        let mut record =
            recorded(&[row("navi31", "b", 0, 16), row("navi31", "a", 0, 16), row("m1", "z", 3, 16)]);
        let json = record.json().expect("JSON");
        assert_eq!(Record::read(&json).expect("what was written"), record);
        assert_eq!(json.lines().count(), 5);
        assert!(!json.contains("TM=8"), "{json}");
        let keys: Vec<_> = record.rows.iter().map(|row| (row.device.as_str(), row.kernel.as_str())).collect();
        assert_eq!(keys, [("m1", "z"), ("navi31", "a"), ("navi31", "b")]);
        // One device, one kernel again: the others stay.
        record.update(&compiled(&[row("navi31", "b", 0, 12)]), |row| row.kernel == "b");
        assert_eq!(record.rows.len(), 3);
        assert_eq!(record.rows[2].occupancy, Some(12));
        let page = crate::page::page(&record);
        assert!(page.contains("| m1 | z/tiled 1x1 | 3 | 0 |"), "{page}");
        assert!(page.contains("| a/tiled 1x1 | 71 i | - |\n| b/tiled"), "{page}");
    }
}
