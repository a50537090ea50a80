//! Which device this is, and what follows from its architecture that no API tells.
//!
//! Tables name what lacks something; a device that is younger than they are is taken to have it.

use std::ops::RangeInclusive;

/// Which device this is: the key of measured tables, self-test verdicts and caches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AdapterId {
    /// Name as the driver gives it. Browsers give vendor and architecture.
    pub name: String,
    /// Driver name.
    pub driver: String,
    /// Driver version text.
    pub driver_info: String,
    /// API: vulkan, metal, dx12, webgpu.
    pub backend: String,
    /// PCI vendor, 0 where unknown.
    pub vendor: u32,
    /// PCI device, 0 where unknown.
    pub device: u32,
}

const AMD: u32 = 0x1002;
const APPLE: u32 = 0x106b;
const ARM: u32 = 0x13b5;
const BROADCOM: u32 = 0x14e4;
const INTEL: u32 = 0x8086;
const NVIDIA: u32 = 0x10de;
const QUALCOMM: u32 = 0x5143;

/// Devices without an instruction for the dot product of four bytes. Sources: ranges of PCI numbers, those of Linux's
/// drivers (amdgpu_drv.c, i915_pciids.h, nouveau's and pci.ids); which architectures have the instruction, LLVM's
/// features dot1-insts and dot7-insts of gfx targets, PTX's `dp4a` (sm_61), Intel's manuals (DP4A: Xe), and what Mesa
/// reports as `integerDotProduct4x8BitPackedSignedAccelerated`.
const NO_INTEGER_DOT: [(u32, RangeInclusive<u32>); 26] = [
    (AMD, 0x1304..=0x131d), // Kaveri
    (AMD, 0x15d8..=0x15dd), // Raven, Picasso
    (AMD, 0x1636..=0x1638), // Renoir, Cezanne
    (AMD, 0x164c..=0x164c), // Lucienne
    (AMD, 0x6600..=0x669f), // GCN 1 and 2; Vega 20 (66a0) has it
    (AMD, 0x66b0..=0x687f), // GCN 1 to 4, Vega 10
    (AMD, 0x6900..=0x69af), // Tonga, Polaris 12, Vega 12
    (AMD, 0x7300..=0x731f), // Fiji, Navi 10; Navi 12 and 14 have it
    (AMD, 0x9830..=0x98ff), // Kabini, Carrizo, Stoney
    (ARM, 0..=0x71ff_ffff), // before Mali-G76
    (BROADCOM, 0..=u32::MAX),
    (INTEL, 0x0000..=0x0bcf),              // generation 7; Ponte Vecchio (0bd0) has it
    (INTEL, 0x0be0..=0x22ff),              // 7 to 9
    (INTEL, 0x3100..=0x3eff),              // 9
    (INTEL, 0x4500..=0x457f),              // 11
    (INTEL, 0x4e00..=0x4eff),              // 11
    (INTEL, 0x5900..=0x5aff),              // 9
    (INTEL, 0x8700..=0x8aff),              // 9, 11
    (INTEL, 0x9840..=0x9840),              // 11
    (INTEL, 0x9b00..=0x9bff),              // 9
    (NVIDIA, 0x0001..=0x1aff),             // up to Maxwell, and GP100
    (QUALCOMM, 0x0000_0001..=0x43ff_ffff), // before Adreno 8xx
    // Names in other spaces than PCI's.
    (0x1_0001, 0..=u32::MAX), // Vivante
    (0x1_0002, 0..=u32::MAX), // VeriSilicon
    (0x1_0004, 0..=u32::MAX), // Codeplay
    (0x1_0006, 0..=u32::MAX), // PoCL
];

/// The same as browsers name them: vendor, beginning of the architecture.
const NO_INTEGER_DOT_IN_BROWSERS: [(&str, &str); 16] = [
    ("amd", "gcn"),
    ("amd", "rdna-1"),
    ("apple", ""),
    ("arm", "midgard"),
    ("arm", "bifrost"),
    ("broadcom", ""),
    ("intel", "gen-7"),
    ("intel", "gen-8"),
    ("intel", "gen-9"),
    ("intel", "gen-11"),
    ("nvidia", "fermi"),
    ("nvidia", "kepler"),
    ("nvidia", "maxwell"),
    ("qualcomm", "adreno-5"),
    ("qualcomm", "adreno-6"),
    ("qualcomm", "adreno-7"),
];

impl AdapterId {
    /// Vendor and architecture, where a browser names them.
    fn words(&self) -> (&str, &str) {
        let mut words = self.name.split(' ');
        (words.next().unwrap_or_default(), words.next().unwrap_or_default())
    }

    /// By name too: Mesa's driver for Apple's GPUs gives Mesa's number for the vendor.
    fn is_apple(&self) -> bool {
        self.vendor == APPLE || self.name.starts_with("Apple")
    }

