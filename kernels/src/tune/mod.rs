//! Measuring the variants of what a model dispatches, and keeping the winners.
//!
//! A shape is measured in two steps. All ways of computing it run in turn for a few rounds; what gives a wrong result is
//! out at once. Then the best of them and the rule's choice run in pairs, and only what is faster in nearly all pairs,
//! and by more than 3 %, becomes a winner: the first step alone would reward luck.

mod kept;
#[cfg(test)]
mod ways;

use girih_shaders::Dialect;
use web_time::Instant;

use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::case::Tolerance;
use crate::choice::Launch;
use crate::device::Gpu;
use crate::error::{GpuError, KernelError};
use crate::execute::{Plan, read_as};
use crate::recorder::{Dispatch, Recorder};
use crate::registry::KERNELS;
use crate::spec::{Kernel, Way, Workload};
use crate::testing::compare;
use crate::twin::TwinCall;
use crate::winners::{self, Winners};

pub use self::kept::Kept;

/// Rounds in which all ways of a shape run.
const ROUNDS: usize = 3;
/// A way that takes more than this many times the best one's time runs in no further round.
const HOPELESS: f64 = 1.5;
/// Pairs of the best way and the rule's.
const PAIRS: usize = 9;
/// A winner takes at most this part of the rule's time, in the median of the pairs.
const LEAST_GAIN: f64 = 0.97;
/// The part of the pairs in which a winner has to be faster.
const SURE: f64 = 0.8;
/// Seconds of runs that are timed together where there are no exact timestamps, and at least together where there are.
const TIMED_TOGETHER: f64 = 0.01;
/// Bytes that few last-level caches hold, and copies of small data at most.
const BEYOND_CACHE: u64 = 64 << 20;
const MOST_COPIES: u64 = 8;
/// Rows from which on a product computes more than it reads, and two copies do.
const MANY_ROWS: usize = 16;

/// A shape that recorded dispatches have, and that has more than one way on the device.
#[derive(Clone, Debug)]
pub struct Shape {
    kernel: &'static Kernel,
    /// What its winner is kept for.
    pub key: String,
    data: String,
    class: String,
    launch: Launch,
    ways: Vec<Way>,
}

impl Shape {
    /// Names of the ways, that of the rule first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.ways.iter().map(|way| way.name.as_str())
    }
}

/// The shapes of dispatches, each once, in the order in which they occur.
pub fn shapes<'a>(caps: &Caps, dispatches: impl IntoIterator<Item = &'a Dispatch>) -> Vec<Shape> {
    shapes_among(KERNELS, caps, dispatches)
}

/// [`shapes`] with other kernels than those of the registry.
pub fn shapes_among<'a>(
    kernels: &[&'static Kernel],
    caps: &Caps,
    dispatches: impl IntoIterator<Item = &'a Dispatch>,
) -> Vec<Shape> {
    let mut found: Vec<Shape> = Vec::new();
    for dispatch in dispatches {
        let Some(&kernel) = kernels.iter().find(|k| k.spec.name == dispatch.spec.name) else { continue };
        let launch = dispatch.launch();
        let Some(of) = kernel.tuning.and_then(|tuning| (tuning.ways)(caps, &launch)) else { continue };
        let key = winners::key(kernel.spec.name, launch.choice.data, &of.shape);
        if of.ways.len() > 1 && !found.iter().any(|shape| shape.key == key) {
            let data = launch.choice.data.to_string();
            found.push(Shape { kernel, key, data, class: of.shape, launch, ways: of.ways });
        }
    }
    found
}

/// What measuring a shape has shown.
#[derive(Clone, Debug)]
pub struct Row {
    /// What its winner is kept for.
    pub key: String,
    /// Kernel.
    pub kernel: &'static str,
    /// Format of weights, type of keys and values.
    pub data: String,
    /// Shape class.
    pub shape: String,
    /// The rule's choice.
    pub rule: String,
    /// What was selected before.
    pub before: String,
    /// What is selected from now on.
    pub winner: String,
    /// Seconds of the rule's choice, median.
    pub rule_seconds: f64,
    /// Seconds of the winner: the same times the median ratio of the pairs.
    pub winner_seconds: f64,
    /// Ways that were timed.
    pub timed: usize,
    /// Ways with a wrong result, or that the device refused, and what was wrong.
    pub wrong: Vec<(String, String)>,
}

/// What [`run`] has found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Shapes that were measured.
    pub rows: Vec<Row>,
    /// Keys of shapes that were not: time was over, or they do not fit the memory.
    pub left: Vec<String>,
    /// Seconds that it took.
    pub seconds: f64,
}

