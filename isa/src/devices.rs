//! The devices: what fakes each, and what a data sheet says of it.

use crate::model::{Issue, Model};

/// A compiler of Mesa, and the driver around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// RADV, ACO.
    Amd,
    /// NVK, NAK.
    Nvidia,
    /// Turnip, ir3.
    Adreno,
    /// Honeykrisp, AGX.
    Apple,
    /// ANV, brw.
    Intel,
}

impl Driver {
    /// Name of the driver and of its compiler.
    pub fn compiler(self) -> &'static str {
        match self {
            Self::Amd => "RADV, ACO",
            Self::Nvidia => "NVK, NAK",
            Self::Adreno => "Turnip, ir3",
            Self::Apple => "Honeykrisp, AGX",
            Self::Intel => "ANV, brw",
        }
    }

    /// Whether what the driver calls occupancy counts the subgroups of a unit, or of a SIMD; `None` where it counts
    /// neither.
    pub fn occupancy_of_unit(self) -> Option<bool> {
        match self {
            Self::Amd => Some(false),
            Self::Nvidia | Self::Adreno => Some(true),
            Self::Apple | Self::Intel => None,
        }
    }

    /// File below `share/vulkan/icd.d`.
    pub fn manifest(self) -> &'static str {
        match self {
            Self::Amd => "radeon_icd.json",
            Self::Nvidia => "nouveau_icd.json",
            Self::Adreno => "freedreno_icd.json",
            Self::Apple => "asahi_icd.json",
            Self::Intel => "intel_icd.json",
        }
    }

    /// The library of Debian's mesa-drm-shim that answers for the kernel. Mesa has none for Intel that this driver accepts:
    /// `i915.c` answers before the one for AMD, which fakes `/dev/dri`.
    pub fn shim(self) -> &'static str {
        match self {
            Self::Amd | Self::Intel => "libamdgpu_noop_drm_shim.so",
            Self::Nvidia => "libnouveau_noop_drm_shim.so",
            Self::Adreno => "libfreedreno_noop_drm_shim.so",
            Self::Apple => "libasahi_noop_drm_shim.so",
        }
    }
}

/// A device that can be asked for.
#[derive(Debug)]
pub struct Device {
    /// Name on the command line.
    pub name: &'static str,
    /// Who compiles for it.
    pub driver: Driver,
    /// What makes the shim this device.
    pub environment: &'static [(&'static str, &'static str)],
    /// Compiled for where no device is named.
    pub is_default: bool,
    /// What the numbers are of.
    pub model: Model,
}

/// The device of a name.
pub fn named(name: &str) -> Result<&'static Device, String> {
    DEVICES.iter().find(|device| device.name == name).ok_or_else(|| {
        let known: Vec<&str> = DEVICES.iter().map(|device| device.name).collect();
        format!("found no device {name:?}, wanted one of {}", known.join(" "))
    })
}

