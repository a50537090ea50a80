//! The product of few rows of integers, measured.

use super::super::int;
use super::super::product::Shape;
use super::super::tuning::{self, Recorded};
use super::{CANDIDATES, OperandKind, SPEC, choice, class, rule};
use crate::caps::Caps;
use crate::case::seeded;
use crate::choice::Launch;
use crate::quant::{Format, WeightFormat};
use crate::spec::{Contents, Ways, Workload};

/// What was recorded, with the format of its integers.
fn recorded(launch: &Launch) -> Option<(Recorded, Format, OperandKind)> {
    let recorded = Recorded::of(launch)?.with_norm_vectors();
    let WeightFormat::Quant(format) = recorded.format else { return None };
    let s = &launch.choice.selection;
    let float = s.get("RMS_NORM").map(|_| OperandKind::Float { rms_norm: s.get_bool("RMS_NORM") });
    Some((recorded, format, float.unwrap_or(OperandKind::Codes)))
}

/// The configurations for what was recorded.
pub(super) fn ways(caps: &Caps, launch: &Launch) -> Option<Ways> {
    let (recorded, format, input) = recorded(launch)?;
    let Recorded { shape, epilogue, .. } = recorded;
    let (_, rule) = rule(caps, shape, format, input, epilogue);
    let configs = tuning::rule_first(rule, CANDIDATES.on(caps, SPEC.name, format.into()));
    let choice = |config| choice(config, shape, format, input, epilogue);
    Some(Ways { shape: class(shape, input), ways: recorded.ways_of_few_rows(caps, &SPEC, configs, choice) })
}

/// Data of its shape.
pub(super) fn workload(caps: &Caps, launch: &Launch) -> Option<Workload> {
    let (recorded, format, input) = recorded(launch)?;
    let Shape { m, n, k } = recorded.sample();
    let (choice, _) = rule(caps, recorded.shape, format, input, recorded.epilogue);
    let norm: Vec<f32> = seeded(k as usize, 3).iter().map(|v| 1.5 + v.clamp(-1.0, 1.0)).collect();
    let vectors = recorded.vectors(&norm, &norm);
    let rms_norm = input == OperandKind::Float { rms_norm: true };
    let (codes, scales) = int::seeded_codes(m, k, true, 4);
    let x = match input {
        OperandKind::Codes => bytemuck::cast_slice(&codes).to_vec(),
        OperandKind::Float { .. } => {
            bytemuck::cast_slice(&int::seeded_x(m, k, rms_norm.then_some(&norm), 5)).to_vec()
        }
    };
    let mut workload = recorded.workload(x, int::bench_bytes(n, k, format), &vectors, choice);
    workload.buffers.push(Contents::once(&scales)); // as few rows as there are
    Some(workload)
}