impl Report {
    /// Takes the winners over, and forgets winners that the rule has beaten.
    pub fn apply(&self, winners: &mut Winners) {
        for row in &self.rows {
            winners.set(&row.key, (row.winner != row.rule).then_some(&row.winner));
        }
    }
}

/// Measures shapes for at most about `seconds`, in their order. `on_row` is given each row; it ends the measuring by
/// returning false.
///
/// # Errors
/// A device that fails. What does not fit its memory is left.
pub async fn run(
    gpu: &Gpu,
    shapes: &[Shape],
    seconds: f64,
    mut on_row: impl FnMut(&Row) -> bool,
) -> Result<Report, KernelError> {
    let start = Instant::now();
    let mut report = Report::default();
    let mut goes_on = true;
    for shape in shapes {
        let left = seconds - start.elapsed().as_secs_f64();
        let row = if goes_on && left > 0.0 { measure(gpu, shape, left).await? } else { None };
        match row {
            Some(row) => {
                goes_on = on_row(&row);
                report.rows.push(row);
            }
            None => report.left.push(shape.key.clone()),
        }
    }
    gpu.check()?;
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// A way that is ready to be run.
struct Ready<'a> {
    way: &'a Way,
    plan: Plan,
    /// Runs that are timed together.
    repeats: u32,
    seconds: Vec<f64>,
}

/// `None` if time is over before there is a result, or memory does not suffice.
async fn measure(gpu: &Gpu, shape: &Shape, seconds: f64) -> Result<Option<Row>, KernelError> {
    let start = Instant::now();
    let is_over = || start.elapsed().as_secs_f64() > seconds;
    let caps = gpu.caps();
    let Some(workload) = shape.kernel.tuning.and_then(|t| (t.workload)(caps, &shape.launch)) else {
        return Ok(None);
    };
    let Some(sets) = place(gpu, &workload)? else { return Ok(None) };
    let sample = expected(shape.kernel, &workload);
    let mut whole: Option<Vec<f32>> = None;
    let (mut ready, mut wrong) = (Vec::new(), Vec::new());
    for way in &shape.ways {
        if is_over() {
            return Ok(None);
        }
        match prepare(gpu, way, &sets, &workload, &sample, &mut whole).await? {
            Ok(found) => ready.push(found),
            Err(what) => wrong.push((way.name.clone(), what)),
        }
    }
    let rule = &shape.ways[0].name;
    let data = shape.launch.choice.data;
    let named = |name: &&str| shape.ways.iter().any(|way| way.name == **name);
    let before = caps.tuned.get(&winners::key(shape.kernel.spec.name, data, &shape.class)).filter(named);
    let mut row = Row {
        key: shape.key.clone(),
        kernel: shape.kernel.spec.name,
        data: shape.data.clone(),
        shape: shape.class.clone(),
        rule: rule.clone(),
        before: before.unwrap_or(rule).to_owned(),
        winner: rule.clone(),
        rule_seconds: f64::NAN,
        winner_seconds: f64::NAN,
        timed: ready.len(),
        wrong,
    };
    // Without a right result of the rule's choice there is nothing to compare with: the self-test is to block it.
    if ready.first().is_none_or(|first| first.way.name != *rule) {
        return Ok(Some(row));
    }
    for round in 0..ROUNDS {
        for i in in_turn(ready.len(), round) {
            if is_over() {
                return Ok(None);
            }
            let took = time(gpu, &ready[i], sets.len()).await?;
            ready[i].seconds.push(took);
        }
        let best = ready.iter().map(|r| median(&r.seconds)).fold(f64::INFINITY, f64::min);
        ready.retain(|r| r.way.name == *rule || median(&r.seconds) <= HOPELESS * best);
    }
    let medians: Vec<f64> = ready.iter().map(|r| median(&r.seconds)).collect();
    row.rule_seconds = medians[0];
    row.winner_seconds = row.rule_seconds;
    let best = (1..ready.len()).min_by(|&a, &b| medians[a].total_cmp(&medians[b]));
    let Some(best) = best.filter(|&best| medians[best] <= LEAST_GAIN * medians[0]) else {
        return Ok(Some(row));
    };
    let mut pairs = Vec::new();
    for round in 0..PAIRS {
        let mut pair = [0.0; 2];
        for i in in_turn(2, round) {
            if is_over() {
                return Ok(None);
            }
            pair[i] = time(gpu, &ready[[0, best][i]], sets.len()).await?;
        }
        pairs.push(pair);
    }
    row.rule_seconds = median(&pairs.iter().map(|pair| pair[0]).collect::<Vec<_>>());
    row.winner_seconds = row.rule_seconds;
    if is_faster(&pairs) {
        row.winner.clone_from(&ready[best].way.name);
        // The ratio of the pairs: a load that comes and goes weighs on both alike.
        row.winner_seconds = row.rule_seconds * median(&ratios(&pairs));
    }
    Ok(Some(row))
}

