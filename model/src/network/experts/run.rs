//! Running what was recorded of a model whose experts are in a cache.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use girih_ops::moe::{NONE, decode_routes};
use girih_ops::{BreakPoint, Gpu, Plan};
use web_time::Instant;

use super::{ExpertCache, FEW_TOKENS, Key, Layer, Partition, Placed, Prefetch, Residency, Round, State};
use crate::checkpoint::weights::ExpertWords;
use crate::error::RunError;

/// Bytes of experts that are read for one round at most, if they are more than one: they wait on the host.
const ROUND: u64 = 64 << 20;

/// What routers have chosen.
#[derive(Default)]
struct Chosen {
    /// The experts of each token.
    tokens: Vec<Vec<u32>>,
    /// A later mixture, and the experts that it is likely to choose.
    guessed: Option<(usize, Vec<u32>)>,
}

/// The matrices of an expert on the host.
pub(super) type Words = [ExpertWords; 2];

impl ExpertCache {
    /// Runs a recording once, in segments: up to the routes of a mixture; the products of its experts, in rounds, each with
    /// those that lie in a place; and on to the next. Waits for the device at each mixture.
    ///
    /// # Errors
    /// An expert that cannot be read, a device that fails.
    pub async fn run(&self, gpu: &Gpu, plan: &Plan, breaks: &[BreakPoint]) -> Result<(), RunError> {
        let all = plan.commands().len();
        let first = breaks.first().map_or(all, |b| b.commands.start);
        gpu.replay_range(plan, 0..first);
        let mut before: Option<(usize, Vec<Vec<u32>>)> = None;
        for (i, b) in breaks.iter().enumerate() {
            let next = breaks.get(i + 1);
            let end = next.map_or(all, |b| b.commands.start);
            let Chosen { tokens: chosen, guessed } = self.mixture(gpu, plan, b, end).await?;
            // The device has something to do now.
            match (self.memory.prefetch, next) {
                (Prefetch::Gate, _) => {
                    if let Some((mixture, guessed)) = guessed {
                        self.prefetch(gpu, mixture, &guessed).await;
                    }
                }
                (Prefetch::Statistics, next) if chosen.len() <= FEW_TOKENS => {
                    let guessed =
                        self.followers(before.as_ref(), (b.mixture, &chosen), next.map(|b| b.mixture));
                    if let Some(next) = next {
                        self.prefetch(gpu, next.mixture, &guessed).await;
                    }
                    before = Some((b.mixture, chosen));
                }
                _ => (),
            }
        }
        Ok(())
    }

    /// Learns which experts follow which, and guesses what follows these.
    fn followers(
        &self,
        before: Option<&(usize, Vec<Vec<u32>>)>,
        (mixture, chosen): (usize, &[Vec<u32>]),
        next: Option<usize>,
    ) -> Vec<u32> {
        let Some((placed, _)) = self.layer(mixture) else { return Vec::new() };
        let mut state = placed.state();
        if let Some((before, experts)) = before {
            for (experts, followers) in experts.iter().zip(chosen) {
                state.followers.note(*before, experts, followers);
            }
        }
        let Some(layer) = next.and_then(|next| placed.layers.get(next)) else { return Vec::new() };
        let count = layer.per_token as usize * chosen.len();
        state.followers.guess(mixture, &chosen.concat(), layer.share_of.len() as u32, count)
    }

