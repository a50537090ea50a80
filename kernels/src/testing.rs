//! Comparing a kernel with its twin: poisoned outputs, guard bands, a comparator.

use crate::buffer::Buffer;
pub use crate::case::{Element, POISON, Regime, TestBuffer, TestCase, Tolerance, hash, seeded};
use crate::choice::Launch;
use crate::device::Gpu;
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::spec::{Access, KernelSpec};
use crate::twin::TwinCall;

const GUARD: u32 = 0xdead_beef;
/// Guard bytes on each side: one maximal offset alignment.
const GUARD_BYTES: usize = 256;

/// A result that is not the expected one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Mismatch {
    /// A value outside of the tolerance, or not a number.
    #[error(
        "{case} [{variant}]: buffer {buffer}[{index}] is {got}, want {want} (tolerance {tolerance:.2e}); {count} of {len} differ"
    )]
    Value {
        /// Case.
        case: String,
        /// Variant and selection.
        variant: String,
        /// Binding.
        buffer: &'static str,
        /// First index that differs.
        index: usize,
        /// Value found.
        got: f64,
        /// Value wanted.
        want: f64,
        /// Allowed difference.
        tolerance: f64,
        /// How many differ.
        count: usize,
        /// Of how many.
        len: usize,
    },
    /// A write outside of the buffer or into a read-only one.
    #[error("{case} [{variant}]: bytes outside of buffer {buffer} were written")]
    Guard {
        /// Case.
        case: String,
        /// Variant and selection.
        variant: String,
        /// Binding.
        buffer: &'static str,
    },
    /// The launch could not be made.
    #[error("{case} [{variant}]: {source}")]
    Failed {
        /// Case.
        case: String,
        /// Variant and selection.
        variant: String,
        /// Cause.
        source: KernelError,
    },
}

/// Index, found, wanted and allowed difference of the first difference, and how many there are.
pub type Difference = (usize, f64, f64, f64, usize);

/// Compares results with expectations. NaN differs from everything but the same NaN pattern left untouched on
/// both sides (a poisoned value that neither wrote), an infinity from everything but itself.
pub fn compare(got: &[f32], want: &[f32], tolerance: Tolerance) -> Option<Difference> {
    let mut first = None;
    let mut count = 0;
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let allowed = tolerance.abs + tolerance.rel * f64::from(w).abs();
        // Infinity is as far from every number as the tolerance that follows from it.
        let near = w.is_finite() && (f64::from(g) - f64::from(w)).abs() <= allowed;
        let same = g.to_bits() == w.to_bits() || near;
        if !same {
            count += 1;
            first.get_or_insert((i, f64::from(g), f64::from(w), allowed));
        }
    }
    if got.len() != want.len() {
        let at = got.len().min(want.len());
        first.get_or_insert((at, f64::NAN, f64::NAN, 0.0));
        count += got.len().abs_diff(want.len());
    }
    first.map(|(i, g, w, t)| (i, g, w, t, count))
}

fn as_f32(data: &[u8], element: Element) -> Vec<f32> {
    match element {
        Element::F32 => bytemuck::pod_collect_to_vec(data),
        Element::F16 => {
            bytemuck::pod_collect_to_vec::<u8, half::f16>(data).iter().map(|v| v.to_f32()).collect()
        }
        Element::Bits | Element::Codes | Element::Scales | Element::Routes => {
            data.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect()
        }
    }
}

