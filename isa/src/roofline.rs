//! The share of a device's roofline that a text admits. An upper bound: what limits it is counted, what else may cost time
//! is not.

use serde::{Deserialize, Serialize};

use crate::listing::{Class, Loop};
use crate::model::Model;
use crate::texts::Work;

/// Seconds that a load from memory takes. Published measurements of idle GPUs lie between 250 and 450 ns, and rise when
/// others load; one value for all devices, since none is measured here.
const LATENCY: f64 = 500e-9;

/// What binds first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// Nothing that is counted, and the roofline is memory's.
    Memory,
    /// Nothing that is counted, and the roofline is arithmetic's.
    Arithmetic,
    /// Instructions beside the useful ones.
    Instructions,
    /// Too few subgroups, or uneven ones, for all SIMDs.
    Waves,
    /// Too few bytes under way for the latency of memory.
    Latency,
}

impl Limit {
    /// Name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Arithmetic => "arithmetic",
            Self::Instructions => "instructions",
            Self::Waves => "waves",
            Self::Latency => "latency",
        }
    }
}

/// A compiled launch, as far as the roofline needs it.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    /// Lanes of a subgroup.
    pub subgroup: u32,
    /// Invocations of a workgroup.
    pub invocations: u32,
    /// Subgroups that a SIMD can hold.
    pub resident: Option<f64>,
    /// What is computed.
    pub work: Work,
    /// The text multiplies bytes, natively or not.
    pub multiplies_bytes: bool,
}

/// What one pass of the hot loops does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pass {
    /// Cycles of a SIMD for a subgroup.
    pub cycles: f64,
    /// Operations of all lanes of a subgroup that may be useful.
    pub operations: f64,
    /// The instruction that does them.
    pub kind: Class,
}

/// Share and limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Admits {
    /// 0 to 1.
    pub share: f64,
    /// What binds.
    pub limit: Limit,
}

/// The hot loops: the one with the most operations, and those that have at least half as many. A kernel of two products runs
/// both as often.
pub fn hot(loops: &[Loop], multiplies_bytes: bool) -> Vec<&Loop> {
    let weight = |l: &Loop| (operations(l, 1, multiplies_bytes).0, l.total());
    let Some(most) = loops.iter().map(weight).max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))) else {
        return Vec::new();
    };
    if most.0 == 0.0 {
        return loops.iter().filter(|l| weight(l) == most).take(1).collect();
    }
    loops.iter().filter(|l| weight(l).0 * 2.0 >= most.0).collect()
}

/// Operations of a loop for a subgroup, and the instructions that do them.
fn operations(found: &Loop, subgroup: u32, multiplies_bytes: bool) -> (f64, Class) {
    let sum = |class: Class| -> f64 {
        let of_class = found.own.iter().filter(|i| i.class == class);
        of_class.map(|i| f64::from(i.repeat) * f64::from(i.lanes.unwrap_or(subgroup))).sum()
    };
    let matrix: f64 = found.own.iter().map(|i| f64::from(i.repeat * i.matrix)).sum();
    if matrix > 0.0 {
        return (2.0 * matrix, Class::Matrix);
    }
    if sum(Class::Dot4) > 0.0 {
        return (8.0 * sum(Class::Dot4), Class::Dot4);
    }
    if multiplies_bytes {
        return (2.0 * sum(Class::IntMul), Class::Fma); // one by one
    }
    let (fma, packed) = (sum(Class::Fma), sum(Class::PackedFma));
    // A multiplication begins a chain of multiply-adds; a transform only adds.
    let chains = 2.0 * (fma + sum(Class::Mul));
    let sums = 2.0 * fma + sum(Class::Mul) + sum(Class::Add);
    (chains.max(sums) + 4.0 * packed, if packed > fma { Class::PackedFma } else { Class::Fma })
}

/// One pass of the hot loops together.
pub fn pass(model: &Model, hot: &[&Loop], subgroup: u32, multiplies_bytes: bool) -> Option<Pass> {
    let all = hot.iter().map(|l| {
        let (operations, kind) = operations(l, subgroup, multiplies_bytes);
        (model.cycles(&l.own, subgroup), operations, kind)
    });
    all.map(|(cycles, operations, kind)| Pass { cycles, operations, kind }).reduce(|a, b| Pass {
        cycles: a.cycles + b.cycles,
        operations: a.operations + b.operations,
        kind: a.kind,
    })
}