    /// The products of one mixture, and what follows them up to the command `next`. The experts of each token, and those that a
    /// later mixture is likely to choose.
    async fn mixture(&self, gpu: &Gpu, plan: &Plan, b: &BreakPoint, next: usize) -> Result<Chosen, RunError> {
        let Some((placed, layer)) = self.layer(b.mixture) else { return Ok(Chosen::default()) };
        let guess = b.guess.as_ref().map(|(mixture, routes)| (*mixture, routes.read_later(gpu)));
        let routes = b.routes.to_u32(gpu).await?;
        let guessed = match guess {
            None => None,
            Some((mixture, read)) => {
                let words: Vec<u32> = bytemuck::pod_collect_to_vec(&read.wait().await?);
                let mut experts: Vec<u32> = Vec::new();
                for (expert, _) in decode_routes(&words) {
                    if expert != NONE && !experts.contains(&expert) {
                        experts.push(expert);
                    }
                }
                Some((mixture, experts))
            }
        };
        let slots = decode_routes(&routes);
        let per_token = slots.len() / b.routes.shape().first().map_or(1, |&tokens| tokens.max(1) as usize);
        let of_token =
            |slots: &[(u32, f32)]| slots.iter().map(|slot| slot.0).filter(|&e| e != NONE).collect();
        let chosen: Vec<Vec<u32>> = slots.chunks(per_token.max(1)).map(of_token).collect();
        let mut tokens: BTreeMap<Key, u64> = BTreeMap::new();
        for (expert, _) in slots {
            if layer.share(expert).is_some() {
                *tokens.entry(Key { mixture: b.mixture, expert }).or_default() += 1;
            }
        }
        let mut left: Vec<Key> = tokens.keys().copied().collect();
        placed.state().use_all(layer, &tokens);
        let mut read: HashMap<Key, Words> = HashMap::new();
        loop {
            let wanted: Vec<Key> = {
                let mut state = placed.state();
                let round = state.round(layer, &left);
                let missing = |&(key, _): &(Key, u32)| (!read.contains_key(&key)).then_some(key);
                let wanted: Vec<Key> = round.bring.iter().filter_map(missing).collect();
                if wanted.is_empty() {
                    bring(gpu, placed, layer, &mut state, &round, &mut read)?;
                    let taken: HashMap<u32, u32> = round
                        .here
                        .iter()
                        .chain(&round.bring)
                        .map(|&(key, place)| (key.expert, place))
                        .collect();
                    left.retain(|key| !taken.contains_key(&key.expert));
                    gpu.write(b.places.buffer(), 0, bytemuck::cast_slice(&places(&routes, &taken)));
                    // While nobody else can move experts.
                    let commands = if left.is_empty() { b.commands.start..next } else { b.commands.clone() };
                    gpu.replay_range(plan, commands);
                    state.counts.rounds += 1;
                    if left.is_empty() {
                        return Ok(Chosen { tokens: chosen, guessed });
                    }
                }
                wanted
            };
            for key in wanted {
                let start = Instant::now();
                let words = layer.read(key.expert).await?;
                placed.state().counts.read_seconds += start.elapsed().as_secs_f64();
                read.insert(key, words);
            }
        }
    }
}

/// Brings experts that were read to their places.
pub(super) fn bring(
    gpu: &Gpu,
    placed: &Placed,
    layer: &Layer,
    state: &mut State,
    round: &Round,
    read: &mut HashMap<Key, Words>,
) -> Result<(), RunError> {
    for &(key, place) in &round.bring {
        let Some(words) = read.remove(&key) else { continue };
        let Some(share) = layer.share(key.expert) else { continue };
        let (partition, residency) =
            (&placed.partitions[share.partition], &mut state.residencies[share.partition]);
        // Until it is written as a whole, nobody is there.
        residency.empty(place - share.first);
        layer.write(gpu, partition, key.expert, place - share.first, place, &words)?;
        residency.put(place - share.first, key);
        state.counts.bytes += words.iter().map(ExpertWords::bytes).sum::<u64>();
    }
    Ok(())
}

/// Routes with places in the stead of experts; slots of other experts are left out.
fn places(routes: &[u32], taken: &HashMap<u32, u32>) -> Vec<u32> {
    let place = |slot: &[u32; 2]| [taken.get(&slot[0]).copied().unwrap_or(NONE), slot[1]];
    routes.as_chunks().0.iter().flat_map(place).collect()
}

