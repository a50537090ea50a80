//! What the recorder refuses before the driver sees it, and that handles to one device tell buffers apart.

use girih_kernels::registry::KERNELS;
use girih_kernels::{Buffer, Gpu, Grid, Kernel, KernelError, Recorder, wgpu};
use girih_tests::on_device;

fn copy_kernel() -> &'static Kernel {
    KERNELS.iter().find(|k| k.spec.name == "probe_copy").expect("the copy probe")
}

fn record_copy(recorder: &mut Recorder, src: &Buffer, dst: &Buffer) -> Result<(), KernelError> {
    let choice = (copy_kernel().choices)().remove(0);
    let len = (src.size() / 16) as u32;
    recorder.dispatch(copy_kernel().spec, choice, &[len, 1, 1, 1], &[src, dst], [1, 1, 1])
}

#[on_device]
async fn a_buffer_is_not_read_and_written_at_once(gpu: Gpu) {
    let mut recorder = Recorder::new(&gpu);
    let whole = gpu.alloc(1024).expect("memory");
    let (front, back) = (whole.slice(0, 512).expect("inside"), whole.slice(512, 512).expect("inside"));
    assert!(matches!(record_copy(&mut recorder, &front, &back), Err(KernelError::Aliased { .. })));
    assert!(matches!(recorder.copy(&front, &back), Err(KernelError::Aliased { .. })));
    let other = gpu.alloc(512).expect("memory");
    record_copy(&mut recorder, &front, &other).expect("two buffers");
}

/// What an engine does that encodes a plan into its own pass: it keeps a result, not the plan.
#[on_device]
async fn a_plan_may_be_dropped_before_its_encoder_is_submitted(gpu: Gpu) {
    let words: Vec<u32> = (0..64).collect();
    let dst = gpu.alloc(256).expect("memory");
    let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    {
        let src = gpu.upload(bytemuck::cast_slice(&words)).expect("memory");
        let mut recorder = Recorder::new(&gpu);
        record_copy(&mut recorder, &src, &dst).expect("records");
        gpu.plan(&recorder).expect("a plan").encode(&mut encoder);
    }
    gpu.queue().submit([encoder.finish()]);
    let got: Vec<u32> = bytemuck::pod_collect_to_vec(&gpu.read(&dst).await.expect("reads"));
    assert_eq!(got, words);
    gpu.check().expect("no error of the device");
}

#[on_device]
async fn a_binding_starts_where_the_device_wants_it(gpu: Gpu) {
    let mut recorder = Recorder::new(&gpu);
    let (src, dst) = (gpu.alloc(1024).expect("memory"), gpu.alloc(1024).expect("memory"));
    let crooked = src.slice(4, 16).expect("inside");
    assert!(matches!(record_copy(&mut recorder, &crooked, &dst), Err(KernelError::Misaligned { .. })));
}

#[on_device]
async fn counts_that_do_not_fit_the_kernel_are_errors(gpu: Gpu) {
    let mut recorder = Recorder::new(&gpu);
    let buffer = gpu.alloc(16).expect("memory");
    let (spec, choice) = (copy_kernel().spec, (copy_kernel().choices)().remove(0));
    let short = recorder.dispatch(spec, choice.clone(), &[0u32], &[&buffer, &buffer], [1, 1, 1]);
    assert!(matches!(short, Err(KernelError::BadParam { .. })));
    let few = recorder.dispatch(spec, choice, &[0u32; 4], &[&buffer], [1, 1, 1]);
    assert!(matches!(few, Err(KernelError::BadParam { .. })));
}

const GROUPS: u32 = 12;

/// Workgroups that write their number, at most [`GROUPS`], with the words of their grid in `args`.
fn record_groups(
    recorder: &mut Recorder,
    count: &Buffer,
    y: &Buffer,
    args: &Buffer,
) -> Result<(), KernelError> {
    let kernel = KERNELS.iter().find(|k| k.spec.name == "probe_groups").expect("the probe of grids");
    let grid = Grid::Indirect { args: args.clone(), most: [GROUPS, 1, 1] };
    recorder.dispatch(kernel.spec, (kernel.choices)().remove(0), &[GROUPS, 0, 0, 0], &[count, y], grid)
}

