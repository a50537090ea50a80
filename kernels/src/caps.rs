//! The only owner of "can this device ...". `select` functions see a [`Caps`] and nothing else.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use girih_shaders::Dialect;

use crate::choice::{Choice, Data, key};
use crate::winners::{self, Winners};

pub use crate::adapter::AdapterId;

/// Classes of devices that kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// T0: every WebGPU device. 16 KiB, f32 arithmetic, no subgroups.
    Portable,
    /// T1: subgroups, f16 arithmetic where present.
    Subgroup,
    /// T2: cooperative matrices.
    Matrix,
    /// T3: 48 KiB workgroup memory and more.
    Large,
    /// T4: a CPU behind the API (lavapipe, SwiftShader): few wide cores, caches, dear barriers.
    Cpu,
}

impl Tier {
    /// All tiers, lowest first.
    pub const ALL: [Self; 5] = [Self::Portable, Self::Subgroup, Self::Matrix, Self::Large, Self::Cpu];

    /// The tiers that have kernels of their own. A device of another one is given those of the best of these.
    pub const WITH_KERNELS: [Self; 3] = [Self::Portable, Self::Subgroup, Self::Cpu];

    /// Whether there are kernels for it.
    pub fn has_kernels(self) -> bool {
        Self::WITH_KERNELS.contains(&self)
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "t0",
            Self::Subgroup => "t1",
            Self::Matrix => "t2",
            Self::Large => "t3",
            Self::Cpu => "t4",
        })
    }
}

/// A tier name that does not exist.
#[derive(Clone, Debug, thiserror::Error)]
#[error("unknown tier {0:?}; known: t0 (portable), t1 (subgroups), t4 (CPU)")]
pub struct UnknownTier(pub String);

impl FromStr for Tier {
    type Err = UnknownTier;

    fn from_str(s: &str) -> Result<Self, UnknownTier> {
        Self::ALL
            .into_iter()
            .find(|tier| tier.to_string() == s.to_ascii_lowercase())
            .ok_or_else(|| UnknownTier(s.into()))
    }
}

/// One cooperative-matrix shape of the adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatrixShape {
    /// Rows, columns, depth.
    pub mnk: [u32; 3],
    /// f16 factors.
    pub f16_in: bool,
    /// f32 accumulator.
    pub f32_out: bool,
}

/// Everything a `select` function may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Tier in force: the best of the device, or the one that was asked for.
    pub tier: Tier,
    /// Identity.
    pub adapter: AdapterId,
    /// The device is a CPU.
    pub is_cpu: bool,
    /// Host and device share memory.
    pub unified_memory: bool,
    /// Smallest and largest subgroup size; `None` where subgroup operations are not to be used.
    pub subgroup_size: Option<(u32, u32)>,
    /// f16 arithmetic in shaders.
    pub f16: bool,
    /// 64-bit integers in shaders; never in browsers.
    pub int64: bool,
    /// Cooperative-matrix shapes.
    pub matrix_shapes: Vec<MatrixShape>,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Invocations of one workgroup.
    pub invocations: u32,
    /// Workgroups of one dispatch in each dimension.
    pub workgroups: u32,
    /// Bytes of one storage binding.
    pub binding_bytes: u64,
    /// Bytes of one buffer.
    pub buffer_bytes: u64,
    /// Storage buffers of one kernel.
    pub storage_buffers: u32,
    /// Alignment of binding offsets in bytes.
    pub offset_align: u32,
    /// Timestamps around passes.
    pub timestamps: bool,
    /// Products of four bytes are an instruction: see [`AdapterId::has_integer_dot`]. CPUs have other means.
    pub integer_dot: bool,
    /// Tiles are to be small: see [`AdapterId::has_few_registers`].
    pub few_registers: bool,
    /// Who compiles the WGSL.
    pub dialect: Dialect,
    /// What failed its self-test on this device, by [`key`]: `kernel/variant`, or `kernel/variant/data` where the
    /// variant comes with several readers of data.
    pub blocked: BTreeSet<String>,
    /// What was measured to take the least time on this device.
    pub tuned: Winners,
}

