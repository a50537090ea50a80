//! What a device can do at best: rates of the probes, and which of them bounds a kernel.

use web_time::Instant;

use super::{barrier, copy, fma, int8_dot, read, write};
use crate::case::Arithmetic;
use crate::device::Gpu;
use crate::error::KernelError;
use crate::recorder::Recorder;

/// Bytes per second over a set of bytes that is gone through again and again.
#[derive(Clone, Copy, Debug)]
pub struct Bandwidth {
    /// Bytes of the set; of a copy half of them are read, half written.
    pub set_bytes: u64,
    /// Of reading.
    pub read: f64,
    /// Of writing.
    pub write: f64,
    /// Of a copy, read and written bytes both counted.
    pub copy: f64,
}

/// What a device can do at best.
#[derive(Clone, Debug)]
pub struct Ceilings {
    /// For sets from small to large.
    pub memory: Vec<Bandwidth>,
    /// f32 operations per second; a multiply-add is two.
    pub f32_flops: f64,
    /// The same in f16, where the device has it.
    pub f16_flops: Option<f64>,
    /// Operations per second of `dot4I8Packed`, eight each.
    pub int8_ops: f64,
    /// Seconds of an empty dispatch in a pass of many.
    pub dispatch: f64,
    /// Seconds of a barrier of a workgroup of [`barrier::WG`] that is alone.
    pub barrier: f64,
}

/// One of the ceilings.
#[derive(Clone, Debug, PartialEq)]
pub struct Ceiling {
    /// `read 16 MiB`, `f32`, ...
    pub name: String,
    /// Bytes or operations per second.
    pub rate: f64,
}

impl Ceilings {
    /// What bounds a kernel that moves `bytes`, of which it writes `written`, in a set of `set_bytes`: reading, writing, or a
    /// copy where more than a quarter is of the other kind; at the measured size that is nearest.
    pub fn memory(&self, bytes: u64, written: u64, set_bytes: u64) -> Ceiling {
        let log = |bytes: u64| (bytes.max(1) as f64).log2();
        let distance = |b: &&Bandwidth| (log(b.set_bytes) - log(set_bytes)).abs();
        let nearest = self.memory.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)));
        let Some(b) = nearest else { return Ceiling { name: "memory".into(), rate: f64::NAN } };
        let (kind, rate) = match 4 * u128::from(written) {
            w if w < u128::from(bytes) => ("read", b.read),
            w if w <= 3 * u128::from(bytes) => ("copy", b.copy),
            _ => ("write", b.write),
        };
        Ceiling { name: format!("{kind} {}", size(b.set_bytes)), rate }
    }

    /// The rate of one kind of arithmetic.
    pub fn arithmetic(&self, arithmetic: Arithmetic) -> Ceiling {
        match arithmetic {
            Arithmetic::F32 => Ceiling { name: "f32".into(), rate: self.f32_flops },
            Arithmetic::Int8 => Ceiling { name: "int8".into(), rate: self.int8_ops },
        }
    }
}

/// `16 MiB`.
fn size(bytes: u64) -> String {
    if bytes < 1 << 20 { format!("{} KiB", bytes >> 10) } else { format!("{} MiB", bytes >> 20) }
}

/// Sets that the caches of a core, of a chip, and none hold.
const SETS: [u64; 3] = [1 << 20, 16 << 20, 256 << 20];
/// Bytes of one run over a small set, so that its dispatch does not count.
const RUN_BYTES: [u64; 2] = [256 << 20, 16 << 20];
/// Seconds of runs that are timed together: what the host takes to submit does not count.
const TIMED_TOGETHER: f64 = 0.01;

/// Measures the ceilings, the best of several runs each; a second or two.
///
/// # Errors
/// Memory that is exhausted, a device that fails.
pub async fn measure(gpu: &Gpu) -> Result<Ceilings, KernelError> {
    let is_cpu = gpu.caps().is_cpu;
    let of = |on_gpu: u32, on_cpu: u32| if is_cpu { on_cpu } else { on_gpu };
    let limit = gpu.caps().binding_bytes.min(gpu.caps().buffer_bytes) >> 20 << 20;
    let mut sizes = SETS.map(|bytes| bytes.min(limit)).to_vec();
    sizes.dedup();
    let mut memory = Vec::new();
    for set_bytes in sizes {
        memory.push(bandwidth(gpu, set_bytes, RUN_BYTES[usize::from(is_cpu)]).await?);
    }

    let factors = gpu.upload(bytemuck::cast_slice(&[0.5f32, 0.999]))?;
    let groups = of(16 * 1024, 64);
    let y = gpu.alloc(4 * u64::from(groups * fma::WG.max(int8_dot::WG)))?;
    let flops = async |f16: bool| -> Result<f64, KernelError> {
        let mut rec = Recorder::new(gpu);
        let flops = fma::record(&mut rec, [&factors, &y], f16, groups, of(2048, 8000))?;
        Ok(flops / best_seconds(gpu, &rec).await?)
    };
    let f32_flops = flops(false).await?;
    let f16_flops = if gpu.caps().f16 { Some(flops(true).await?) } else { None };
    let mut rec = Recorder::new(gpu);
    let bytes = gpu.upload(&[0xfd, 0x03, 0x80, 0x7f])?;
    let int8_ops = int8_dot::record(&mut rec, [&bytes, &y], groups, of(2048, 2000))?;
    let int8_ops = int8_ops / best_seconds(gpu, &rec).await?;

    let (source, target) = (gpu.alloc(16)?, gpu.alloc(16)?);
    let dispatch =
        slope(gpu, 256, |rec, count| (0..count).try_for_each(|_| copy::record(rec, &source, &target, 1)))
            .await?;
    let places = gpu.alloc(4 * u64::from(barrier::WG))?;
    let rounds = of(8192, 2048);
    let barrier = slope(gpu, rounds, |rec, rounds| barrier::record(rec, [&places, &y], 1, rounds)).await?;
    Ok(Ceilings { memory, f32_flops, f16_flops, int8_ops, dispatch, barrier })
}

