//! What a data sheet says of a device, and how many cycles its instructions keep a SIMD busy.

use crate::listing::{Class, Instruction};

/// How a SIMD takes instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issue {
    /// One vector instruction at a time; a quarter of the rate for transcendentals and 32-bit multiplications.
    /// `dual`: RDNA3 and later issue the f32 operations of 64 lanes in one pass.
    Rdna {
        /// Two f32 operations at once.
        dual: bool,
    },
    /// As [`Issue::Rdna`] with 64 lanes on 16: four cycles each.
    Gcn,
    /// One instruction a cycle, half of the rate for f32 and for integers, which run beside each other.
    Turing,
    /// One instruction a cycle, half of the rate for integers.
    Ampere,
    /// Floats and integers beside each other.
    Xe,
    /// One instruction at a time; a quarter of the rate for transcendentals.
    Single,
}

/// Figures of a product.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// What is sold with it.
    pub product: &'static str,
    /// Compute units, multiprocessors, cores: what runs a workgroup.
    pub units: u32,
    /// SIMDs of a unit: what runs a subgroup.
    pub simds: u32,
    /// Lanes of a SIMD that do an f32 operation in a cycle.
    pub lanes: u32,
    /// How it takes instructions.
    pub issue: Issue,
    /// Boost clock.
    pub gigahertz: f64,
    /// Memory bandwidth, 10^9 bytes a second.
    pub gigabytes: f64,
}

/// Multiply-adds of matrices by a SIMD in a cycle: f16 factors, f32 sums. From the vendors' peak rates.
const MATRIX_RDNA3: f64 = 128.0;
const MATRIX_NVIDIA: f64 = 64.0;
const MATRIX_XE: f64 = 64.0;

impl Model {
    /// SIMDs of the device.
    pub fn all_simds(&self) -> f64 {
        f64::from(self.units * self.simds)
    }

    /// Multiply-adds of a SIMD in a cycle, by the kind of instruction that does them; one bundle of four bytes counts
    /// four.
    pub fn peak(&self, kind: Class) -> f64 {
        let lanes = f64::from(self.lanes);
        match (kind, self.issue) {
            // Integers have half of the lanes; pairs of f16 are two.
            (Class::Dot4, Issue::Ampere) | (Class::PackedFma, Issue::Rdna { .. } | Issue::Gcn) => 2.0 * lanes,
            (Class::Dot4, _) => 4.0 * lanes,
            (Class::Matrix, Issue::Rdna { .. }) => MATRIX_RDNA3,
            (Class::Matrix, Issue::Turing | Issue::Ampere) => MATRIX_NVIDIA,
            (Class::Matrix, _) => MATRIX_XE,
            (_, Issue::Rdna { dual: true }) => 2.0 * lanes,
            _ => lanes,
        }
    }

    /// Cycles that a SIMD is busy with instructions of one subgroup. Loads, branches, barriers and the scalar unit run
    /// beside the lanes, where they have an issue of their own.
    pub fn cycles(&self, instructions: &[Instruction], subgroup: u32) -> f64 {
        let (mut float, mut int, mut other, mut issued) = (0.0, 0.0, 0.0, 0.0);
        for i in instructions {
            let repeat = f64::from(i.repeat);
            let lanes = f64::from(i.lanes.unwrap_or(subgroup));
            let passes = (lanes / f64::from(self.lanes)).max(1.0);
            if i.class == Class::Matrix {
                other += repeat * f64::from(i.matrix) / self.peak(Class::Matrix);
                continue;
            }
            if i.class == Class::Wait {
                continue;
            }
            issued += repeat;
            match kind(i.class) {
                Kind::Float => float += repeat * self.float_passes(i, subgroup, passes),
                Kind::Int => int += repeat * passes * self.int_slowdown(i.class),
                Kind::Quarter => other += repeat * passes * self.transcendental(),
                Kind::Beside => {}
            }
        }
        match self.issue {
            Issue::Rdna { .. } | Issue::Gcn | Issue::Single => float + int + other,
            Issue::Xe => float.max(int).max(other),
            Issue::Turing | Issue::Ampere => float.max(int).max(other).max(issued),
        }
    }

    fn float_passes(&self, i: &Instruction, subgroup: u32, passes: f64) -> f64 {
        let can_pair = matches!(i.class, Class::Fma | Class::Mul | Class::Add);
        match self.issue {
            Issue::Rdna { dual: true } if i.paired => 0.0,
            Issue::Rdna { dual: true } if can_pair && subgroup == 2 * self.lanes => passes / 2.0,
            _ => passes,
        }
    }

