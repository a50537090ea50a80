//! The self-test: what a model needs is tested once, and what fails is blocked, nothing else.

use girih_kernels::fused::Norm;
use girih_kernels::matmul::gemv::{self, Args};
use girih_kernels::matmul::{Act, Epilogue, Part, Shape, WeightFormat};
use girih_kernels::selftest::{Needs, Verdicts, test, test_among};
use girih_kernels::twin::TwinCall;
use girih_kernels::{Data, Gpu, GpuError, Kernel, KernelError, KernelSpec, Recorder, Tier};
use girih_model::{LoadOptions, Model, SessionOptions, WeightPolicy};
use girih_ops::Format;
use girih_tests::{fable, gpu};

/// A product of one row with a matrix in two formats.
fn product(gpu: &Gpu) -> Result<Recorder, KernelError> {
    let gpu = gpu.recording_only();
    let buffer = gpu.alloc(4 * 64 * 64)?;
    let y = gpu.alloc(4 * 128)?;
    let of = |format, row0| Part { buffer: &buffer, scales: None, format, row0, rows: 64 };
    let parts = [of(WeightFormat::F16, 0), of(WeightFormat::F32, 64)];
    let epilogue = Epilogue { bias: None, alpha: 1.0, act: Act::Identity, residual: None };
    let mut recorder = Recorder::new(&gpu);
    let args = Args { x: &buffer, parts: &parts, norm: Norm::None, epilogue, y: &y };
    gemv::record(&mut recorder, args, Shape { m: 1, n: 128, k: 64 })?;
    Ok(recorder)
}

/// Variants with which both parts of [`product`] are computed.
fn variants(gpu: &Gpu) -> Result<Vec<&'static str>, KernelError> {
    Ok(product(gpu)?.dispatches().map(|d| d.choice.variant).collect())
}

/// The binding of y.
const Y: usize = 5;

/// As if the device read f16 wrongly.
fn wrong_for_f16(call: &mut TwinCall<'_>) {
    (gemv::KERNEL.spec.twin)(call);
    if call.selection.get_part("weights").is_some_and(|part| part.contains("f16")) {
        let y: Vec<f32> = call.get(Y);
        call.put(Y, &y.iter().map(|v| v + 100.0).collect::<Vec<_>>());
    }
}

static WRONG: KernelSpec = KernelSpec {
    name: "gemv",
    bindings: gemv::KERNEL.spec.bindings,
    params_bytes: gemv::KERNEL.spec.params_bytes,
    twin: wrong_for_f16,
};

#[test]
fn a_reader_of_weights_that_is_wrong_is_blocked_alone() {
    let gpu = gpu();
    let wrong = Kernel { spec: &WRONG, ..gemv::KERNEL };
    let before = variants(&gpu).expect("recorded");
    assert_eq!(before[0], before[1]);
    let mut verdicts = Verdicts::default();
    let needs = Needs::of(product(&gpu).expect("recorded").dispatches());
    let report = pollster::block_on(test_among(&[&wrong], &gpu, &needs, &mut verdicts));
    let key = format!("gemv/{}/f16", before[0]);
    assert_eq!((report.ran, &report.blocked), (2, &vec![key.clone()]), "{:?}", report.mismatches);
    assert!(verdicts.wrong.contains(&key) && verdicts.right.contains(&format!("gemv/{}/f32", before[1])));
    // What is known is not tested again.
    assert_eq!(pollster::block_on(test_among(&[&wrong], &gpu, &needs, &mut verdicts)).ran, 0);
    let mut blocked = verdicts.block(&gpu);
    if gpu.caps().tier > Tier::Portable {
        let after = variants(&blocked).expect("another variant");
        assert!(after[0] != before[0] && after[1] == before[1], "{before:?}, then {after:?}");
    }
    // Where all are wrong, the error says so.
    for variant in ["portable", "subgroup", "lanes_subgroup"] {
        verdicts.wrong.insert(format!("gemv/{variant}/{}", Data::Weights(WeightFormat::F16)));
    }
    blocked = verdicts.block(&blocked);
    let error = variants(&blocked).expect_err("no variant is left");
    assert!(matches!(&error, KernelError::Unavailable { kernel: "gemv", .. }), "{error}");
}

/// The launches of a start with the built-in model, and what another model adds to them.
#[test]
fn a_model_tests_what_it_uses_and_the_next_one_the_rest() {
    let gpu = gpu();
    let options = LoadOptions::default();
    let mut verdicts = Verdicts::default();
    let start = std::time::Instant::now();
    let needs = pollster::block_on(Model::needs(&gpu, &fable(), options)).expect("needs");
    let recorded = start.elapsed();
    let report = pollster::block_on(test(&gpu, &needs, &mut verdicts));
    println!(
        "{} launches, {:.2} s and {:.2} s",
        report.ran,
        recorded.as_secs_f64(),
        start.elapsed().as_secs_f64()
    );
    println!("{}", needs.keys().collect::<Vec<_>>().join("\n"));
    assert!(report.blocked.is_empty(), "{:?}", report.mismatches);
    assert!((5..=30).contains(&report.ran), "{} launches", report.ran);
    assert!(needs.keys().all(|key| verdicts.right.contains(key)), "all of it is known now");
    let more = |options, verdicts: &mut Verdicts| {
        pollster::block_on(Model::test(&gpu, &fable(), options, verdicts, |_| ())).expect("tests").1.ran
    };
    assert_eq!(more(options, &mut verdicts), 0);
    let session = SessionOptions { f16_cache: true, ..SessionOptions::default() };
    let before = verdicts.clone();
    let with_f16 = more(LoadOptions { session: Some(session), ..options }, &mut verdicts);
    assert!((1..=4).contains(&with_f16), "{with_f16} launches for a cache of f16");
    assert!(verdicts.right.difference(&before.right).all(|key| key.ends_with("/kv_f16")), "{verdicts:?}");
    let weights = WeightPolicy { force: Some(Format::Q4_0.into()), activations: None };
    let before = verdicts.clone();
    let quantised = more(LoadOptions { weights, ..options }, &mut verdicts);
    let format = WeightFormat::from(Format::Q4_0).to_string();
    assert!((1..=3).contains(&quantised), "{quantised} launches for 4 bits");
    assert!(verdicts.right.difference(&before.right).all(|key| key.ends_with(&format)), "{verdicts:?}");
}

#[test]
fn a_recording_runs_and_reads_nothing() {
    let gpu = gpu();
    let recording = gpu.recording_only();
    let made = gpu.counters();
    let large = recording.alloc(gpu.caps().buffer_bytes).expect("it takes no memory");
    assert!(matches!(pollster::block_on(recording.read(&large)), Err(GpuError::RecordingOnly)));
    let recorder = product(&gpu).expect("recorded");
    assert!(matches!(recording.submit(&recorder), Err(KernelError::Gpu(GpuError::RecordingOnly))));
    assert!(matches!(recording.plan(&recorder), Err(KernelError::Gpu(GpuError::RecordingOnly))));
    drop((large, recorder));
    assert!(gpu.counters().buffers <= made.buffers + 2, "one buffer stands for all");
    gpu.upload(&[1; 16]).expect("the device goes on");
    gpu.check().expect("no error");
}