/// The share that a launch admits; `None` without loops or operations in them.
pub fn admits(model: &Model, launch: &Launch, loops: &[Loop]) -> Option<Admits> {
    let pass = pass(model, &hot(loops, launch.multiplies_bytes), launch.subgroup, launch.multiplies_bytes)?;
    let work = launch.work;
    if pass.operations == 0.0 || pass.cycles == 0.0 || work.groups == 0 {
        return None;
    }
    let hertz = 1e9 * model.gigahertz;
    let memory = work.bytes as f64 / (1e9 * model.gigabytes);
    let arithmetic = work.flops as f64 / (2.0 * model.peak(pass.kind) * model.all_simds() * hertz);
    let ideal = memory.max(arithmetic);
    let issue = work.done as f64 / pass.operations * pass.cycles / (model.all_simds() * hertz);
    let filled = filled(model, launch);
    let in_flight = bytes_in_flight(model, launch, loops);
    let by_latency = in_flight.map_or(1.0, |bytes| bytes * ideal / (LATENCY * work.bytes as f64));
    let by_issue = ideal / (issue / filled);
    let share = by_issue.min(by_latency).min(1.0);
    let limit = if share >= 1.0 {
        if memory >= arithmetic { Limit::Memory } else { Limit::Arithmetic }
    } else if by_latency < by_issue {
        let waves = waves(launch);
        let resident = launch.resident.unwrap_or(f64::INFINITY) * model.all_simds();
        if waves < resident { Limit::Waves } else { Limit::Latency }
    } else if filled < ideal / issue {
        Limit::Waves
    } else {
        Limit::Instructions
    };
    Some(Admits { share, limit })
}

fn waves_of_group(launch: &Launch) -> u64 {
    u64::from(launch.invocations.div_ceil(launch.subgroup.max(1)))
}

fn waves(launch: &Launch) -> f64 {
    (launch.work.groups * waves_of_group(launch)) as f64
}

/// The part of the SIMDs that have work, while the busiest of them has: workgroups are spread evenly over units, the
/// subgroups of a unit over its SIMDs.
fn filled(model: &Model, launch: &Launch) -> f64 {
    let groups_of_unit = launch.work.groups.div_ceil(u64::from(model.units));
    let of_simd = (groups_of_unit * waves_of_group(launch)).div_ceil(u64::from(model.simds));
    waves(launch) / (of_simd as f64 * model.all_simds())
}

