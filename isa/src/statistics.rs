//! What the drivers' statistics are called, and what of them is reported.

/// Figures of a compiled kernel, whatever the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Vector registers of a lane, in the driver's own unit.
    pub registers: Option<u32>,
    /// Values that did not fit into registers.
    pub spills: u32,
    /// How many subgroups (on M1 invocations) the registers and the workgroup memory let run at once; on Intel the widest
    /// subgroup.
    pub occupancy: Option<u32>,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: Option<u32>,
    /// Bytes of scratch memory of a lane.
    pub scratch_bytes: u32,
    /// Instructions.
    pub instructions: Option<u32>,
}

const REGISTERS: &[&str] = &["VGPRs", "Number of GPRs", "GPRs", "Registers used", "Max live registers"];
/// Without NAK's "Spills to reg": predicates that move to registers cost no memory.
const SPILLS: &[&str] =
    &["Spilled VGPRs", "Spilled SGPRs", "Spills to memory", "Spills", "STP Count", "Spill count"];
const OCCUPANCY: &[&str] =
    &["Subgroups per SIMD", "Max warps/SM", "Threads", "Max Waves Per Core", "Max dispatch width"];
const WORKGROUP: &[&str] = &["LDS size", "Workgroup Memory Size"];
const SCRATCH: &[&str] = &["Scratch size", "SLM size", "Scratch", "Scratch Memory Size"];
const INSTRUCTIONS: &[&str] = &["Instructions", "Instruction count", "Instruction Count"];

/// Reads the statistics of an executable: names and values as the driver gives them.
pub fn figures(statistics: &[(String, String)]) -> Figures {
    let value = |name: &str| statistics.iter().find(|(n, _)| n == name).and_then(|(_, v)| v.parse().ok());
    let first = |names: &[&str]| names.iter().find_map(|name| value(name));
    Figures {
        registers: first(REGISTERS),
        spills: SPILLS.iter().filter_map(|name| value(name)).sum(),
        occupancy: first(OCCUPANCY),
        workgroup_bytes: first(WORKGROUP),
        scratch_bytes: first(SCRATCH).unwrap_or(0),
        instructions: first(INSTRUCTIONS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Figures {
        let owned: Vec<_> = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        figures(&owned)
    }

    #[test]
    fn names_of_every_driver_are_known() {
        let amd = read(&[
            ("SGPRs", "128"),
            ("VGPRs", "96"),
            ("Spilled SGPRs", "2"),
            ("Spilled VGPRs", "3"),
            ("LDS size", "1024"),
            ("Scratch size", "64"),
            ("Subgroups per SIMD", "16"),
            ("Instructions", "124"),
        ]);
        assert_eq!((amd.registers, amd.spills, amd.occupancy), (Some(96), 5, Some(16)));
        assert_eq!((amd.workgroup_bytes, amd.scratch_bytes, amd.instructions), (Some(1024), 64, Some(124)));
        let nvidia = read(&[("Number of GPRs", "40"), ("Spills to memory", "1"), ("Max warps/SM", "48")]);
        assert_eq!((nvidia.registers, nvidia.spills, nvidia.occupancy), (Some(40), 1, Some(48)));
        assert_eq!(read(&[("Instruction Count", "x")]), Figures::default());
    }
}