    /// Whether the device has an instruction for the dot product of four bytes, so that products of integers are
    /// faster than those of floats. Metal's language has none, whatever the device.
    pub fn has_integer_dot(&self) -> bool {
        match self.backend.as_str() {
            "metal" => false,
            "webgpu" => {
                let (vendor, architecture) = self.words();
                !NO_INTEGER_DOT_IN_BROWSERS.iter().any(|&(v, a)| v == vendor && architecture.starts_with(a))
            }
            _ => {
                let lacks = |(vendor, devices): &(u32, RangeInclusive<u32>)| {
                    *vendor == self.vendor && devices.contains(&self.device)
                };
                !self.is_apple() && !NO_INTEGER_DOT.iter().any(lacks)
            }
        }
    }

    /// Whether an invocation has so few registers that tiles which others hold would spill: Apple's GPUs and Intel's.
    pub fn has_few_registers(&self) -> bool {
        match self.backend.as_str() {
            "metal" => self.is_apple() || self.name.starts_with("Intel"),
            "webgpu" => matches!(self.words().0, "apple" | "intel"),
            _ => self.is_apple() || self.vendor == INTEL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pci(vendor: u32, device: u32) -> AdapterId {
        AdapterId { vendor, device, backend: "vulkan".into(), ..AdapterId::default() }
    }

    fn named(backend: &str, name: &str) -> AdapterId {
        AdapterId { backend: backend.into(), name: name.into(), ..AdapterId::default() }
    }

    #[test]
    fn integer_dot_products_by_architecture() {
        let with = [
            (AMD, 0x66af, "Radeon VII"),
            (AMD, 0x7340, "RX 5500 XT"),
            (AMD, 0x73bf, "RX 6800 XT"),
            (AMD, 0x744c, "RX 7900 XTX"),
            (AMD, 0x7550, "RX 9070 XT"),
            (AMD, 0x163f, "Steam Deck"),
            (AMD, 0x15bf, "Phoenix"),
            (ARM, 0x7212_0000, "Mali-G76"),
            (ARM, 0xa867_0000, "Mali-G710"),
            (INTEL, 0x9a49, "Tiger Lake"),
            (INTEL, 0x4905, "DG1"),
            (INTEL, 0x4692, "Alder Lake"),
            (INTEL, 0x56a0, "Arc A770"),
            (INTEL, 0xe20b, "Arc B580"),
            (INTEL, 0x0bd5, "Ponte Vecchio"),
            (INTEL, 0x7d55, "Meteor Lake"),
            (NVIDIA, 0x1b80, "GTX 1080"),
            (NVIDIA, 0x2204, "RTX 3090"),
            (NVIDIA, 0x2684, "RTX 4090"),
            (QUALCOMM, 0x4405_0000, "Adreno 830"),
            (0x1_0005, 0, "llvmpipe"),
            (0, 0, "unknown"),
        ];
        let without = [
            (AMD, 0x687f, "Vega 64"),
            (AMD, 0x67df, "RX 580"),
            (AMD, 0x731f, "RX 5700 XT"),
            (AMD, 0x1636, "Renoir"),
            (AMD, 0x6798, "HD 7970"),
            (APPLE, 0, "M1"),
            (ARM, 0x6221_0000, "Mali-G72"),
            (INTEL, 0x3e92, "UHD 630"),
            (INTEL, 0x5916, "HD 620"),
            (INTEL, 0x9bc5, "Comet Lake"),
            (INTEL, 0x8a52, "Ice Lake"),
            (NVIDIA, 0x17c8, "GTX 980 Ti"),
            (NVIDIA, 0x15f8, "Tesla P100"),
            (QUALCOMM, 0x4305_0a01, "Adreno 740"),
        ];
        for (vendor, device, name) in with {
            assert!(pci(vendor, device).has_integer_dot(), "{name}");
        }
        for (vendor, device, name) in without {
            assert!(!pci(vendor, device).has_integer_dot(), "{name}");
        }
        for name in
            ["nvidia ampere", "amd rdna-3", "intel xe-hpg", "intel gen-12lp", "google swiftshader", ""]
        {
            assert!(named("webgpu", name).has_integer_dot(), "{name}");
        }
        for name in ["apple metal-3", "apple", "amd gcn-5", "intel gen-9", "qualcomm adreno-7xx"] {
            assert!(!named("webgpu", name).has_integer_dot(), "{name}");
        }
        assert!(!named("vulkan", "Apple M1 (G13G B0)").has_integer_dot());
        assert!(!named("metal", "AMD Radeon Pro 5500M").has_integer_dot());
    }

    #[test]
    fn few_registers_by_vendor() {
        let few = [
            pci(INTEL, 0x56a0),
            pci(APPLE, 0),
            named("metal", "Apple M2"),
            named("webgpu", "apple metal-3"),
            named("webgpu", "intel xe-hpg"),
        ];
        let enough = [pci(AMD, 0x744c), pci(NVIDIA, 0x2204), named("webgpu", "nvidia ampere"), pci(0, 0)];
        assert!(few.iter().all(AdapterId::has_few_registers));
        assert!(!enough.iter().any(AdapterId::has_few_registers));
    }
}
