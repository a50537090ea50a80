//! Errors as JavaScript sees them: an `Error` with a `code`.

use girih_kernels::{GpuError, KernelError};
use girih_model::{LoadError, RunError};
use girih_ops::OpError;
use js_sys::Error;
use wasm_bindgen::JsValue;

use crate::value::set;

/// Kinds of failure that a page may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// No adapter, or no WebGPU.
    NoAdapter,
    /// The device lacks what every kernel needs.
    DeviceTooSmall,
    /// The device is gone.
    DeviceLost,
    /// Memory of the device is exhausted.
    OutOfMemory,
    /// A file does not exist.
    NotFound,
    /// A file is not what it should be.
    MalformedModel,
    /// A model that this version cannot run.
    UnsupportedModel,
    /// A prompt beyond the context.
    PromptTooLong,
    /// A wrong argument of the caller's.
    BadArgument,
    /// The object is at work for somebody else.
    Busy,
    /// A mistake in girih.
    Internal,
}

impl Code {
    fn name(self) -> &'static str {
        match self {
            Self::NoAdapter => "no-adapter",
            Self::DeviceTooSmall => "device-too-small",
            Self::DeviceLost => "device-lost",
            Self::OutOfMemory => "out-of-memory",
            Self::NotFound => "not-found",
            Self::MalformedModel => "malformed-model",
            Self::UnsupportedModel => "unsupported-model",
            Self::PromptTooLong => "prompt-too-long",
            Self::BadArgument => "bad-argument",
            Self::Busy => "busy",
            Self::Internal => "internal",
        }
    }
}

/// An `Error` with a code.
pub fn failure(code: Code, message: &str) -> JsValue {
    let error = Error::new(message);
    set(&error, "code", &code.name().into());
    error.into()
}

/// An error of a layer below, with its code.
pub fn of(error: &(impl Coded + std::fmt::Display)) -> JsValue {
    failure(error.code(), &error.to_string())
}

/// What an error of a layer below means to a page.
pub trait Coded {
    /// Its code.
    fn code(&self) -> Code;
}

impl Coded for GpuError {
    fn code(&self) -> Code {
        match self {
            Self::NoAdapter { .. } | Self::NoSuchAdapter { .. } | Self::Request { .. } => Code::NoAdapter,
            Self::UnknownTier(_) | Self::NoTier { .. } | Self::NoKernels { .. } => Code::BadArgument,
            Self::TooSmall { .. } => Code::DeviceTooSmall,
            Self::OutOfMemory { .. } | Self::Exhausted { .. } | Self::BufferTooLarge { .. } => {
                Code::OutOfMemory
            }
            Self::Lost(_) => Code::DeviceLost,
            Self::Uncaptured(_) | Self::Readback { .. } | Self::RecordingOnly => Code::Internal,
        }
    }
}

impl Coded for KernelError {
    fn code(&self) -> Code {
        match self {
            Self::Gpu(e) => e.code(),
            Self::Unavailable { .. } | Self::OverLimit { .. } => Code::DeviceTooSmall,
            _ => Code::Internal,
        }
    }
}

impl Coded for OpError {
    fn code(&self) -> Code {
        match self {
            Self::Gpu(e) => e.code(),
            Self::Kernel(e) => e.code(),
            _ => Code::Internal,
        }
    }
}

impl Coded for LoadError {
    fn code(&self) -> Code {
        match self {
            Self::NoFile { .. } | Self::NoWeights { .. } => Code::NotFound,
            Self::OutOfMemory(_) => Code::OutOfMemory,
            Self::Gpu(e) => e.code(),
            Self::Op(e) => e.code(),
            Self::Record(e) => e.code(),
            Self::Context { .. }
            | Self::ExpertMemory { .. }
            | Self::NoExperts
            | Self::UnknownPreset { .. }
            | Self::Requantize { .. } => Code::BadArgument,
            Self::UnknownModel { .. } => Code::UnsupportedModel,
            _ => Code::MalformedModel,
        }
    }
}

impl Coded for RunError {
    fn code(&self) -> Code {
        match self {
            Self::OutOfMemory(_) => Code::OutOfMemory,
            Self::Gpu(e) => e.code(),
            Self::Op(e) => e.code(),
            Self::Kernel(e) => e.code(),
            Self::Expert { source, .. } => source.code(),
            Self::PromptTooLong { .. } => Code::PromptTooLong,
            Self::NotANumber => Code::Internal,
            _ => Code::BadArgument,
        }
    }
}