async fn bandwidth(gpu: &Gpu, set_bytes: u64, run_bytes: u64) -> Result<Bandwidth, KernelError> {
    let passes = (run_bytes / set_bytes).max(1);
    let moved = (passes * set_bytes) as f64;
    let passes = passes as u32;
    // One buffer after the other: no more than the set and what reading writes is held at a time.
    let (read, write) = {
        let set = gpu.alloc(set_bytes)?;
        let y = gpu.alloc(read::result_bytes(set_bytes, passes))?;
        let mut rec = Recorder::new(gpu);
        // Written first: memory that was never touched may be one page of zeros.
        write::record(&mut rec, &set, passes)?;
        let write = best_seconds(gpu, &rec).await?;
        rec.clear();
        read::record(&mut rec, &set, &y, passes)?;
        (best_seconds(gpu, &rec).await?, write)
    };
    let (src, dst) = (gpu.alloc(set_bytes / 2)?, gpu.alloc(set_bytes / 2)?);
    let mut rec = Recorder::new(gpu);
    write::record(&mut rec, &src, 1)?;
    gpu.submit(&rec)?;
    rec.clear();
    copy::record(&mut rec, &src, &dst, passes)?;
    let copy = best_seconds(gpu, &rec).await?;
    Ok(Bandwidth { set_bytes, read: moved / read, write: moved / write, copy: moved / copy })
}

/// Seconds that each of `count` things adds to a recording of one.
async fn slope(
    gpu: &Gpu,
    count: u32,
    record: impl Fn(&mut Recorder, u32) -> Result<(), KernelError>,
) -> Result<f64, KernelError> {
    let mut seconds = [0.0; 2];
    for (seconds, count) in seconds.iter_mut().zip([1, count + 1]) {
        let mut rec = Recorder::new(gpu);
        record(&mut rec, count)?;
        *seconds = best_seconds(gpu, &rec).await?;
    }
    Ok(((seconds[1] - seconds[0]) / f64::from(count)).max(0.0))
}

/// Seconds of a recording, the best of three times, each of as many runs as fill [`TIMED_TOGETHER`], after a warm-up.
async fn best_seconds(gpu: &Gpu, rec: &Recorder) -> Result<f64, KernelError> {
    let plan = gpu.plan(rec)?;
    let run = async |times: u32| {
        let start = Instant::now();
        gpu.replay(&plan, times);
        gpu.idle().await;
        start.elapsed().as_secs_f64() / f64::from(times)
    };
    run(1).await;
    let once = run(1).await;
    let times = (TIMED_TOGETHER / once.max(1e-6)).clamp(1.0, 256.0) as u32;
    let mut best = once;
    for _ in 0..3 {
        best = best.min(run(times).await);
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ceiling_is_that_of_what_is_moved_most_at_the_nearest_size() {
        let at = |mib: u64, rate: f64| Bandwidth {
            set_bytes: mib << 20,
            read: rate,
            write: 2.0 * rate,
            copy: 3.0 * rate,
        };
        let memory = vec![at(1, 100.0), at(16, 10.0), at(256, 1.0)];
        let (f32_flops, int8_ops) = (5.0, 7.0);
        let ceilings = Ceilings { memory, f32_flops, f16_flops: None, int8_ops, dispatch: 0.0, barrier: 0.0 };
        let of = |bytes, written, set: u64| {
            let Ceiling { name, rate } = ceilings.memory(bytes, written, set);
            (name, rate)
        };
        assert_eq!(of(1000, 10, 200 << 20), ("read 256 MiB".to_owned(), 1.0));
        assert_eq!(of(1000, 249, 1 << 10), ("read 1 MiB".to_owned(), 100.0));
        assert_eq!(of(1000, 250, 20 << 20), ("copy 16 MiB".to_owned(), 30.0));
        assert_eq!(of(1000, 751, u64::MAX), ("write 256 MiB".to_owned(), 2.0));
        assert_eq!(of(0, 0, 0).0, "copy 1 MiB");
        assert_eq!(ceilings.arithmetic(Arithmetic::Int8), Ceiling { name: "int8".into(), rate: 7.0 });
    }
}