impl State {
    /// A pass over a mixture needs these experts.
    fn use_all(&mut self, layer: &Layer, tokens: &BTreeMap<Key, u64>) {
        self.counts.passes += 1;
        for (i, share) in layer.shares.iter().enumerate() {
            let Some(residency) = self.residencies.get_mut(share.partition) else { continue };
            let of_share = tokens.iter().filter(|(key, _)| layer.is_of(i, key.expert));
            let hits = of_share.clone().filter(|&(&key, _)| residency.place(key).is_some()).count() as u64;
            for (key, _) in of_share.clone() {
                let is_first = self.prefetched.remove(key);
                self.counts.prefetch_hits += u64::from(is_first && residency.place(*key).is_some());
            }
            self.counts.hits += hits;
            self.counts.misses += of_share.clone().count() as u64 - hits;
            residency.use_all(of_share.map(|(&key, &tokens)| (key, tokens)));
        }
    }

    /// What the next round takes, with places as the layer counts them.
    fn round(&self, layer: &Layer, left: &[Key]) -> Round {
        let mut all = Round::default();
        let bytes = layer.expert_bytes().max(1);
        let most = usize::try_from((ROUND / bytes).max(1)).unwrap_or(usize::MAX);
        for (i, share) in layer.shares.iter().enumerate() {
            let of_share: Vec<Key> = left.iter().copied().filter(|key| layer.is_of(i, key.expert)).collect();
            let Some(residency) = self.residencies.get(share.partition) else { continue };
            let round = Residency::round(residency, &of_share);
            let shift = |(key, place): (Key, u32)| (key, share.first + place);
            all.here.extend(round.here.into_iter().map(shift));
            all.bring.extend(round.bring.into_iter().map(shift));
        }
        all.bring.truncate(most);
        all
    }
}

impl Layer {
    pub(super) fn share(&self, expert: u32) -> Option<super::Share> {
        self.shares.get(usize::from(*self.share_of.get(expert as usize)?)).copied()
    }

    fn is_of(&self, share: usize, expert: u32) -> bool {
        self.share_of.get(expert as usize).is_some_and(|&of| usize::from(of) == share)
    }

    /// Of the largest one.
    fn expert_bytes(&self) -> u64 {
        let of = |i: usize| {
            let [_, n, k] = self.sources[i].shape();
            let row = self.sources[i].formats().iter().map(|f| f.row_bytes(k) + f.scale_row_bytes(k)).max();
            u64::from(n) * row.unwrap_or(0)
        };
        of(0) + of(1)
    }

    pub(super) async fn read(&self, expert: u32) -> Result<Words, RunError> {
        let [gate_up, down] = &self.sources;
        let failed = |source| RunError::Expert { layer: self.index, expert, source: Box::new(source) };
        Ok([gate_up.read(expert).await.map_err(failed)?, down.read(expert).await.map_err(failed)?])
    }

    /// Writes an expert into a place of a partition, and its biases, which lie in the order of the layer's places.
    fn write(
        &self,
        gpu: &Gpu,
        partition: &Partition,
        expert: u32,
        place: u32,
        of_layer: u32,
        words: &Words,
    ) -> Result<(), RunError> {
        for (i, (words, matrix)) in words.iter().zip(&partition.matrices).enumerate() {
            let n = self.sources[i].shape()[1];
            words.write(gpu, matrix, place * n)?;
            if let (Some(rows), Some(values)) = (&self.bias_rows[i], &self.biases[i]) {
                let of: Range<usize> = (expert * n) as usize..((expert + 1) * n) as usize;
                if let Some(values) = values.get(of) {
                    let at = 4 * u64::from(of_layer) * u64::from(n);
                    gpu.write(rows.buffer(), at, bytemuck::cast_slice(values));
                }
            }
        }
        Ok(())
    }
}

/// The result of what does not wait for anybody else: natively nothing does, since files are read and devices waited for
/// by the thread that asks.
///
/// # Errors
/// [`RunError::Waits`] where it does, and those of the future.
pub fn now<T>(future: impl Future<Output = Result<T, RunError>>) -> Result<T, RunError> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(RunError::Waits),
    }
}
