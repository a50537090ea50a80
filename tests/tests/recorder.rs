//! What the recorder refuses before the driver sees it, and that handles to one device tell buffers apart.

use girih_kernels::registry::KERNELS;
use girih_kernels::{Buffer, Gpu, Kernel, KernelError, Recorder, wgpu};
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
