//! Comparing a kernel with its twin: seeded inputs with outliers, poisoned outputs, guard bands, a comparator.
//!
//! The same cases serve the test suite, the self-test on a new device, and (their shapes apart) the benches.

use bytemuck::Pod;

use crate::buffer::Buffer;
use crate::device::Gpu;
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::spec::{Access, Choice, KernelSpec};
use crate::twin::TwinCall;

/// What a buffer holds, for the comparator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// f32, compared within the tolerance.
    F32,
    /// Two f16 in a u32, compared within the tolerance.
    F16,
    /// Bits, compared exactly.
    Bits,
    /// Quantised activations, signed bytes: one step of difference in few of them, where a value lies so near to a
    /// tie that f32 decides otherwise than f64.
    Codes,
    /// Their scales and sums, pairs of an f32 and two 16-bit integers, behind the buffer of [`Element::Codes`]: scales
    /// within the tolerance, sums exactly those of the codes that were found.
    Scales,
}

/// One storage buffer of a case.
#[derive(Clone, Debug)]
pub struct TestBuffer {
    /// Contents before the launch.
    pub data: Vec<u8>,
    /// How results are compared.
    pub element: Element,
}

/// `+-(abs + rel |want|)`.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Absolute part.
    pub abs: f64,
    /// Relative part.
    pub rel: f64,
}

impl Tolerance {
    /// f32 arithmetic whose result is a sum of `terms` products of magnitude `scale`: rounding errors of a sum
    /// grow like the square root of its length, an outlier or two may dominate them.
    pub fn f32_sum(terms: usize, scale: f64) -> Self {
        let ulp = f64::from(f32::EPSILON);
        Self { abs: 4.0 * ulp * (terms as f64).sqrt().max(1.0) * scale, rel: 64.0 * ulp }
    }
}

/// One way of running a case.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Pipeline.
    pub choice: Choice,
    /// Bytes of `Params`.
    pub params: Vec<u8>,
    /// Workgroups.
    pub grid: [u32; 3],
}

/// A named case of a kernel. All launches must agree with the twin.
#[derive(Clone, Debug)]
pub struct TestCase {
    /// The regime it covers.
    pub name: String,
    /// Storage buffers in the order of the spec.
    pub buffers: Vec<TestBuffer>,
    /// Launches; each is run on fresh buffers.
    pub launches: Vec<Launch>,
    /// Tolerance of f32 and f16 results.
    pub tolerance: Tolerance,
}

impl TestCase {
    /// A case without launches.
    pub fn new(name: impl Into<String>, tolerance: Tolerance) -> Self {
        Self { name: name.into(), buffers: Vec::new(), launches: Vec::new(), tolerance }
    }

    /// Adds a buffer with contents.
    #[must_use]
    pub fn input<T: Pod>(mut self, data: &[T]) -> Self {
        let data = bytemuck::cast_slice(data).to_vec();
        self.buffers.push(TestBuffer { data, element: Element::Bits });
        self
    }

    /// Adds a buffer that is read and written: contents, and how they are compared.
    #[must_use]
    pub fn in_out<T: Pod>(mut self, data: &[T], element: Element) -> Self {
        let data = bytemuck::cast_slice(data).to_vec();
        self.buffers.push(TestBuffer { data, element });
        self
    }

    /// Adds an f32 output of `len` elements, poisoned with NaN so that a missing write is seen.
    #[must_use]
    pub fn output(mut self, len: usize) -> Self {
        let data = bytemuck::cast_slice(&vec![POISON; len]).to_vec();
        self.buffers.push(TestBuffer { data, element: Element::F32 });
        self
    }

    /// Adds a launch.
    #[must_use]
    pub fn launch(mut self, choice: Choice, params: &impl Pod, grid: [u32; 3]) -> Self {
        self.launches.push(Launch { choice, params: bytemuck::bytes_of(params).to_vec(), grid });
        self
    }
}

/// A shape to time.
#[derive(Clone, Debug)]
pub struct BenchCase {
    /// What the shape is, e.g. `1x4096x4096`.
    pub name: String,
    /// Bytes of each storage buffer; contents are seeded f32 unless given.
    pub buffers: Vec<BenchBuffer>,
    /// Launches to time; what `select` would pick on a device comes from `select`.
    pub launches: fn(&crate::Caps, &str) -> Vec<Launch>,
    /// Bytes that the operation must move.
    pub bytes: u64,
    /// Floating point operations that it must do.
    pub flops: u64,
}

/// Contents of a bench buffer.
#[derive(Clone, Debug)]
pub enum BenchBuffer {
    /// Seeded f32 values with outliers.
    F32(usize),
    /// Seeded f16 values with outliers.
    F16(usize),
    /// Given words.
    U32(Vec<u32>),
}

/// A quiet NaN with a recognisable payload.
pub const POISON: f32 = f32::from_bits(0x7fc0_dead);
const GUARD: u32 = 0xdead_beef;
/// Guard bytes on each side: one maximal offset alignment.
const GUARD_BYTES: usize = 256;

/// `x ^ x >> 16` and friends: a hash whose values are the same in every language.
pub fn hash(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// `len` seeded values in -1..1, one in 61 twenty times larger.
pub fn seeded(len: usize, seed: u32) -> Vec<f32> {
    (0..len as u32)
        .map(|i| {
            let bits = hash(i.wrapping_add(seed.wrapping_mul(0x9e37_79b9)));
            let value = (bits >> 8) as f32 / (1 << 23) as f32 - 1.0;
            if bits.is_multiple_of(61) { value * 20.0 } else { value }
        })
        .collect()
}

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
/// both sides (a poisoned value that neither wrote).
pub fn compare(got: &[f32], want: &[f32], tolerance: Tolerance) -> Option<Difference> {
    let mut first = None;
    let mut count = 0;
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let allowed = tolerance.abs + tolerance.rel * f64::from(w).abs();
        let same = g.to_bits() == w.to_bits() || (f64::from(g) - f64::from(w)).abs() <= allowed;
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
        Element::Bits | Element::Codes | Element::Scales => {
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
        if !runs_here(gpu, &launch.choice) {
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

/// Whether a choice needs nothing that the device in its current tier lacks.
pub fn runs_here(gpu: &Gpu, choice: &Choice) -> bool {
    let caps = gpu.caps();
    let text = girih_shaders::compose(choice.file, &choice.selection, girih_shaders::Dialect::Browser);
    // `LANES` is the smallest subgroup that a shader works on, where it needs more than 4.
    let lanes = choice.selection.get_u32("LANES").unwrap_or(4);
    let uses = |feature: &str| text.as_ref().is_ok_and(|t| t.wgsl.contains(&format!("enable {feature};")));
    choice.invocations <= caps.invocations
        && choice.workgroup_bytes <= caps.workgroup_bytes
        && caps
            .subgroup_size
            .map_or(!uses("subgroups"), |(smallest, _)| lanes <= smallest || !uses("subgroups"))
        && (caps.f16 || !uses("f16"))
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
    recorder.dispatch_bytes(
        spec,
        launch.choice.clone(),
        &launch.params,
        &ranges.iter().collect::<Vec<_>>(),
        launch.grid,
    )?;
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
                Element::Bits | Element::Codes | Element::Scales => {
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

    #[test]
    fn the_hash_has_its_published_values() {
        assert_eq!(hash(1), 0x6889_90c0);
        assert_eq!(hash(2), 0xd113_2181);
    }
}