/// Bytes that all subgroups that run at once have under way, in the loop that loads the most; `None` where no loop
/// loads.
fn bytes_in_flight(model: &Model, launch: &Launch, loops: &[Loop]) -> Option<f64> {
    let loading = loops.iter().max_by_key(|l| l.loaded_bytes()).filter(|l| l.loaded_bytes() > 0)?;
    let capacity = launch.resident.unwrap_or(f64::INFINITY) * model.all_simds();
    let lanes = f64::from(launch.subgroup.min(launch.invocations));
    Some(waves(launch).min(capacity) * lanes * f64::from(loading.bytes_in_flight))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::named;
    use crate::listing::{Instruction, instruction};

    fn of(classes: &[(Class, u32)], bytes_in_flight: u32) -> Loop {
        let own = classes.iter().map(|&(class, repeat)| Instruction {
            repeat,
            bytes: if class == Class::Load { 16 } else { 0 },
            ..instruction(class)
        });
        Loop { own: own.collect(), bytes_in_flight }
    }

    fn launch(groups: u64, bytes: u64, flops: u64) -> Launch {
        Launch {
            subgroup: 64,
            invocations: 128,
            resident: Some(8.0),
            work: Work { groups, bytes, flops, done: flops },
            multiplies_bytes: false,
        }
    }

    /// RX 7900 XTX: 192 SIMDs, 2 x 32 lanes, 2.5 GHz, 960 GB/s.
    fn share(launch: &Launch, loops: &[Loop]) -> Admits {
        admits(&named("navi31").expect("a device").model, launch, loops).expect("a loop")
    }

    #[test]
    fn arithmetic_is_limited_by_what_stands_beside_it() {
        // 256 multiply-adds in one pass each, 49 others in two: 256 / (256 + 98).
        let gemm = of(&[(Class::Fma, 256), (Class::Int, 49)], 0);
        let found = share(&launch(960, 1 << 20, 1 << 40), std::slice::from_ref(&gemm));
        assert_eq!(found.limit, Limit::Instructions);
        assert!((found.share - 256.0 / 354.0).abs() < 1e-9, "{found:?}");
        // 97 workgroups on 96 units: one unit has two.
        let uneven = share(&launch(97, 1 << 20, 1 << 40), &[gemm]);
        assert_eq!(uneven.limit, Limit::Waves);
        assert!((uneven.share - 256.0 / 354.0 * 97.0 / 192.0).abs() < 1e-9, "{uneven:?}");
    }

    #[test]
    fn nothing_beside_the_arithmetic_admits_all_of_it() {
        let found = share(&launch(960, 1 << 20, 1 << 40), &[of(&[(Class::Fma, 8)], 0)]);
        assert_eq!(found, Admits { share: 1.0, limit: Limit::Arithmetic });
        let matrix = Instruction { matrix: 4096, ..instruction(Class::Matrix) };
        let loops = [Loop { own: vec![matrix], bytes_in_flight: 0 }];
        assert_eq!(share(&launch(960, 1 << 20, 1 << 40), &loops).share, 1.0);
    }

    #[test]
    fn memory_is_limited_by_the_bytes_under_way() {
        // 960e9 x 500e-9 = 480,000 bytes; 96 workgroups of 2 subgroups of 64 lanes with 16 bytes: 196,608.
        let stream = of(&[(Class::Load, 1), (Class::Fma, 4)], 16);
        let few = share(&launch(96, 1 << 30, 1 << 29), std::slice::from_ref(&stream));
        assert_eq!(few.limit, Limit::Waves);
        assert!((few.share - 196_608.0 / 480_000.0).abs() < 1e-9, "{few:?}");
        // As many subgroups as fit, but one at a time.
        let alone = Launch { resident: Some(1.0), ..launch(9600, 1 << 30, 1 << 29) };
        assert_eq!(share(&alone, std::slice::from_ref(&stream)).limit, Limit::Latency);
        let many = share(&launch(9600, 1 << 30, 1 << 29), &[stream]);
        assert_eq!(many, Admits { share: 1.0, limit: Limit::Memory });
    }

    #[test]
    fn memory_is_limited_by_instructions() {
        // 2^29 operations, 8 a lane and pass, 400 instructions of 2 cycles: longer than 2^30 bytes.
        let heavy = of(&[(Class::Load, 8), (Class::Fma, 4), (Class::Int, 400)], 128);
        let found = share(&launch(9600, 1 << 30, 1 << 29), &[heavy]);
        let issue = (1u64 << 29) as f64 / (8.0 * 64.0) * 804.0 / (192.0 * 2.5e9);
        let ideal = (1u64 << 30) as f64 / 960e9;
        assert_eq!(found.limit, Limit::Instructions);
        assert!((found.share - ideal / issue).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn loops_of_two_products_count_together() {
        let loops = [
            of(&[(Class::Fma, 256)], 0),
            of(&[(Class::Fma, 128), (Class::Int, 9)], 0),
            of(&[(Class::Fma, 4)], 0),
        ];
        assert_eq!(hot(&loops, false).len(), 2);
        assert_eq!(hot(&[of(&[(Class::Int, 3)], 0), of(&[(Class::Int, 9)], 0)], false)[0].total(), 9);
        assert!(hot(&[], false).is_empty());
    }

    #[test]
    fn bytes_that_are_multiplied_one_by_one_count_one_by_one() {
        let emulated = of(&[(Class::IntMul, 4), (Class::Fma, 1)], 0);
        assert_eq!(operations(&emulated, 64, true).0, 2.0 * 4.0 * 64.0);
        assert_eq!(operations(&emulated, 64, false).0, 2.0 * 64.0);
        assert_eq!(operations(&of(&[(Class::Dot4, 2), (Class::Fma, 1)], 0), 64, true).0, 16.0 * 64.0);
    }
}