/// All devices, in the order of the report. Counts, boost clocks and bandwidths are those of the vendors' data sheets for
/// the product that is named; lanes and pipes those of the vendors' guides to the architecture.
pub const DEVICES: &[Device] = &[
    Device {
        name: "navi31",
        driver: Driver::Amd,
        environment: &[("AMDGPU_GPU_ID", "navi31")],
        is_default: true,
        // 96 compute units of 2 SIMD32, which issue two f32 operations at once.
        model: Model {
            product: "RX 7900 XTX",
            units: 96,
            simds: 2,
            lanes: 32,
            issue: Issue::Rdna { dual: true },
            gigahertz: 2.5,
            gigabytes: 960.0,
        },
    },
    Device {
        name: "navi21",
        driver: Driver::Amd,
        environment: &[("AMDGPU_GPU_ID", "navi21")],
        is_default: true,
        model: Model {
            product: "RX 6900 XT",
            units: 80,
            simds: 2,
            lanes: 32,
            issue: Issue::Rdna { dual: false },
            gigahertz: 2.25,
            gigabytes: 512.0,
        },
    },
    Device {
        name: "gfx1201",
        driver: Driver::Amd,
        environment: &[("AMDGPU_GPU_ID", "gfx1201")],
        is_default: false,
        model: Model {
            product: "RX 9070 XT",
            units: 64,
            simds: 2,
            lanes: 32,
            issue: Issue::Rdna { dual: true },
            gigahertz: 2.97,
            gigabytes: 640.0,
        },
    },
    Device {
        name: "vega10",
        driver: Driver::Amd,
        environment: &[("AMDGPU_GPU_ID", "vega10")],
        is_default: true,
        // 64 compute units of 4 SIMD16.
        model: Model {
            product: "RX Vega 64",
            units: 64,
            simds: 4,
            lanes: 16,
            issue: Issue::Gcn,
            gigahertz: 1.546,
            gigabytes: 484.0,
        },
    },
    Device {
        name: "polaris10",
        driver: Driver::Amd,
        environment: &[("AMDGPU_GPU_ID", "polaris10")],
        is_default: false,
        model: Model {
            product: "RX 580",
            units: 36,
            simds: 4,
            lanes: 16,
            issue: Issue::Gcn,
            gigahertz: 1.34,
            gigabytes: 256.0,
        },
    },
    Device {
        name: "nv162",
        driver: Driver::Nvidia,
        environment: &[("NOUVEAU_CHIPSET", "162")],
        is_default: false,
        // TU102: 68 multiprocessors of 4 partitions, each with 16 lanes for f32 and 16 for integers.
        model: Model {
            product: "RTX 2080 Ti",
            units: 68,
            simds: 4,
            lanes: 16,
            issue: Issue::Turing,
            gigahertz: 1.545,
            gigabytes: 616.0,
        },
    },
    Device {
        name: "nv174",
        driver: Driver::Nvidia,
        environment: &[("NOUVEAU_CHIPSET", "174")],
        is_default: true,
        // GA104: 46 multiprocessors of 4 partitions, each with 32 lanes for f32, of which 16 also do integers.
        model: Model {
            product: "RTX 3070",
            units: 46,
            simds: 4,
            lanes: 32,
            issue: Issue::Ampere,
            gigahertz: 1.725,
            gigabytes: 448.0,
        },
    },
    Device {
        name: "adreno740",
        driver: Driver::Adreno,
        environment: &[("FD_GPU_ID", "740")],
        is_default: true,
        // No data sheet: 1536 lanes, as Snapdragon 8 Gen 2 is described; taken to be as wide as the smaller subgroup.
        // 64-bit LPDDR5X-8400.
        model: Model {
            product: "Snapdragon 8 Gen 2",
            units: 6,
            simds: 4,
            lanes: 64,
            issue: Issue::Single,
            gigahertz: 0.68,
            gigabytes: 67.0,
        },
    },
    Device {
        name: "adreno830",
        driver: Driver::Adreno,
        environment: &[("FD_GPU_ID", "830")],
        is_default: false,
        // No data sheet: 1536 lanes, as Snapdragon 8 Elite is described; as above. 64-bit LPDDR5X-10600.
        model: Model {
            product: "Snapdragon 8 Elite",
            units: 6,
            simds: 4,
            lanes: 64,
            issue: Issue::Single,
            gigahertz: 1.1,
            gigabytes: 85.0,
        },
    },
    Device {
        name: "m1",
        driver: Driver::Apple,
        environment: &[],
        is_default: true,
        // 8 cores of 4 SIMD32.
        model: Model {
            product: "Apple M1",
            units: 8,
            simds: 4,
            lanes: 32,
            issue: Issue::Single,
            gigahertz: 1.278,
            gigabytes: 68.0,
        },
    },
    Device {
        name: "a770",
        driver: Driver::Intel,
        environment: &[("INTEL_NULL", "0x56a0"), ("INTEL_NULL_TOPO", "1,32,16"), ("INTEL_NULL_LOCAL", "1")],
        is_default: true,
        // 32 Xe cores of 16 vector engines of 8 lanes, with a second pipe for integers.
        model: Model {
            product: "Arc A770",
            units: 32,
            simds: 16,
            lanes: 8,
            issue: Issue::Xe,
            gigahertz: 2.1,
            gigabytes: 560.0,
        },
    },
    Device {
        name: "b580",
        driver: Driver::Intel,
        environment: &[("INTEL_NULL", "0xe20b"), ("INTEL_NULL_TOPO", "1,20,8"), ("INTEL_NULL_LOCAL", "1")],
        is_default: true,
        // 20 Xe cores of 8 vector engines of 16 lanes.
        model: Model {
            product: "Arc B580",
            units: 20,
            simds: 8,
            lanes: 16,
            issue: Issue::Xe,
            gigahertz: 2.67,
            gigabytes: 456.0,
        },
    },
    Device {
        name: "xe_tgl",
        driver: Driver::Intel,
        environment: &[("INTEL_NULL", "0x9a49"), ("INTEL_NULL_TOPO", "1,6,16")],
        is_default: false,
        // 96 execution units of 8 lanes; LPDDR4X-4266.
        model: Model {
            product: "Iris Xe (Tiger Lake)",
            units: 6,
            simds: 16,
            lanes: 8,
            issue: Issue::Single,
            gigahertz: 1.35,
            gigabytes: 68.0,
        },
    },
    Device {
        name: "uhd630",
        driver: Driver::Intel,
        environment: &[("INTEL_NULL", "0x3e92"), ("INTEL_NULL_TOPO", "1,3,8")],
        is_default: false,
        // 24 execution units of 2 pipes of 4 lanes; two channels of DDR4-2666.
        model: Model {
            product: "UHD 630",
            units: 3,
            simds: 8,
            lanes: 8,
            issue: Issue::Single,
            gigahertz: 1.15,
            gigabytes: 42.7,
        },
    },
];
