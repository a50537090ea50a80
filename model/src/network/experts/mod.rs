//! Experts of which only some are on the GPU: a cache of bounded size, filled from the checkpoint on demand.
//!
//! Experts of one shape and format make a kind. The places of a kind are divided among the layers that have it, evenly; where
//! there are fewer places than layers, layers share one. A pass over a mixture says which experts it needs ([`ExpertCache::run`]),
//! and the cache runs its products as often as it takes, each time for the slots whose experts lie in a place then.

mod layout;
mod prefetch;
mod residency;
mod run;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use girih_ops::{Gpu, Matrix, Tensor};

pub use prefetch::{FEW_TOKENS, Prefetch};
pub use residency::{Eviction, Key, Residency, Round, Uses};
pub use run::now;

use self::prefetch::Followers;
use crate::checkpoint::weights::ExpertReader;
use crate::error::LoadError;

/// How many experts may be on the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertMemory {
    /// Bytes of the matrices of experts on the GPU, at most. Biases are not counted.
    pub bytes: u64,
    /// Which expert gives way.
    pub eviction: Eviction,
    /// Which experts are read before they are needed.
    pub prefetch: Prefetch,
}

impl ExpertMemory {
    /// So many bytes; the expert goes whose last use is longest ago, and none is read before it is needed.
    pub fn new(bytes: u64) -> Self {
        Self { bytes, eviction: Eviction::default(), prefetch: Prefetch::default() }
    }
}

/// What a cache has done.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ExpertCounts {
    /// Experts that a pass over a layer needed and that were there; each counts once for a pass, whatever its tokens.
    pub hits: u64,
    /// Experts that a pass needed and that were read.
    pub misses: u64,
    /// Bytes that went to the GPU.
    pub bytes: u64,
    /// Times that the products of a layer ran: one for each pass over it that finds room for its experts.
    pub rounds: u64,
    /// Passes over layers.
    pub passes: u64,
    /// Experts that were read before they were needed; they are no misses.
    pub prefetched: u64,
    /// Hits that are theirs: each counts when it is used first.
    pub prefetch_hits: u64,
    /// Seconds that reading experts took while they were waited for.
    pub read_seconds: f64,
}

/// The experts of one mixture, as a cache is told of them.
#[derive(Debug)]
pub struct Offered {
    /// Index of the layer in the model.
    pub layer: u32,
    /// Gate and up, then down.
    pub sources: [ExpertReader; 2],
    /// The same of biases `[E, N]`.
    pub biases: [Option<Vec<f32>>; 2],
    /// Experts of a token.
    pub per_token: u32,
}

/// The experts of one mixture.
#[derive(Debug)]
struct Layer {
    /// In the model.
    index: u32,
    per_token: u32,
    sources: [ExpertReader; 2],
    biases: [Option<Vec<f32>>; 2],
    /// Biases on the GPU, in the order of places.
    bias_rows: [Option<Tensor>; 2],
    /// Matrices of all places that the layer has.
    matrices: [Matrix; 2],
    /// Of each expert, which of the layer's shares it goes to.
    share_of: Vec<u16>,
    shares: Vec<Share>,
}

/// Places that a layer may use: those of a partition, as the layer counts them.
#[derive(Clone, Copy, Debug)]
struct Share {
    partition: usize,
    first: u32,
}

/// Places of one kind.
#[derive(Debug)]
struct Partition {
    matrices: [Matrix; 2],
}

/// Once all mixtures are known.
#[derive(Debug)]
struct Placed {
    layers: Vec<Layer>,
    partitions: Vec<Partition>,
    /// Never locked while anything is waited for.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    residencies: Vec<Residency>,
    counts: ExpertCounts,
    /// Brought before they were needed, and not used since.
    prefetched: HashSet<Key>,
    followers: Followers,
}

/// A cache of the experts of a model.
#[derive(Debug)]
pub struct ExpertCache {
    memory: ExpertMemory,
    offered: Mutex<Vec<Offered>>,
    placed: OnceLock<Placed>,
}

impl ExpertCache {
    /// A cache of this size, for a model that is being loaded.
    pub fn new(memory: ExpertMemory) -> Arc<Self> {
        Arc::new(Self { memory, offered: Mutex::default(), placed: OnceLock::new() })
    }

    /// How many experts may be on the GPU.
    pub fn memory(&self) -> ExpertMemory {
        self.memory
    }

    /// Takes the experts of a mixture. Its number.
    pub fn offer(&self, experts: Offered) -> usize {
        let mut offered = self.offered.lock().unwrap_or_else(PoisonError::into_inner);
        offered.push(experts);
        offered.len() - 1
    }

    /// Allocates the places, once all mixtures are known. Bytes on the GPU, without and with those of biases.
    ///
    /// # Errors
    /// A model without experts, bytes that do not hold one expert of each kind, memory that is exhausted.
    pub fn allocate(&self, gpu: &Gpu) -> Result<[u64; 2], LoadError> {
        let offered = std::mem::take(&mut *self.offered.lock().unwrap_or_else(PoisonError::into_inner));
        let placed = layout::place(gpu, offered, self.memory)?;
        let bytes = placed.bytes();
        let _ = self.placed.set(placed);
        Ok(bytes)
    }

    fn layer(&self, mixture: usize) -> Option<(&Placed, &Layer)> {
        let placed = self.placed.get()?;
        Some((placed, placed.layers.get(mixture)?))
    }

    /// The matrices of a mixture's places, gate and up, then down, and biases of the experts there.
    pub fn places(&self, mixture: usize) -> Option<(&[Matrix; 2], &[Option<Tensor>; 2])> {
        self.layer(mixture).map(|(_, layer)| (&layer.matrices, &layer.bias_rows))
    }

    /// Places of the whole cache.
    pub fn num_places(&self) -> u32 {
        self.placed
            .get()
            .map_or(0, |placed| placed.partitions.iter().map(|partition| partition.matrices[0].experts).sum())
    }

    /// What it has done since it was made, or since [`ExpertCache::reset_counts`].
    pub fn counts(&self) -> ExpertCounts {
        self.placed.get().map_or_else(ExpertCounts::default, |placed| placed.state().counts)
    }

    /// Counts from zero on; the experts stay where they are.
    pub fn reset_counts(&self) {
        if let Some(placed) = self.placed.get() {
            placed.state().counts = ExpertCounts::default();
        }
    }
}

impl Placed {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bytes(&self) -> [u64; 2] {
        let matrices = self.partitions.iter().flat_map(|p| &p.matrices).map(Matrix::bytes).sum::<u64>();
        let biases = self.layers.iter().flat_map(|l| &l.bias_rows).flatten();
        [matrices, matrices + biases.map(|bias| 4 * bias.len() as u64).sum::<u64>()]
    }
}
