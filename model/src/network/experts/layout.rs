//! How many experts find a place, and where.

use std::sync::Mutex;

use girih_ops::{Gpu, Matrix, Part, Tensor, WeightFormat};

use super::{ExpertMemory, Layer, Offered, Partition, Placed, Residency, Share, State};
use crate::checkpoint::weights::ExpertReader;
use crate::error::LoadError;

/// Experts that can take each other's place: rows and columns of gate and up, and of down, with their formats.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Kind {
    matrices: [(u32, u32, WeightFormat); 2],
}

impl Kind {
    fn bytes(&self) -> u64 {
        let of = |&(n, k, format): &(u32, u32, WeightFormat)| {
            u64::from(n) * (format.row_bytes(k) + format.scale_row_bytes(k))
        };
        self.matrices.iter().map(of).sum()
    }
}

/// A kind, and how many experts of it each mixture has that has any.
struct Group {
    kind: Kind,
    mixtures: Vec<(usize, u32)>,
}

impl Group {
    fn experts(&self) -> u64 {
        self.mixtures.iter().map(|&(_, experts)| u64::from(experts)).sum()
    }
}

/// Allocates places for the experts of all mixtures.
pub(super) fn place(gpu: &Gpu, offered: Vec<Offered>, memory: ExpertMemory) -> Result<Placed, LoadError> {
    let mut groups: Vec<Group> = Vec::new();
    let mut group_of: Vec<Vec<usize>> = Vec::new();
    for (mixture, offer) in offered.iter().enumerate() {
        let kinds = kinds(&offer.sources);
        let of = kinds.into_iter().map(|kind| {
            let known = groups.iter().position(|group| group.kind == kind);
            let group = known.unwrap_or_else(|| {
                groups.push(Group { kind, mixtures: Vec::new() });
                groups.len() - 1
            });
            match groups[group].mixtures.last_mut() {
                Some((last, experts)) if *last == mixture => *experts += 1,
                _ => groups[group].mixtures.push((mixture, 1)),
            }
            group
        });
        group_of.push(of.collect());
    }
    let places = divide(&groups, memory.bytes)?;
    let mut placed = Placed { layers: Vec::new(), partitions: Vec::new(), state: Mutex::default() };
    let mut residencies = Vec::new();
    // Of each group, the partition of each of its mixtures.
    let mut partition_of: Vec<Vec<(usize, usize)>> = Vec::new();
    for (group, places) in groups.iter().zip(places) {
        let first = placed.partitions.len();
        let count = places.min(group.mixtures.len() as u64);
        let of = |i: usize| first + (i as u64 * count / group.mixtures.len() as u64) as usize;
        partition_of.push(group.mixtures.iter().enumerate().map(|(i, &(m, _))| (m, of(i))).collect());
        for i in 0..count {
            let share = places / count + u64::from(i < places % count);
            let partition = first + i as usize;
            let members = group.mixtures.iter().enumerate().filter(|&(j, _)| of(j) == partition);
            let experts: u64 = members.map(|(_, &(_, experts))| u64::from(experts)).sum();
            // No more than there are experts, which a router bounds; a cache of them all is one too.
            let share = share.min(experts) as u32;
            let matrix = |(n, k, format)| Matrix::alloc_experts(gpu, &[(share, format)], [n, k]);
            let [gate_up, down] = group.kind.matrices;
            placed.partitions.push(Partition { matrices: [matrix(gate_up)?, matrix(down)?] });
            residencies.push(Residency::new(memory.eviction, share));
        }
    }
    for (mixture, (offer, group_of)) in offered.into_iter().zip(group_of).enumerate() {
        placed.layers.push(layer(gpu, &placed.partitions, offer, &group_of, |group| {
            partition_of[group].iter().find(|(m, _)| *m == mixture).map_or(0, |&(_, partition)| partition)
        })?);
    }
    placed.state = Mutex::new(State { residencies, ..State::default() });
    Ok(placed)
}

/// The kind of each expert.
fn kinds(sources: &[ExpertReader; 2]) -> Vec<Kind> {
    let of = |source: &ExpertReader, i: usize| {
        let [_, n, k] = source.shape();
        (n, k, source.formats()[i])
    };
    let [gate_up, down] = sources;
    let count = gate_up.formats().len().min(down.formats().len());
    (0..count).map(|i| Kind { matrices: [of(gate_up, i), of(down, i)] }).collect()
}

/// Places of each group: one, and of what is left a share by the bytes of all its experts.
fn divide(groups: &[Group], bytes: u64) -> Result<Vec<u64>, LoadError> {
    if groups.is_empty() {
        return Err(LoadError::NoExperts);
    }
    let least = groups.iter().fold(0u64, |sum, group| sum.saturating_add(group.kind.bytes()));
    if bytes < least {
        return Err(LoadError::ExpertMemory { got: bytes, want: least, kinds: groups.len() });
    }
    let all = |group: &Group| u128::from(group.experts()) * u128::from(group.kind.bytes());
    let total: u128 = groups.iter().map(all).sum();
    let left = u128::from(bytes - least);
    let of = |group: &Group| {
        let share = left * all(group) / total.max(1);
        let more = u64::try_from(share / u128::from(group.kind.bytes().max(1))).unwrap_or(u64::MAX);
        more.saturating_add(1).min(group.experts())
    };
    Ok(groups.iter().map(of).collect())
}

/// A mixture with the places that it may use.
fn layer(
    gpu: &Gpu,
    partitions: &[Partition],
    offer: Offered,
    group_of: &[usize],
    partition_of: impl Fn(usize) -> usize,
) -> Result<Layer, LoadError> {
    let Offered { layer, sources, biases, per_token } = offer;
    let mut shares: Vec<Share> = Vec::new();
    let mut share_of = Vec::with_capacity(group_of.len());
    let mut first = 0;
    for &group in group_of {
        let partition = partition_of(group);
        let known = shares.iter().position(|share| share.partition == partition);
        let share = known.unwrap_or_else(|| {
            shares.push(Share { partition, first });
            first += partitions[partition].matrices[0].experts;
            shares.len() - 1
        });
        share_of.push(share as u16);
    }
    let joined =
        |i: usize| join(shares.iter().map(|share| &partitions[share.partition].matrices[i]), &sources[i]);
    let matrices = [joined(0), joined(1)];
    let rows = first.max(per_token);
    let bias = |i: usize| {
        let n = rows.saturating_mul(sources[i].shape()[1]);
        let zeros = biases[i].as_ref().map(|_| vec![0.0; n as usize]);
        zeros.map(|zeros| Tensor::from_f32(gpu, &zeros, &[n])).transpose()
    };
    let bias_rows = [bias(0)?, bias(1)?];
    Ok(Layer { index: layer, per_token, sources, biases, bias_rows, matrices, share_of, shares })
}

/// Matrices of places one behind the other.
fn join<'a>(matrices: impl Iterator<Item = &'a Matrix>, source: &ExpertReader) -> Matrix {
    let [_, _, k] = source.shape();
    let mut all = Matrix { n: 0, k, experts: 0, parts: Vec::new(), input: source.input().clone() };
    for matrix in matrices {
        let shifted = |part: &Part| Part { row0: all.n + part.row0, ..part.clone() };
        let parts: Vec<Part> = matrix.parts.iter().map(shifted).collect();
        all.parts.extend(parts);
        all.n += matrix.n;
        all.experts += matrix.experts;
    }
    all
}
