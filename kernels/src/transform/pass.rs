//! A pass over rows: what decides about its pipeline, its parameters, where a row lies while it is mixed.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use super::SPEC;
use super::mixing::{Mixing, TILE};
use crate::caps::Caps;
use crate::choice::Choice;
use crate::error::KernelError;
use crate::quant::{Format, QuantActivation};
use crate::rows;

const MAX_AXES: usize = 4;
pub(super) const BLOCK: u32 = 32;

/// Same layout as `Params` in `transform_rows.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub(super) struct Params {
    pub num_rows: u32,
    pub num_channels: u32,
    pub grid_x: u32,
    pub eps: f32,
    pub gain: f32,
    pub qmax: f32,
    pub clip: f32,
    pub group_blocks: u32,
    pub butterfly_steps: u32,
    pub num_stages: u32,
    pub n2: u32,
    pub rows_per_round: u32,
    pub stages: [[u32; 4]; MAX_AXES],
}

const FILE: &str = "transform/transform_rows.wgsl";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NormKind {
    None,
    Rms,
    Layer { bias: bool },
}

/// Where a row lies while it is mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: it is only read.
    Direct,
    Workgroup,
    Output,
}

/// What decides about the pipeline.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    pub num_rows: u32,
    pub num_channels: u32,
    pub norm: NormKind,
    pub eps: f32,
    pub scale: bool,
    pub mixing: Mixing,
    pub activation: QuantActivation,
    /// Quantised results are the numbers that the integers stand for.
    pub fake: bool,
}

impl Pass {
    pub fn quantized(&self) -> bool {
        self.activation != QuantActivation::Float
    }

    /// The part of the parameters that depends on the pipeline is filled here as well.
    pub fn params(&self, grid_x: u32, vec4: bool, wg: u32) -> Params {
        let vec = if vec4 { 4 } else { 1 };
        let mut p = Params {
            num_rows: self.num_rows,
            num_channels: self.num_channels,
            grid_x,
            eps: self.eps,
            gain: 1.0,
            qmax: 1.0,
            clip: 1.0,
            ..Params::default()
        };
        if let QuantActivation::Int { bits, group, clip } = self.activation {
            p.qmax = ((1u32 << (bits - 1)) - 1) as f32;
            p.clip = clip;
            p.group_blocks = if group == Format::ROW { 0 } else { group / BLOCK };
        }
        let mut place = 0;
        for (stage, axis) in p.stages.iter_mut().zip(self.mixing.axes()) {
            let tiles = axis.order.div_ceil(TILE);
            *stage = [axis.order, (axis.stride / vec).max(1), place, (wg / tiles).max(1)];
            place += tiles * axis.order;
        }
        match &self.mixing {
            Mixing::None | Mixing::Permute => {}
            Mixing::Hadamard { fast, axes, block, .. } => {
                p.gain = (1.0 / f64::from(*block).sqrt()) as f32;
                p.butterfly_steps = (fast / vec.min(*fast)).ilog2();
                p.num_stages = axes.len() as u32;
            }
            Mixing::Kronecker { n2, .. } => {
                p.stages[0][2] = 0;
                p.stages[1][2] = 1; // P2 instead of the table
                p.num_stages = 1;
                p.n2 = *n2;
                p.rows_per_round = TILE * (wg / (n2 / vec)).max(1);
            }
        }
        p
    }

    pub fn choice(&self, place: Place, vec4: bool, subgroup: bool, wg: u32) -> Choice {
        let (norm, bias) = match self.norm {
            NormKind::None => (0, false),
            NormKind::Rms => (1, false),
            NormKind::Layer { bias } => (2, bias),
        };
        let mut s = Selection::new().set("NORM", norm).set("BIAS", bias).set("SCALE", self.scale);
        if vec4 {
            s = s.part("channels", "transform/channels4.wgsl");
        }
        match &self.mixing {
            Mixing::None => {}
            Mixing::Permute => s = s.part("mix_none", "transform/mix_permute.wgsl"),
            Mixing::Hadamard { fast, .. } => {
                s = s.part("mix_none", "transform/mix_hadamard.wgsl");
                if vec4 {
                    s = s.set("WITHIN", *fast > 1);
                }
            }
            Mixing::Kronecker { .. } => {
                s = s.part("mix_none", "transform/mix_kronecker.wgsl");
                if vec4 {
                    s = s.part("rows", "transform/rows4.wgsl");
                }
            }
        }
        if self.quantized() {
            s = if self.fake {
                s.part("write_f32", "transform/write_fake.wgsl").set("FAKE", true)
            } else {
                s.part("write_f32", "transform/write_codes.wgsl").set("CODES", true)
            };
        }
        let mut row_bytes = 0;
        match place {
            Place::Direct => {}
            Place::Output => s = s.part("row_direct", "transform/row_output.wgsl"),
            Place::Workgroup => {
                let len = padded_row(self.num_channels, vec4);
                row_bytes = row_bytes_of(self.num_channels, vec4);
                s = s.part("row_direct", "transform/row_workgroup.wgsl").set("ROW", len);
            }
        }
        let choice = rows::reducing(FILE, wg, vec4, subgroup, s);
        Choice { workgroup_bytes: choice.workgroup_bytes + row_bytes, ..choice }
    }
}

/// Elements of a row in workgroup memory.
fn padded_row(num_channels: u32, vec4: bool) -> u32 {
    let (len, pad) = if vec4 { (num_channels / 4, 8) } else { (num_channels, 32) };
    len + len.div_ceil(pad)
}

pub(super) fn row_bytes_of(num_channels: u32, vec4: bool) -> u32 {
    padded_row(num_channels, vec4).saturating_mul(if vec4 { 16 } else { 4 })
}