impl Caps {
    /// The WebGPU baseline: default limits, nothing optional. Start of recorded devices in tests.
    pub fn baseline() -> Self {
        Self {
            tier: Tier::Portable,
            adapter: AdapterId::default(),
            is_cpu: false,
            unified_memory: false,
            subgroup_size: None,
            f16: false,
            int64: false,
            matrix_shapes: Vec::new(),
            workgroup_bytes: 16 << 10,
            invocations: 256,
            workgroups: 65535,
            binding_bytes: 128 << 20,
            buffer_bytes: 256 << 20,
            storage_buffers: 8,
            offset_align: 256,
            timestamps: false,
            integer_dot: true,
            few_registers: false,
            dialect: Dialect::Naga,
            blocked: BTreeSet::new(),
            tuned: Winners::default(),
        }
    }

    /// Whether subgroup variants may be selected: the tier asks for them, the device has them.
    pub fn subgroups(&self) -> bool {
        self.subgroup_size.is_some() && self.tier >= Tier::Subgroup
    }

    /// Whether the variants written for CPUs are to be selected.
    pub fn cpu_variants(&self) -> bool {
        self.tier == Tier::Cpu
    }

    /// Whether a variant failed its self-test on this device, with one of its readers of data or as a whole.
    pub fn is_blocked(&self, kernel: &str, variant: &str, data: Data) -> bool {
        !self.blocked.is_empty()
            && (self.blocked.contains(&key(kernel, variant, data))
                || self.blocked.contains(&key(kernel, variant, Data::Plain)))
    }

    /// The measured winner for a shape, if there is one and it is among the candidates.
    pub fn winner<T: fmt::Display>(
        &self,
        kernel: &str,
        data: Data,
        shape: impl FnOnce() -> String,
        candidates: impl FnOnce() -> Vec<T>,
    ) -> Option<T> {
        if self.tuned.is_empty() {
            return None;
        }
        let name = self.tuned.get(&winners::key(kernel, data, &shape()))?;
        candidates().into_iter().find(|candidate| candidate.to_string() == name)
    }

    /// Whether a pipeline needs nothing that the device, in its tier, lacks.
    pub fn runs(&self, choice: &Choice) -> bool {
        let smallest = self.subgroup_size.map_or(0, |(smallest, _)| smallest);
        choice.invocations <= self.invocations
            && choice.workgroup_bytes <= self.workgroup_bytes
            && choice.requires.lanes.is_none_or(|lanes| lanes <= smallest)
            && (self.f16 || !choice.requires.f16)
            && (self.int64 || !choice.requires.int64)
    }

    /// The same device held down to a tier. A tier above the device's own is an error of the caller: see
    /// [`Caps::best_tier`].
    #[must_use]
    pub fn at_tier(mut self, tier: Tier) -> Self {
        self.tier = tier;
        if tier == Tier::Portable {
            self.subgroup_size = None;
            self.f16 = false;
            self.int64 = false;
        }
        if tier < Tier::Matrix {
            self.matrix_shapes.clear();
        }
        self
    }

    /// The best tier with kernels that the device has.
    pub fn best_tier(&self) -> Tier {
        if self.is_cpu {
            return Tier::Cpu;
        }
        let best = [Tier::Large, Tier::Matrix, Tier::Subgroup].into_iter().find(|&tier| self.supports(tier));
        best.unwrap_or(Tier::Portable)
    }

    /// Whether there are kernels for a tier, and the device can run them.
    pub fn supports(&self, tier: Tier) -> bool {
        let subgroups = self.subgroup_size.is_some();
        tier.has_kernels()
            && match tier {
                Tier::Portable => true,
                Tier::Subgroup => subgroups,
                Tier::Matrix => subgroups && !self.matrix_shapes.is_empty(),
                Tier::Large => subgroups && self.workgroup_bytes >= 48 << 10 && self.invocations >= 512,
                Tier::Cpu => self.is_cpu,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device with everything has the best of the tiers that there are kernels for.
    #[test]
    fn tiers_without_kernels_are_not_reported() {
        let shape = MatrixShape { mnk: [16; 3], f16_in: true, f32_out: true };
        let all = Caps {
            subgroup_size: Some((32, 32)),
            matrix_shapes: vec![shape],
            workgroup_bytes: 64 << 10,
            invocations: 1024,
            ..Caps::baseline()
        };
        for tier in Tier::ALL {
            assert_eq!(all.supports(tier), tier.has_kernels() && tier != Tier::Cpu, "{tier}");
        }
        assert!(all.best_tier().has_kernels() && all.supports(all.best_tier()));
        assert_eq!(Caps { is_cpu: true, ..all.clone() }.best_tier(), Tier::Cpu);
        assert_eq!(Caps { subgroup_size: None, ..all }.best_tier(), Tier::Portable);
    }
}