/// Whether the second of each pair is faster than the first, by more than their spread.
fn is_faster(pairs: &[[f64; 2]]) -> bool {
    let ratios = ratios(pairs);
    let sure = ratios.iter().filter(|&&ratio| ratio < 1.0).count() as f64;
    median(&ratios) <= LEAST_GAIN && sure >= SURE * pairs.len() as f64
}

/// The second of each pair in terms of the first.
fn ratios(pairs: &[[f64; 2]]) -> Vec<f64> {
    pairs.iter().map(|[rule, other]| other / rule).collect()
}

/// `0, 1, 2 ..`, backwards in every second round: nobody always runs behind the same other.
fn in_turn(len: usize, round: usize) -> Vec<usize> {
    if round.is_multiple_of(2) { (0..len).collect() } else { (0..len).rev().collect() }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Copies of the data, as many as exceed a cache; `None` where there is no memory for one.
fn place(gpu: &Gpu, workload: &Workload) -> Result<Option<Vec<Vec<Buffer>>>, KernelError> {
    let size: u64 = workload.buffers.iter().map(|b| b.bytes).sum();
    let (binding, buffer) = (gpu.caps().binding_bytes, gpu.caps().buffer_bytes);
    if workload.buffers.iter().any(|b| b.bytes > binding.min(buffer)) {
        return Ok(None);
    }
    let mut sets = Vec::new();
    let most = if workload.shape[0] > MANY_ROWS { 2 } else { MOST_COPIES };
    for copy in 0..(BEYOND_CACHE / size.max(1)).clamp(1, most) {
        let set: Result<Vec<Buffer>, GpuError> =
            workload.buffers.iter().map(|b| gpu.upload(&b.all())).collect();
        match set {
            Ok(set) => sets.push(set),
            Err(GpuError::OutOfMemory { .. } | GpuError::BufferTooLarge { .. }) if copy > 0 => break,
            Err(GpuError::OutOfMemory { .. } | GpuError::BufferTooLarge { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Some(sets))
}

/// What the twin says of the sample.
fn expected(kernel: &Kernel, workload: &Workload) -> Vec<f32> {
    let mut buffers: Vec<Vec<u8>> = workload.buffers.iter().map(|b| b.pattern.clone()).collect();
    if let Some((at, bytes)) = &workload.sample_buffer {
        buffers[*at].clone_from(bytes);
    }
    let Launch { choice, params, .. } = &workload.sample;
    (kernel.spec.twin)(&mut TwinCall { params, selection: &choice.selection, buffers: &mut buffers });
    let [rows, columns] = workload.sample_shape;
    let result = &buffers[workload.result];
    bytemuck::pod_collect_to_vec(&result[..(4 * rows * columns).min(result.len())])
}

/// What differs in a result: from the sample, and from the `whole` result of the first way that agreed with it.
fn difference(got: &[f32], sample: &[f32], workload: &Workload, whole: Option<&[f32]>) -> Option<String> {
    let ([sample_rows, sample_columns], [rows, columns]) = (workload.sample_shape, workload.shape);
    let got = &got[..(rows * columns).min(got.len())];
    let want: Vec<f32> = if workload.repeats {
        let at = |i: usize| (i / columns % sample_rows) * sample_columns + i % columns % sample_columns;
        (0..rows * columns).map(|i| sample[at(i)]).collect()
    } else {
        let rest = whole.unwrap_or(got).iter().skip(sample.len());
        sample.iter().chain(rest).copied().collect()
    };
    // Random factors cancel: what counts is the size of the largest results.
    let scale = want.iter().fold(0.0, |max, v| f64::max(max, f64::from(v.abs())));
    let tolerance = Tolerance { abs: 1e-3 * scale, rel: 1e-3 };
    compare(got, &want, tolerance)
        .map(|(index, got, want, _, count)| format!("[{index}] is {got}, want {want}; {count} differ"))
}

/// Compiles a way and compares its result. The inner error says what was wrong.
async fn prepare<'a>(
    gpu: &Gpu,
    way: &'a Way,
    sets: &[Vec<Buffer>],
    workload: &Workload,
    sample: &[f32],
    whole: &mut Option<Vec<f32>>,
) -> Result<Result<Ready<'a>, String>, KernelError> {
    let (mut recorder, mut once) = (Recorder::new(gpu), Recorder::new(gpu));
    for (i, set) in sets.iter().enumerate() {
        for step in &way.steps {
            let bound: Vec<&Buffer> = step.bindings.iter().map(|&at| &set[at]).collect();
            for recorder in [Some(&mut recorder), (i == 0).then_some(&mut once)].into_iter().flatten() {
                match recorder.launch(step.spec, &step.launch, &bound) {
                    Ok(()) => {}
                    Err(error) => return Ok(Err(error.to_string())),
                }
            }
        }
    }
    let poison = &workload.buffers[workload.result];
    let result = &sets[0][workload.result];
    gpu.write(result, 0, &poison.all());
    match gpu.submit(&once) {
        Ok(()) => {}
        Err(error @ KernelError::Gpu(_)) => return Err(error),
        Err(error) => return Ok(Err(error.to_string())),
    }
    let got: Vec<f32> = read_as(gpu, result).await?;
    // In a browser a refused shader is reported to the device, whose other results are not less right.
    if let Some(error) = gpu.watched().take_error() {
        return Ok(Err(error.to_string()));
    }
    if let Some(what) = difference(&got, sample, workload, whole.as_deref()) {
        return Ok(Err(what));
    }
    if !workload.repeats {
        whole.get_or_insert(got);
    }
    let plan = gpu.plan(&recorder)?;
    gpu.replay(&plan, 1);
    gpu.idle().await;
    let begin = Instant::now();
    gpu.replay(&plan, 1);
    gpu.idle().await;
    let repeats = (TIMED_TOGETHER / begin.elapsed().as_secs_f64().max(1e-6)).clamp(1.0, 64.0) as u32;
    Ok(Ok(Ready { way, plan, repeats, seconds: Vec::new() }))
}

/// Seconds of one run.
async fn time(gpu: &Gpu, ready: &Ready<'_>, copies: usize) -> Result<f64, KernelError> {
    // Browsers round timestamps.
    if gpu.caps().timestamps && gpu.caps().dialect == Dialect::Naga {
        let mut runs = Vec::new();
        for _ in 0..ready.repeats.clamp(1, 4) {
            let timings = gpu.profile(&ready.plan).await?;
            runs.push(timings.iter().map(|t| t.nanoseconds).sum::<f64>() * 1e-9 / copies as f64);
        }
        return Ok(median(&runs));
    }
    gpu.idle().await;
    let begin = Instant::now();
    gpu.replay(&ready.plan, ready.repeats);
    gpu.idle().await;
    Ok(begin.elapsed().as_secs_f64() / (f64::from(ready.repeats) * copies as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_winner_is_faster_by_more_than_the_spread() {
        let pairs = |ratios: &[f64]| ratios.iter().map(|r| [2.0, 2.0 * r]).collect::<Vec<_>>();
        assert!(is_faster(&pairs(&[0.9; 10])));
        assert!(is_faster(&pairs(&[0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 1.5, 1.5])));
        assert!(!is_faster(&pairs(&[0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 1.1, 1.1, 1.1])), "in too few pairs");
        assert!(!is_faster(&pairs(&[0.98; 10])), "by too little");
        assert!(!is_faster(&pairs(&[f64::NAN; 10])));
    }

    #[test]
    fn no_way_always_runs_first() {
        assert_eq!((in_turn(3, 0), in_turn(3, 1)), (vec![0, 1, 2], vec![2, 1, 0]));
    }

    #[test]
    fn a_repeated_result_is_known_everywhere() {
        use crate::choice::{Choice, Data, Requires};
        use crate::spec::Contents;
        let choice = Choice {
            file: "",
            variant: "",
            selection: girih_shaders::Selection::new(),
            invocations: 1,
            workgroup_bytes: 0,
            requires: Requires::NOTHING,
            data: Data::Plain,
        };
        let workload = Workload {
            buffers: vec![Contents::once(&[0f32; 4])],
            result: 0,
            sample: Launch { choice, params: Vec::new(), grid: [1; 3], indirect: false },
            sample_buffer: None,
            sample_shape: [2, 2],
            shape: [3, 3],
            repeats: true,
        };
        let right = [1.0, 2.0, 1.0, 3.0, 4.0, 3.0, 1.0, 2.0, 1.0];
        let sample = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(difference(&right, &sample, &workload, None), None);
        for i in 0..9 {
            let mut got = right;
            got[i] += 0.5;
            assert!(difference(&got, &sample, &workload, None).is_some(), "{i}");
        }
        let begins = Workload { repeats: false, sample_shape: [1, 3], ..workload };
        let whole = [1.0, 2.0, 1.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0];
        assert_eq!(difference(&whole, &whole[..3], &begins, Some(&whole)), None);
        assert!(difference(&right, &whole[..3], &begins, Some(&whole)).is_some());
    }
}
