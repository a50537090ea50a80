//! What a row is mixed with, without its buffers: products along axes, and what they ask of a workgroup.

use super::{Hadamard, Mix, SPEC};
use crate::error::KernelError;
use crate::quant::{HadamardPlan, hadamard};

/// Results of one invocation of a product along an axis.
pub(super) const TILE: u32 = 8;
/// Largest order of a product: a workgroup has an invocation for each tile of it.
const MAX_ORDER: u32 = 1024;

/// A product along one axis: the order of the matrix, the distance of its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    pub order: u32,
    pub stride: u32,
}

/// What [`Mix`] asks for, without its buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mixing {
    None,
    Permute,
    /// Butterflies over runs of `fast` channels, products with ±1 along the axes.
    Hadamard {
        fast: u32,
        axes: Vec<Axis>,
        block: u32,
        transposed: bool,
    },
    Kronecker {
        n1: u32,
        n2: u32,
    },
}

impl Mixing {
    pub fn of(mix: &Mix<'_>, num_channels: u32) -> Result<Self, KernelError> {
        Ok(match *mix {
            Mix::None => Self::None,
            Mix::Permute { .. } => Self::Permute,
            Mix::Hadamard(h) => Self::hadamard(num_channels, h)?,
            Mix::Kronecker { n1, n2, .. } => Self::Kronecker { n1, n2 },
        })
    }

    pub fn hadamard(num_channels: u32, h: Hadamard) -> Result<Self, KernelError> {
        let bad = |field, got: u32, must_be| {
            Err(KernelError::BadParam { kernel: SPEC.name, field, got: got.into(), must_be })
        };
        if h.stride == 0 || !num_channels.is_multiple_of(h.stride) {
            return bad("stride of a Hadamard transform", h.stride, "a divisor of the number of channels");
        }
        let block = if h.block == 0 { num_channels / h.stride } else { h.block };
        if !(num_channels / h.stride).is_multiple_of(block) {
            return bad("block of a Hadamard transform", block, "a divisor of the number of channels");
        }
        let Some(HadamardPlan { factors, pow2 }) = hadamard::plan(block) else {
            let must_be = "a size with a known Hadamard matrix (a power of two, 12, 20, 28 .. times one)";
            return bad("size of a Hadamard transform", block, must_be);
        };
        let (fast, dense) = if h.stride == 1 { (pow2, 1) } else { (1, pow2) };
        let mut stride = block * h.stride;
        let mut axes = Vec::new();
        for order in factors.into_iter().chain([dense]).filter(|&order| order > 1) {
            stride /= order;
            axes.push(Axis { order, stride });
        }
        if axes.iter().any(|a| a.order > MAX_ORDER) {
            return bad("number of heads", block, "at most 1024");
        }
        Ok(Self::Hadamard { fast, axes, block, transposed: h.transposed })
    }

    /// Products along axes in channels, in the order of `Params::stages`.
    pub fn axes(&self) -> Vec<Axis> {
        match self {
            Self::None | Self::Permute => Vec::new(),
            Self::Hadamard { axes, .. } => axes.clone(),
            Self::Kronecker { n1, n2 } => {
                vec![Axis { order: *n1, stride: *n2 }, Axis { order: *n2, stride: 1 }]
            }
        }
    }

    pub fn can_vec4(&self, num_channels: u32, most_invocations: u32) -> bool {
        num_channels.is_multiple_of(4)
            && match self {
                Self::None => true,
                Self::Permute => false,
                Self::Hadamard { fast, axes, .. } => {
                    (*fast == 1 || fast.is_multiple_of(4)) && axes.iter().all(|a| a.stride.is_multiple_of(4))
                }
                Self::Kronecker { n2, .. } => n2.is_multiple_of(4) && n2 / 4 <= most_invocations,
            }
    }

    /// Invocations without which a product cannot be done.
    pub fn least_invocations(&self, vec4: bool) -> u32 {
        let tiles = |order: u32| order.div_ceil(TILE);
        match self {
            Self::None | Self::Permute => 1,
            Self::Hadamard { axes, .. } => axes.iter().map(|a| tiles(a.order)).max().unwrap_or(1),
            Self::Kronecker { n1, n2 } => tiles(*n1).max(if vec4 { n2 / 4 } else { tiles(*n2) }),
        }
    }

    /// The table that the shader reads; empty if it needs none of its own.
    pub fn table(&self) -> Vec<u32> {
        let Self::Hadamard { axes, transposed, .. } = self else { return Vec::new() };
        axes.iter().flat_map(|a| signs(a.order, *transposed)).collect()
    }
}

/// A word for each tile of 8 results and each input: bit t is set where result t takes the input with a minus.
fn signs(order: u32, transposed: bool) -> Vec<u32> {
    let Some(h) = hadamard::matrix(order) else { return Vec::new() };
    let order = order as usize;
    let mut words = Vec::with_capacity(order * order.div_ceil(TILE as usize));
    for tile in 0..order.div_ceil(TILE as usize) {
        for from in 0..order {
            let mut word = 0;
            for t in 0..TILE as usize {
                let to = tile * TILE as usize + t;
                let at = if transposed { from * order + to } else { to * order + from };
                if to < order && h[at] < 0 {
                    word |= 1 << t;
                }
            }
            words.push(word);
        }
    }
    words
}
