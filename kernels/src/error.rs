//! What can go wrong, kept apart by who can mend it.

use girih_shaders::ComposeError;

/// A kernel cannot be recorded.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KernelError {
    /// This device lacks something; another variant or device has it.
    #[error("{kernel}/{variant} needs {needs}, which this device lacks")]
    Unavailable {
        /// Kernel.
        kernel: &'static str,
        /// Variant.
        variant: &'static str,
        /// What is missing.
        needs: String,
    },
    /// A parameter is out of the kernel's domain.
    #[error("{kernel}: {field} is {got}, must be {must_be}")]
    BadParam {
        /// Kernel.
        kernel: &'static str,
        /// Parameter.
        field: &'static str,
        /// Value found.
        got: u64,
        /// Value wanted.
        must_be: &'static str,
    },
    /// A buffer is smaller or larger than the parameters say.
    #[error("{kernel}: buffer {binding} has {got} bytes, needs {want}")]
    BadBuffer {
        /// Kernel.
        kernel: &'static str,
        /// Binding.
        binding: &'static str,
        /// Bytes found.
        got: u64,
        /// Bytes wanted.
        want: u64,
    },
    /// A buffer does not start where this device can bind it.
    #[error("{kernel}: buffer {binding} starts at byte {got}, must be a multiple of {want}")]
    Misaligned {
        /// Kernel.
        kernel: &'static str,
        /// Binding.
        binding: &'static str,
        /// Offset found.
        got: u64,
        /// Divisor wanted.
        want: u64,
    },
    /// One buffer is read and written by the same command, or two written ranges overlap.
    #[error("{kernel}: {written} is written and shares its buffer with {other}")]
    Aliased {
        /// Kernel.
        kernel: &'static str,
        /// Binding that is written.
        written: &'static str,
        /// The other one.
        other: &'static str,
    },
    /// The grid comes from a buffer that was not made for it.
    #[error("{kernel}: the grid's buffer lacks the usage INDIRECT, which `Gpu::alloc_indirect` gives")]
    NotIndirect {
        /// Kernel.
        kernel: &'static str,
    },
    /// A size exceeds a limit of this device.
    #[error("{kernel}: {what} is {got}, this device allows {limit}")]
    OverLimit {
        /// Kernel.
        kernel: &'static str,
        /// Quantity.
        what: &'static str,
        /// Value found.
        got: u64,
        /// Limit of the device.
        limit: u64,
    },
    /// The shader text could not be composed: a mistake in girih.
    #[error("{kernel}: {source}")]
    Compose {
        /// Kernel.
        kernel: &'static str,
        /// Cause.
        source: ComposeError,
    },
    /// The driver or wgpu refused the shader or its pipeline.
    #[error("{kernel} [{selection}]: the device refused the shader: {message}")]
    Refused {
        /// Kernel.
        kernel: &'static str,
        /// Constants and parts.
        selection: String,
        /// Message of wgpu.
        message: String,
    },
    /// The device failed.
    #[error(transparent)]
    Gpu(#[from] GpuError),
}

/// The device itself cannot be had or has failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GpuError {
    /// No adapter at all.
    #[error(
        "no GPU adapter found: wgpu saw none on {backends}. Install a Vulkan driver (on Debian \
         `apt install mesa-vulkan-drivers libvulkan1` gives a software one) or run `cargo xtask setup`"
    )]
    NoAdapter {
        /// Backends that were asked.
        backends: String,
    },
    /// Adapters exist, none has the wanted name.
    #[error("no adapter matches {wanted:?}; there are: {found}")]
    NoSuchAdapter {
        /// Name asked for.
        wanted: String,
        /// Names found.
        found: String,
    },
    /// `GIRIH_TIER` is not a tier.
    #[error("GIRIH_TIER: {0}")]
    UnknownTier(#[from] crate::caps::UnknownTier),
    /// The tier exists, and no kernels of its own.
    #[error("tier {asked} has no kernels of its own yet: the tiers with kernels are {}", tiers())]
    NoKernels {
        /// Tier asked for.
        asked: crate::caps::Tier,
    },
    /// The adapter does not have the wanted tier.
    #[error("adapter {adapter} has no tier {asked}: its best one is {best}")]
    NoTier {
        /// Adapter.
        adapter: String,
        /// Tier asked for.
        asked: crate::caps::Tier,
        /// Best tier.
        best: crate::caps::Tier,
    },
    /// The adapter is below what every kernel needs.
    #[error("adapter {adapter} is too small: {what} is {got}, girih needs {want}")]
    TooSmall {
        /// Adapter.
        adapter: String,
        /// Limit.
        what: &'static str,
        /// Value found.
        got: u64,
        /// Value wanted.
        want: u64,
    },
    /// The driver refused to make a device.
    #[error("adapter {adapter} refused to open a device: {message}")]
    Request {
        /// Adapter.
        adapter: String,
        /// Message of wgpu.
        message: String,
    },
    /// A buffer could not be allocated.
    #[error("out of GPU memory: a buffer of {bytes} bytes was refused ({message})")]
    OutOfMemory {
        /// Bytes asked for.
        bytes: u64,
        /// Message of wgpu.
        message: String,
    },
    /// Memory ran out, and the device said so after the fact, as browsers do.
    #[error("out of GPU memory: {message}")]
    Exhausted {
        /// Message of the device.
        message: String,
    },
    /// A buffer is larger than any buffer of this device.
    #[error("a buffer of {bytes} bytes exceeds the device limit of {limit}")]
    BufferTooLarge {
        /// Bytes asked for.
        bytes: u64,
        /// Limit.
        limit: u64,
    },
    /// The handle to the device is for recordings that are not run.
    #[error("a handle for recording only runs and reads nothing; one of Gpu::new does")]
    RecordingOnly,
    /// The device is gone; what was on it must be made anew.
    #[error("the GPU device was lost: {0}")]
    Lost(String),
    /// wgpu reported an error outside of any scope: a mistake in girih or in the caller's use of wgpu.
    #[error("GPU error: {0}")]
    Uncaptured(String),
    /// Reading back failed.
    #[error("reading back {bytes} bytes failed: {message}")]
    Readback {
        /// Bytes asked for.
        bytes: u64,
        /// Message of wgpu.
        message: String,
    },
}

/// Names of the tiers that have kernels.
fn tiers() -> String {
    crate::caps::Tier::WITH_KERNELS.map(|tier| tier.to_string()).join(", ")
}
