//! The ceilings of a device, measured through the same API as everything else.

pub mod copy;
pub mod fma;

use web_time::Instant;

use crate::device::Gpu;
use crate::error::KernelError;
use crate::recorder::Recorder;

/// What a device can do at best.
#[derive(Clone, Copy, Debug)]
pub struct Ceilings {
    /// Bytes per second of a copy kernel, read and written bytes both counted.
    pub copy_bytes: f64,
    /// f32 operations per second; a multiply-add is two.
    pub fma_flops: f64,
    /// Seconds of an empty dispatch in a pass of many.
    pub dispatch: f64,
}

/// Measures the ceilings: the best of several runs each.
///
/// # Errors
/// Memory that is exhausted, a device that fails.
pub async fn measure(gpu: &Gpu) -> Result<Ceilings, KernelError> {
    let bytes =
        (256 << 20).min(gpu.caps().binding_bytes).min(if gpu.caps().is_cpu { 64 << 20 } else { u64::MAX });
    let (src, dst) = (gpu.alloc(bytes)?, gpu.alloc(bytes)?);
    let mut rec = Recorder::new(gpu);
    copy::record(&mut rec, &src, &dst)?;
    let copy = best_seconds(gpu, &rec, 5).await?;
    let factors = gpu.upload(bytemuck::cast_slice(&[0.5f32, 0.999]))?;
    let groups = if gpu.caps().is_cpu { 64 } else { 16 * 1024 };
    let rounds = if gpu.caps().is_cpu { 20_000 } else { 4096 };
    let out = gpu.alloc(4 * u64::from(groups * fma::WG))?;
    let mut rec = Recorder::new(gpu);
    let flops = fma::record(&mut rec, &factors, &out, groups, rounds)?;
    let fma = best_seconds(gpu, &rec, 3).await?;
    let tiny = gpu.alloc(16)?;
    let (mut rec, mut none) = (Recorder::new(gpu), Recorder::new(gpu));
    let target = gpu.alloc(16)?;
    copy::record(&mut none, &tiny, &target)?;
    for _ in 0..257 {
        copy::record(&mut rec, &tiny, &target)?;
    }
    let dispatch = (best_seconds(gpu, &rec, 5).await? - best_seconds(gpu, &none, 5).await?) / 256.0;
    Ok(Ceilings {
        copy_bytes: 2.0 * bytes as f64 / copy,
        fma_flops: flops / fma,
        dispatch: dispatch.max(0.0),
    })
}

/// Seconds from submitting to idle, the best of `runs` after a warm-up.
async fn best_seconds(gpu: &Gpu, rec: &Recorder, runs: u32) -> Result<f64, KernelError> {
    let plan = gpu.plan(rec)?;
    gpu.replay(&plan, 1);
    gpu.idle().await;
    let mut best = f64::MAX;
    for _ in 0..runs {
        let start = Instant::now();
        gpu.replay(&plan, 1);
        gpu.idle().await;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}