    fn int_slowdown(&self, class: Class) -> f64 {
        match self.issue {
            Issue::Rdna { .. } | Issue::Gcn if class == Class::IntMul => 4.0,
            // 32 lanes of f32, 16 of integers.
            Issue::Ampere => 2.0,
            _ => 1.0,
        }
    }

    fn transcendental(&self) -> f64 {
        match self.issue {
            // 4 lanes of a partition.
            Issue::Ampere => 8.0,
            _ => 4.0,
        }
    }
}

enum Kind {
    Float,
    Int,
    Quarter,
    Beside,
}

fn kind(class: Class) -> Kind {
    match class {
        Class::Fma | Class::PackedFma | Class::Mul | Class::Add | Class::Float => Kind::Float,
        Class::Dot4
        | Class::Int
        | Class::IntMul
        | Class::Convert
        | Class::Select
        | Class::Compare
        | Class::Move
        | Class::Lane => Kind::Int,
        Class::Transcendental => Kind::Quarter,
        Class::Matrix
        | Class::Scalar
        | Class::ScalarLoad
        | Class::Load
        | Class::Store
        | Class::SharedLoad
        | Class::SharedStore
        | Class::Scratch
        | Class::Branch
        | Class::Barrier
        | Class::Wait => Kind::Beside,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::named;
    use crate::listing::instruction;

    fn cycles(device: &str, classes: &[Class], subgroup: u32) -> f64 {
        let all: Vec<_> = classes.iter().map(|&class| instruction(class)).collect();
        named(device).expect("a device").model.cycles(&all, subgroup)
    }

    #[test]
    fn instructions_take_the_cycles_of_the_architecture() {
        let mixed =
            [Class::Fma, Class::Int, Class::IntMul, Class::Transcendental, Class::Load, Class::Scalar];
        // 64 lanes: the fma in one pass, the others in two, two of them at a quarter of the rate.
        assert_eq!(cycles("navi31", &mixed, 64), 1.0 + 2.0 + 8.0 + 8.0);
        assert_eq!(cycles("navi31", &mixed, 32), 1.0 + 1.0 + 4.0 + 4.0);
        assert_eq!(cycles("navi21", &mixed, 64), 2.0 + 2.0 + 8.0 + 8.0);
        assert_eq!(cycles("vega10", &mixed, 64), 4.0 + 4.0 + 16.0 + 16.0);
        // One instruction a cycle at most; eight of a transcendental.
        assert_eq!(cycles("nv174", &mixed, 32), 8.0);
        assert_eq!(cycles("nv174", &[Class::Fma, Class::Fma, Class::Int, Class::Load], 32), 4.0);
        assert_eq!(cycles("nv162", &[Class::Fma, Class::Fma, Class::Int, Class::Load], 32), 4.0);
        assert_eq!(cycles("a770", &[Class::Fma, Class::Fma, Class::Int], 16), 4.0);
    }

    #[test]
    fn peaks_are_those_of_the_data_sheets() {
        let teraflops = |name: &str, kind| {
            let model = named(name).expect("a device").model;
            2e-3 * model.peak(kind) * model.all_simds() * model.gigahertz
        };
        for (name, kind, want) in [
            ("navi31", Class::Fma, 61.4),
            ("navi31", Class::Matrix, 122.8),
            ("navi21", Class::Fma, 23.0),
            ("gfx1201", Class::Fma, 48.7),
            ("vega10", Class::Fma, 12.7),
            ("polaris10", Class::Fma, 6.2),
            ("nv162", Class::Fma, 13.4),
            ("nv174", Class::Fma, 20.3),
            ("nv174", Class::Matrix, 40.6),
            ("adreno740", Class::Fma, 2.1),
            ("m1", Class::Fma, 2.6),
            ("a770", Class::Fma, 17.2),
            ("b580", Class::Fma, 13.7),
            ("xe_tgl", Class::Fma, 2.07),
            ("uhd630", Class::Fma, 0.44),
        ] {
            let got = teraflops(name, kind);
            assert!(
                (got / want - 1.0).abs() < 0.03,
                "{name} {kind:?}: {got} TFLOP/s, the data sheet says {want}"
            );
        }
    }
}
