//! A line of the report.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::roofline::Limit;

/// What a launch becomes on a device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Device.
    pub device: String,
    /// Kernel.
    pub kernel: String,
    /// Variant.
    pub variant: String,
    /// Shape; empty where the kernel has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub case: String,
    /// Constants and parts; not recorded, so that a record stays valid where only they change.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selection: String,
    /// Lanes of a subgroup.
    pub subgroup: u32,
    /// Registers.
    pub registers: Option<u32>,
    /// Values that did not fit into registers.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub spills: u32,
    /// How many run at once.
    pub occupancy: Option<u32>,
    /// Bytes of workgroup memory.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub workgroup_bytes: u32,
    /// Bytes of scratch memory of a lane.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub scratch_bytes: u32,
    /// Instructions.
    pub instructions: Option<u32>,
    /// The hot loops together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hot: Option<Hot>,
    /// Percent of the roofline that is admitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admits: Option<u32>,
    /// What binds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// One pass of the hot loops.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hot {
    /// Instructions.
    pub instructions: u32,
    /// Cycles of a SIMD for a subgroup.
    pub cycles: u32,
    /// Instructions of each class.
    pub classes: BTreeMap<String, u32>,
}

/// What a row is called.
pub type Key<'a> = (&'a str, &'a str, &'a str, &'a str);

impl Row {
    /// Device, kernel, variant, case.
    pub fn key(&self) -> Key<'_> {
        (&self.device, &self.kernel, &self.variant, &self.case)
    }

    /// Kernel, variant and case as one text.
    pub fn name(&self) -> String {
        let name = format!("{}/{}", self.kernel, self.variant);
        if self.case.is_empty() { name } else { format!("{name} {}", self.case) }
    }

    /// What `--filter` is matched with.
    pub fn label(&self) -> String {
        format!("{} [{}]", self.name(), self.selection)
    }

    /// `62 % instructions`, or `-`.
    pub fn share(&self) -> String {
        match (self.admits, self.limit) {
            (Some(percent), Some(limit)) => format!("{percent} % {}", limit.name()),
            _ => "-".into(),
        }
    }
}

/// A number, or `-`.
pub fn or_dash(value: Option<u32>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

/// What the driver made of a device's texts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Compiled {
    /// Name that the driver gives the device.
    pub name: String,
    /// Version of the driver.
    pub driver: String,
    /// One for each launch.
    pub rows: Vec<Row>,
    /// Texts that the driver refused, and why.
    pub refused: Vec<String>,
}