/// How many workgroups wrote, of those that `y` has room for; it is cleared.
async fn groups_that_ran(gpu: &Gpu, y: &Buffer) -> u32 {
    let words: Vec<u32> = bytemuck::pod_collect_to_vec(&gpu.read(y).await.expect("reads"));
    gpu.write(y, 0, &vec![0; y.size() as usize]);
    let ran = words.iter().rposition(|&word| word != 0).map_or(0, |last| last as u32 / 64 + 1);
    assert!((0..64 * ran).all(|i| words[i as usize] == i), "{words:?}");
    ran
}

/// A grid is what its buffer says when the dispatch begins: also where the device wrote it a moment before, and in every
/// replay anew.
#[on_device]
async fn a_grid_comes_from_a_buffer(gpu: Gpu) {
    let words = |counts: &[u32]| gpu.upload(bytemuck::cast_slice(counts)).expect("memory");
    let (count, y) = (words(&[GROUPS]), gpu.alloc(256 * u64::from(GROUPS)).expect("memory"));
    let args = gpu.alloc_indirect(64).expect("memory");
    let mut recorder = Recorder::new(&gpu);
    record_groups(&mut recorder, &count, &y, &args).expect("records");
    assert_eq!(recorder.labels(), ["probe_groups/portable indirect"]);
    let plan = gpu.plan(&recorder).expect("a plan");
    for (grid, want) in [([5, 1, 1], 5), ([0, 1, 1], 0), ([12, 1, 1], 12), ([3, 0, 1], 0)] {
        gpu.write(&args, 0, bytemuck::cast_slice(&grid));
        gpu.replay(&plan, 1);
        assert_eq!(groups_that_ran(&gpu, &y).await, want, "{grid:?}");
    }
    // Words that lie further behind, copied there in the same submission.
    let mut recorder = Recorder::new(&gpu);
    let source = words(&[7, 1, 1, 0]);
    let behind = args.slice(20, 16).expect("inside");
    recorder.copy(&source, &behind).expect("records");
    record_groups(&mut recorder, &count, &y, &behind).expect("records");
    gpu.submit(&recorder).expect("runs");
    assert_eq!(groups_that_ran(&gpu, &y).await, 7, "copied in front");
    // Twins run where workgroups do.
    for (grid, want) in [([12, 1, 1], 12), ([0, 1, 1], 0)] {
        gpu.write(&args, 0, bytemuck::cast_slice(&grid));
        gpu.run_twins(plan.commands(), |_| true).await.expect("twins");
        assert_eq!(groups_that_ran(&gpu, &y).await, want, "twins, {grid:?}");
    }
    gpu.check().expect("no error of the device");
}

/// The same on a device of somebody else, whose wgpu checks what is in the buffer: more workgroups than an axis may have
/// are none.
#[test]
fn a_grid_comes_from_a_buffer_on_a_callers_device() {
    pollster::block_on(async {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: wgpu::Backends::PRIMARY,
            flags: wgpu::InstanceFlags::VALIDATION_INDIRECT_CALL,
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let options = wgpu::RequestAdapterOptions::default();
        let adapter = instance.request_adapter(&options).await.expect("an adapter");
        let required_limits = adapter.limits();
        let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
        let (device, queue) = adapter.request_device(&descriptor).await.expect("a device");
        let max_tier = Some(girih_kernels::Tier::Portable);
        let options = girih_kernels::Options { max_tier, ..girih_kernels::Options::default() };
        let gpu = Gpu::from_wgpu(&adapter, device, queue, options).expect("large enough");
        let count = gpu.upload(bytemuck::cast_slice(&[GROUPS])).expect("memory");
        let y = gpu.alloc(256 * u64::from(GROUPS)).expect("memory");
        let args = gpu.alloc_indirect(16).expect("memory");
        let mut recorder = Recorder::new(&gpu);
        record_groups(&mut recorder, &count, &y, &args).expect("records");
        let plan = gpu.plan(&recorder).expect("a plan");
        for (x, want) in [(5, 5), (gpu.caps().workgroups + 1, 0), (12, 12)] {
            gpu.write(&args, 0, bytemuck::cast_slice(&[x, 1, 1]));
            gpu.replay(&plan, 1);
            assert_eq!(groups_that_ran(&gpu, &y).await, want, "{x}");
        }
        gpu.check().expect("no error of the device");
    });
}