/// Whether codes, or scales and sums of `codes`, agree as far as rounding lets them.
fn near(got: &[u8], want: &[u8], codes: &[u8], element: Element, tolerance: Tolerance) -> bool {
    let words = |bytes: &[u8]| -> Vec<u32> { bytemuck::pod_collect_to_vec(bytes) };
    match element {
        Element::Codes => {
            let steps = got.iter().zip(want).map(|(&g, &w)| g.cast_signed().abs_diff(w.cast_signed()));
            let differ = steps.clone().filter(|&d| d > 0).count();
            got.len() == want.len() && differ <= want.len() / 256 + 1 && steps.max().is_none_or(|d| d <= 1)
        }
        Element::Scales => {
            let (got, want, blocks) = (words(got), words(want), codes.chunks_exact(32));
            let pairs = got.chunks_exact(2).zip(want.chunks_exact(2));
            blocks.len() == want.len() / 2
                && pairs.zip(blocks).all(|((g, w), codes)| {
                    let sum = |half: &[u8]| half.iter().map(|c| i16::from(c.cast_signed())).sum::<i16>();
                    let sums = [&codes[..16], &codes[16..]].map(|half| u32::from(sum(half).cast_unsigned()));
                    let scales = [g, w].map(|v| f32::from_bits(v[0]));
                    compare(&scales[..1], &scales[1..], Tolerance { abs: 0.0, ..tolerance }).is_none()
                        && g[1] == sums[0] | sums[1] << 16
                })
        }
        Element::Routes => {
            let (got, want) = (words(got), words(want));
            let pairs = got.chunks_exact(2).zip(want.chunks_exact(2));
            let weight = |pair: &[u32]| [f32::from_bits(pair[1])];
            got.len() == want.len()
                && pairs
                    .into_iter()
                    .all(|(g, w)| g[0] == w[0] && compare(&weight(g), &weight(w), tolerance).is_none())
        }
        _ => false,
    }
}

/// Runs every launch of a case that this device can run; returns the mismatches and how many launches ran.
///
/// # Errors
/// A device that fails.
pub async fn run_case(gpu: &Gpu, spec: &'static KernelSpec, case: &TestCase) -> (Vec<Mismatch>, usize) {
    let mut mismatches = Vec::new();
    let mut ran = 0;
    for launch in &case.launches {
        if !gpu.caps().runs(&launch.choice) {
            continue;
        }
        ran += 1;
        let variant = format!("{} {}", launch.choice.variant, launch.choice.selection);
        if let Err(source) = run_launch(gpu, spec, case, launch, &variant, &mut mismatches).await {
            mismatches.push(Mismatch::Failed { case: case.name.clone(), variant, source });
        }
    }
    (mismatches, ran)
}

