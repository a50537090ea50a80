//! What goes wrong on a device, and the wgpu device that is watched for it.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};

use super::counters::AtomicCounters;
use super::lock::lock;
use super::open;
use crate::error::GpuError;

#[derive(Debug, Default)]
pub(crate) struct Failure {
    /// Why the device is gone.
    lost: OnceLock<String>,
    /// The first error outside of any scope.
    uncaptured: Mutex<Option<GpuError>>,
}

impl Failure {
    /// Notes from now on what a device reports.
    pub fn of(device: &wgpu::Device) -> Arc<Self> {
        let failure = Arc::new(Self::default());
        let seen = failure.clone();
        open::on_uncaptured_error(device, move |message, out_of_memory| {
            seen.report(if out_of_memory {
                GpuError::Exhausted { message }
            } else {
                GpuError::Uncaptured(message)
            });
        });
        let seen = failure.clone();
        device.set_device_lost_callback(move |reason, message| {
            seen.lose(format!("{reason:?}: {message}"));
        });
        failure
    }

    fn report(&self, error: GpuError) {
        if self.lost.get().is_some() {
            // A consequence of the loss, which everyone is told about already.
            tracing::debug!("{error}");
            return;
        }
        tracing::error!("{error}");
        lock(&self.uncaptured).get_or_insert(error);
    }

    /// Why the device is gone, if it is.
    pub fn loss(&self) -> Option<&str> {
        self.lost.get().map(String::as_str)
    }

    /// Notes that the device is gone; the first reason stays.
    pub fn lose(&self, reason: String) {
        self.lost.get_or_init(|| reason);
    }

    pub fn lost(&self) -> Result<(), GpuError> {
        self.lost.get().map_or(Ok(()), |message| Err(GpuError::Lost(message.clone())))
    }
}

/// A wgpu device, what it reported, and counts of what was made on it.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub device: wgpu::Device,
    pub failure: Arc<Failure>,
    pub counters: Arc<AtomicCounters>,
}

impl Watched {
    pub fn new(device: wgpu::Device) -> Self {
        Self { failure: Failure::of(&device), device, counters: Arc::default() }
    }

    /// The first error that the device reported outside of any scope, if one did.
    pub fn check(&self) -> Result<(), GpuError> {
        self.failure.lost()?;
        let error = lock(&self.failure.uncaptured).clone();
        error.map_or(Ok(()), |error| {
            self.explain()?;
            Err(error)
        })
    }

    /// To be asked when something failed: if the device is gone, that is the error to report, not what failed
    /// because of it.
    pub fn explain(&self) -> Result<(), GpuError> {
        // wgpu tells of a loss when it is polled, which may be later than the first failure.
        let _ = self.device.poll(wgpu::PollType::Poll);
        self.failure.lost()
    }

    /// [`Watched::check`] for a trial whose failure is not to condemn what comes after it: an error that is not the
    /// loss of the device is forgotten.
    pub fn take_error(&self) -> Option<GpuError> {
        let error = self.check().err()?;
        if !matches!(error, GpuError::Lost(_)) {
            lock(&self.failure.uncaptured).take();
        }
        Some(error)
    }

    /// Runs `make` and returns the message of the error of that kind which it provoked, if any. Natively error scopes
    /// answer at once. In a browser they answer later: there the error reaches [`Watched::check`] through the
    /// uncaptured-error handler instead.
    pub fn scoped<T>(&self, filter: wgpu::ErrorFilter, make: impl FnOnce() -> T) -> (T, Option<String>) {
        if cfg!(target_arch = "wasm32") {
            return (make(), None);
        }
        let scope = self.device.push_error_scope(filter);
        let made = make();
        let popped = pin!(scope.pop()).poll(&mut Context::from_waker(Waker::noop()));
        match popped {
            Poll::Ready(error) => (made, error.map(|e| e.to_string())),
            Poll::Pending => (made, None),
        }
    }
}
