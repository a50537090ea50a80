//! Timing kernels at real shapes: rotated buffers, warm-up apart, results checked where a twin can afford it.

use web_time::Instant;

use girih_shaders::Dialect;

use crate::buffer::Buffer;
use crate::case::{BenchBuffer, BenchCase, Tolerance, seeded};
use crate::choice::{Choice, Launch};
use crate::device::Gpu;
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::spec::{Access, KernelSpec};
use crate::testing::compare;
use crate::twin::TwinCall;

/// Times of one launch of a case.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// What was launched.
    pub choice: Choice,
    /// Bytes of all buffers that the runs went through.
    pub set_bytes: u64,
    /// Seconds of each run, ascending.
    pub seconds: Vec<f64>,
    /// Seconds of process CPU time of a run, where the system tells: the steadier figure on CPU devices, which
    /// share their cores.
    pub cpu_seconds: Option<f64>,
    /// Whether the result was compared with the twin (large shapes are left to the tests).
    pub checked: bool,
    /// What differs from the twin.
    pub wrong: Option<String>,
}

impl Measurement {
    /// The `q` quantile of the times, 0 to 1.
    pub fn quantile(&self, q: f64) -> f64 {
        let last = self.seconds.len().saturating_sub(1);
        self.seconds.get((last as f64 * q).round() as usize).copied().unwrap_or(f64::NAN)
    }
}

/// Work that a twin does in a moment.
const TWIN_FLOPS: u64 = 200_000_000;
/// Seconds of runs that are timed together where there are no exact timestamps.
const TIMED_TOGETHER: f64 = 0.02;
/// Bytes that no last-level cache holds.
const BEYOND_CACHE: u64 = 256 << 20;

/// Runs what `select` picks for a case on this device: a check, a warm-up, then runs for `seconds`.
///
/// # Errors
/// Memory that is exhausted, a device that fails.
pub async fn run(
    gpu: &Gpu,
    spec: &'static KernelSpec,
    case: &BenchCase,
    seconds: f64,
) -> Result<Vec<Measurement>, KernelError> {
    let contents: Vec<Vec<u8>> = (0..).zip(&case.buffers).map(|(seed, b)| bytes(b, seed)).collect();
    let size: u64 = contents.iter().map(|c| c.len() as u64).sum();
    let copies = (BEYOND_CACHE / size.max(1)).clamp(1, 8);
    let mut sets = Vec::new();
    for _ in 0..copies {
        sets.push(contents.iter().map(|c| gpu.upload(c)).collect::<Result<Vec<_>, _>>()?);
    }
    let mut measurements = Vec::new();
    for launch in (case.launches)(gpu.caps(), &case.name) {
        if !gpu.caps().runs(&launch.choice) {
            continue;
        }
        let mut recorder = Recorder::new(gpu);
        for set in &sets {
            let refs: Vec<_> = set.iter().collect();
            recorder.launch(spec, &launch, &refs)?;
        }
        let plan = gpu.plan(&recorder)?;
        gpu.replay(&plan, 1); // warm-up: compiles
        // Integers have a comparison of their own, in the tests.
        let checked = case.flops <= TWIN_FLOPS && !launch.choice.selection.get_bool("CODES");
        let wrong = if checked { check(gpu, spec, &launch, &contents, &sets[0]).await? } else { None };
        let mut times = Vec::new();
        gpu.idle().await;
        // Browsers round timestamps: many runs are timed together, for as long as a submission should take at most.
        let timestamps = gpu.caps().timestamps && gpu.caps().dialect == Dialect::Naga;
        let begin = Instant::now();
        gpu.replay(&plan, 1);
        gpu.idle().await;
        let repeats = (TIMED_TOGETHER / begin.elapsed().as_secs_f64().max(1e-6)).clamp(1.0, 64.0) as u32;
        let cpu_start = process_cpu_seconds();
        let start = Instant::now();
        while times.is_empty() || start.elapsed().as_secs_f64() < seconds {
            if timestamps {
                times.extend(gpu.profile(&plan).await?.iter().map(|t| t.nanoseconds * 1e-9));
            } else {
                gpu.idle().await;
                let begin = Instant::now();
                gpu.replay(&plan, repeats);
                gpu.idle().await;
                times.push(begin.elapsed().as_secs_f64() / (u64::from(repeats) * copies) as f64);
            }
        }
        let cpu_seconds = cpu_start.zip(process_cpu_seconds()).map(|(from, to)| {
            (to - from)
                / (times.len() as f64 * if timestamps { 1.0 } else { f64::from(repeats) * copies as f64 })
        });
        times.sort_by(f64::total_cmp);
        measurements.push(Measurement {
            choice: launch.choice,
            set_bytes: copies * size,
            seconds: times,
            cpu_seconds,
            checked,
            wrong,
        });
    }
    Ok(measurements)
}

/// CPU time of this process so far, all threads: clock ticks of `/proc/self/stat`, 100 a second on Linux.
fn process_cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / 100.0)
}

fn bytes(buffer: &BenchBuffer, seed: u32) -> Vec<u8> {
    match buffer {
        BenchBuffer::F32(len) => bytemuck::cast_slice(&seeded(*len, seed + 1)).to_vec(),
        BenchBuffer::F16(len) => {
            seeded(*len, seed + 1).iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect()
        }
        BenchBuffer::U32(words) => bytemuck::cast_slice(words).to_vec(),
        BenchBuffer::Repeated(bytes, len) => bytes.iter().copied().cycle().take(*len).collect(),
    }
}

/// Compares the outputs of the first set with the twin's.
async fn check(
    gpu: &Gpu,
    spec: &'static KernelSpec,
    launch: &Launch,
    contents: &[Vec<u8>],
    set: &[Buffer],
) -> Result<Option<String>, KernelError> {
    let mut want = contents.to_vec();
    let selection = &launch.choice.selection;
    (spec.twin)(&mut TwinCall { params: &launch.params, selection, buffers: &mut want });
    for (i, binding) in spec.bindings.iter().enumerate() {
        // What is both read and written has changed again with every run.
        if binding.access == Access::Read {
            continue;
        }
        let got: Vec<f32> = bytemuck::pod_collect_to_vec(&gpu.read(&set[i]).await?[..want[i].len()]);
        let want: Vec<f32> = bytemuck::pod_collect_to_vec(&want[i]);
        // Random factors cancel: what counts is the size of the largest results.
        let scale = want.iter().fold(0.0, |max, v| f64::max(max, f64::from(v.abs())));
        let tolerance = Tolerance { abs: 1e-3 * scale, rel: 1e-3 };
        if let Some((index, got, want, _, count)) = compare(&got, &want, tolerance) {
            return Ok(Some(format!("{}[{index}] is {got}, want {want}; {count} differ", binding.name)));
        }
    }
    Ok(None)
}