#[on_device]
async fn what_is_no_buffer_of_a_grid_is_an_error(gpu: Gpu) {
    let (count, y) = (gpu.alloc(16).expect("memory"), gpu.alloc(256 * u64::from(GROUPS)).expect("memory"));
    let args = gpu.alloc_indirect(4096).expect("memory");
    let mut recorder = Recorder::new(&gpu);
    let mut error = |y: &Buffer, args: &Buffer| {
        record_groups(&mut recorder, &count, y, args).expect_err("refused").to_string()
    };
    assert!(error(&y, &count).contains("lacks the usage INDIRECT"));
    let short = args.slice(0, 8).expect("inside");
    assert_eq!(error(&y, &short), "probe_groups: buffer grid has 8 bytes, needs 12");
    let crooked = args.slice(2, 12).expect("inside");
    assert_eq!(error(&y, &crooked), "probe_groups: buffer grid starts at byte 2, must be a multiple of 4");
    let words = args.slice(2048, 12).expect("inside");
    assert_eq!(error(&args, &words), "probe_groups: y is written and shares its buffer with grid");
    // Reading it is allowed.
    record_groups(&mut recorder, &args, &y, &words).expect("records");
    let hollow = gpu.recording_only();
    let args = hollow.alloc_indirect(16).expect("no memory");
    record_groups(&mut Recorder::new(&hollow), &count, &y, &args).expect("records");
}

#[on_device]
async fn two_handles_to_a_device_do_not_mistake_buffers(gpu: Gpu) {
    let other = gpu.with_caps(gpu.caps().clone());
    let dst = other.alloc(16).expect("memory");
    // One buffer of each handle, made in turn, through the bind group cache of one of them.
    for i in 0..4u32 {
        let sources = [&gpu, &other].map(|g| g.upload(bytemuck::cast_slice(&[i; 4])).expect("memory"));
        for (offset, src) in sources.iter().enumerate() {
            let value = 2 * i + offset as u32;
            other.write(src, 0, bytemuck::cast_slice(&[value; 4]));
            let mut recorder = Recorder::new(&other);
            record_copy(&mut recorder, src, &dst).expect("recorded");
            other.submit(&recorder).expect("submitted");
            let got: Vec<u32> = bytemuck::pod_collect_to_vec(&other.read(&dst).await.expect("read"));
            assert_eq!(got, [value; 4]);
        }
    }
}

#[test]
fn threads_that_submit_at_once_keep_their_parameters() {
    let gpu = girih_tests::gpu();
    std::thread::scope(|scope| {
        for len in [1u32, 2, 3, 4] {
            let gpu = gpu.clone();
            scope.spawn(move || {
                let src = gpu.upload(bytemuck::cast_slice(&[7u32; 16])).expect("memory");
                for _ in 0..50 {
                    let dst = gpu.alloc(64).expect("memory");
                    let mut recorder = Recorder::new(&gpu);
                    let choice = (copy_kernel().choices)().remove(0);
                    let params = [len, 1, 1, 1];
                    recorder
                        .dispatch(copy_kernel().spec, choice, &params, &[&src, &dst], [1, 1, 1])
                        .expect("recorded");
                    gpu.submit(&recorder).expect("submitted");
                    let got: Vec<u32> =
                        bytemuck::pod_collect_to_vec(&pollster::block_on(gpu.read(&dst)).expect("read"));
                    let copied = got.iter().filter(|&&v| v == 7).count();
                    assert_eq!(copied, 4 * len as usize);
                }
            });
        }
    });
}