/// Width, reductions, workgroup size and place of the row, of a pass that may leave the row in y or not.
pub(super) fn select(caps: &Caps, pass: &Pass, in_output: bool) -> Result<(Choice, bool), KernelError> {
    let n = pass.num_channels;
    let allowed = caps.invocations.min(256);
    let (vec4, subgroup) = rows::pick(caps, SPEC.name, pass.mixing.can_vec4(n, allowed), true);
    let least = pass.mixing.least_invocations(vec4);
    if least > allowed {
        return Err(KernelError::OverLimit {
            kernel: SPEC.name,
            what: "number of invocations for matrices of this order",
            got: least.into(),
            limit: allowed.into(),
        });
    }
    let wg = rows::row_wg(caps, if vec4 { n / 4 } else { n }).max(least.next_power_of_two());
    let place = match pass.mixing {
        Mixing::None | Mixing::Permute => Place::Direct,
        _ if in_output => Place::Output,
        _ => Place::Workgroup,
    };
    Ok((pass.choice(place, vec4, subgroup, wg), vec4))
}

/// Whether rows that are mixed fit the device's workgroup memory (beside what reductions need).
pub(super) fn row_fits(caps: &Caps, pass: &Pass) -> Result<bool, KernelError> {
    Ok(select(caps, pass, false)?.0.workgroup_bytes <= caps.workgroup_bytes)
}

pub(super) fn checked(
    kernel: &'static str,
    norm: NormKind,
    eps: f32,
    scale: bool,
    mixing: Mixing,
    activation: QuantActivation,
    [num_rows, num_channels]: [u32; 2],
) -> Result<Pass, KernelError> {
    rows::positive(kernel, "num_channels", num_channels)?;
    rows::elements(kernel, num_rows, num_channels.checked_next_multiple_of(BLOCK).unwrap_or(u32::MAX))?;
    if let QuantActivation::Int { bits, group, clip } = activation {
        let bad =
            |field, got: u32, must_be| Err(KernelError::BadParam { kernel, field, got: got.into(), must_be });
        if !(2..=8).contains(&bits) {
            return bad("bits of activations", bits.into(), "2 to 8");
        }
        if group != Format::ROW && (group == 0 || !group.is_multiple_of(BLOCK)) {
            return bad("channels with one scale", group, "a multiple of 32, or the whole row");
        }
        if !(clip > 0.0 && clip <= 1.0) {
            return bad("percent of the range that is kept", (clip * 100.0) as u32, "over 0 and up to 100");
        }
    }
    if let Mixing::Kronecker { n1, n2 } = mixing
        && n1.checked_mul(n2) != Some(num_channels)
    {
        let (field, got) = ("n1 · n2 of a Kronecker transform", u64::from(n1) * u64::from(n2));
        return Err(KernelError::BadParam { kernel, field, got, must_be: "the number of channels" });
    }
    Ok(Pass { num_rows, num_channels, norm, eps, scale, mixing, activation, fake: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caps::Tier;
    use crate::transform::Hadamard;

    fn place(caps: &Caps, n: u32, activation: QuantActivation) -> (bool, u32) {
        let h = Hadamard { block: 0, stride: 1, transposed: false };
        let mixing = Mixing::hadamard(n, h).expect("a plan");
        let pass = checked("k", NormKind::None, 0.0, false, mixing, activation, [1, n]).expect("a pass");
        let fits = row_fits(caps, &pass).expect("a choice");
        (fits, select(caps, &pass, !fits).expect("a choice").0.invocations)
    }

    #[test]
    fn rows_lie_in_workgroup_memory_where_they_fit() {
        let large = Caps { workgroup_bytes: 32 << 10, ..Caps::baseline() };
        assert_eq!(place(&Caps::baseline(), 2048, QuantActivation::INT8), (true, 256));
        assert_eq!(place(&Caps::baseline(), 4096, QuantActivation::INT8), (false, 256));
        assert_eq!(place(&large, 4096, QuantActivation::INT8), (true, 256));
        assert_eq!(place(&large, 53248, QuantActivation::Float), (false, 256));
        let cpu = Caps { is_cpu: true, ..large }.at_tier(Tier::Cpu);
        assert_eq!(place(&cpu, 4096, QuantActivation::INT8), (true, 16));
        assert_eq!(place(&cpu, 6400, QuantActivation::INT8), (true, 32)); // order 200: 25 tiles
    }

    #[test]
    fn what_cannot_be_mixed_is_an_error() {
        let h = |block, stride| Hadamard { block, stride, transposed: false };
        for (n, bad) in [(30, h(0, 1)), (64, h(24, 1)), (64, h(0, 5)), (64, h(0, 0)), (0, h(0, 1))] {
            assert!(Mixing::hadamard(n, bad).is_err(), "{n} {bad:?}");
        }
        let pass = |n1, n2, n| {
            checked(
                "k",
                NormKind::None,
                0.0,
                false,
                Mixing::Kronecker { n1, n2 },
                QuantActivation::Float,
                [1, n],
            )
        };
        assert!(pass(8, 8, 63).is_err());
        assert!(pass(65536, 65536, 0).is_err());
        let wide = pass(1, 4096, 4096).expect("a shape");
        assert!(matches!(select(&Caps::baseline(), &wide, true), Err(KernelError::OverLimit { .. })));
        let int = |bits, group, clip| {
            let activation = QuantActivation::Int { bits, group, clip };
            checked("k", NormKind::None, 0.0, false, Mixing::None, activation, [1, 64])
        };
        assert!(int(8, 32, 1.0).is_ok());
        for bad in [int(9, 32, 1.0), int(1, 32, 1.0), int(8, 24, 1.0), int(8, 32, f32::NAN)] {
            assert!(bad.is_err());
        }
    }
}