async fn run_launch(
    gpu: &Gpu,
    spec: &'static KernelSpec,
    case: &TestCase,
    launch: &Launch,
    variant: &str,
    mismatches: &mut Vec<Mismatch>,
) -> Result<(), KernelError> {
    let mut whole = Vec::new();
    let mut ranges: Vec<Buffer> = Vec::new();
    for buffer in &case.buffers {
        let len = buffer.data.len().next_multiple_of(4).max(4);
        let mut bytes = GUARD.to_le_bytes().repeat((2 * GUARD_BYTES + len) / 4);
        bytes[GUARD_BYTES..GUARD_BYTES + buffer.data.len()].copy_from_slice(&buffer.data);
        let raw = gpu.upload(&bytes)?;
        let range = raw.slice(GUARD_BYTES as u64, len as u64).ok_or(KernelError::BadBuffer {
            kernel: spec.name,
            binding: "guarded",
            got: raw.size(),
            want: (GUARD_BYTES + len) as u64,
        })?;
        whole.push((raw, bytes));
        ranges.push(range);
    }
    let mut recorder = Recorder::new(gpu);
    recorder.launch(spec, launch, &ranges.iter().collect::<Vec<_>>())?;
    gpu.submit(&recorder)?;
    let mut want: Vec<Vec<u8>> = case.buffers.iter().map(|b| b.data.clone()).collect();
    (spec.twin)(&mut TwinCall {
        params: &launch.params,
        selection: &launch.choice.selection,
        buffers: &mut want,
    });
    let mut codes = Vec::new();
    for (i, binding) in spec.bindings.iter().enumerate() {
        let got = gpu.read(&whole[i].0).await?;
        let len = case.buffers[i].data.len();
        let (front, rest) = got.split_at(GUARD_BYTES);
        let before = &whole[i].1;
        let writable = binding.access == Access::ReadWrite;
        let body_intact = writable || rest[..len] == before[GUARD_BYTES..GUARD_BYTES + len];
        if front != &before[..GUARD_BYTES]
            || rest[len..before.len() - GUARD_BYTES] != before[GUARD_BYTES + len..]
            || !body_intact
        {
            mismatches.push(Mismatch::Guard {
                case: case.name.clone(),
                variant: variant.into(),
                buffer: binding.name,
            });
        }
        if !writable {
            continue;
        }
        let element = case.buffers[i].element;
        if element == Element::Codes {
            codes = rest[..len].to_vec();
        }
        if near(&rest[..len], &want[i], &codes, element, case.tolerance) {
            continue;
        }
        let tolerance = if matches!(element, Element::F32 | Element::F16) {
            case.tolerance
        } else {
            Tolerance { abs: -1.0, rel: 0.0 }
        };
        let (got, want) = (as_f32(&rest[..len], element), as_f32(&want[i], element));
        if let Some((index, g, w, allowed, count)) = compare(&got, &want, tolerance) {
            let (g, w) = match element {
                Element::Bits | Element::Codes | Element::Scales | Element::Routes => {
                    (f64::from(got[index].to_bits()), f64::from(want[index].to_bits()))
                }
                _ => (g, w),
            };
            mismatches.push(Mismatch::Value {
                case: case.name.clone(),
                variant: variant.into(),
                buffer: binding.name,
                index,
                got: g,
                want: w,
                tolerance: allowed,
                count,
                len: want.len(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOL: Tolerance = Tolerance { abs: 1e-6, rel: 1e-5 };

    #[test]
    fn the_comparator_accepts_rounding_only() {
        let want = [1.0, -2.0, 0.0, 100.0];
        assert!(compare(&want, &want, TOL).is_none());
        assert!(compare(&[1.000_001, -2.0, 0.0, 100.000_5], &want, TOL).is_none());
    }

    #[test]
    fn the_comparator_sees_zero_nan_sign_shift_and_length() {
        let want = [1.0, -2.0, 3.0, 100.0];
        assert!(compare(&[0.0; 4], &want, TOL).is_some());
        assert!(compare(&[1.0, f32::NAN, 3.0, 100.0], &want, TOL).is_some());
        assert!(compare(&[1.0, 2.0, 3.0, 100.0], &want, TOL).is_some());
        assert!(compare(&[-2.0, 3.0, 100.0, 1.0], &want, TOL).is_some());
        assert!(compare(&want[..3], &want, TOL).is_some());
        assert!(compare(&[POISON], &[1.0], TOL).is_some());
        assert!(compare(&[1.0], &[f32::NAN], TOL).is_some());
    }

    #[test]
    fn infinity_is_equal_to_itself_only() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        for same in [inf, -inf, nan] {
            assert!(compare(&[same], &[same], TOL).is_none(), "{same}");
        }
        let differ = [
            (0.0, inf),
            (f32::MAX, inf),
            (-inf, inf),
            (nan, inf),
            (inf, -inf),
            (inf, f32::MAX),
            (1.0, nan),
            (inf, nan),
        ];
        for (got, want) in differ {
            let (index, g, w, _, count) = compare(&[1.0, got], &[1.0, want], TOL).expect("they differ");
            assert_eq!((index, count), (1, 1), "{got} for {want}");
            assert_eq!((g.to_bits(), w.to_bits()), (f64::from(got).to_bits(), f64::from(want).to_bits()));
        }
    }

    #[test]
    fn codes_may_differ_by_a_step_where_they_are_few() {
        let want = vec![3u8; 512];
        let with = |changes: &[(usize, u8)]| {
            let mut got = want.clone();
            for &(i, v) in changes {
                got[i] = v;
            }
            near(&got, &want, &[], Element::Codes, TOL)
        };
        assert!(with(&[]) && with(&[(0, 4), (9, 2)]));
        assert!(!with(&[(0, 5)]));
        assert!(!with(&[(0, 4), (1, 4), (2, 4), (3, 4)]));
        let scales = |scale: f32, low: i16, high: i16| {
            [scale.to_bits(), u32::from(low.cast_unsigned()) | u32::from(high.cast_unsigned()) << 16]
                .map(u32::to_le_bytes)
                .concat()
        };
        // The sums of the codes that were found, also where those are a step off.
        let mut codes = [0u8; 32];
        codes[0] = (-3i8).cast_unsigned();
        codes[16..20].fill(125);
        let near = |got: &[u8]| near(got, &scales(1.0, -4, 500), &codes, Element::Scales, TOL);
        assert!(near(&scales(1.000_001, -3, 500)));
        assert!(!near(&scales(1.01, -3, 500)));
        assert!(!near(&scales(1.0, -4, 500)));
        assert!(!near(&scales(1.0, -3, 501)));
    }
}
