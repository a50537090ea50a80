//! The loop: take an input that reached something new, change it, run it, keep what reaches something new.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use crate::coverage::Coverage;
use crate::mutate::mutate;
use crate::targets::Target;
use crate::{Files, Random, runtime};

/// Memory that one input may take: this and [`MEMORY_PER_BYTE`] for each of its bytes.
pub const MEMORY: usize = 256 << 20;
/// Memory for each byte of an input.
pub const MEMORY_PER_BYTE: usize = 64;
/// Time of the processor that one input may take: three times what the costliest inputs that a budget admits take on a slow machine
/// whose cores are busy. What grows faster than its input is far above.
pub const TIME: Duration = Duration::from_secs(6);
/// Stack of the thread that runs inputs: what a browser gives to WASM.
pub const STACK: usize = 1 << 20;

/// Inputs that are drawn before the cheapest of them is taken.
const TRIES: usize = 16;

/// What is wrong with an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The same for inputs that fail at the same place.
    pub key: String,
}

static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Notes panics instead of printing them, also those that a library catches: WASM does not unwind.
fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let place = info.location().map_or_else(String::new, |l| format!("{}:{}", l.file(), l.line()));
            let said = info.payload_as_str().unwrap_or_default();
            let said: String = said.chars().filter(|c| !c.is_ascii_digit()).take(100).collect();
            let place = place
                .rsplit_once("/src/")
                .map_or(place.as_str(), |(before, _)| &place[before.rfind('/').map_or(0, |at| at + 1)..]);
            let said = format!("panic at {place}: {said}").replace('\n', " ");
            PANIC.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(said);
        }));
    });
}

/// Runs one input under the bound of memory.
///
/// # Errors
/// A panic, more memory than allowed, an error message without bound.
pub fn run(target: &Target, input: &Files) -> Result<(), Finding> {
    note_panics();
    *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = None;
    runtime::limit_memory(MEMORY + MEMORY_PER_BYTE * input.len());
    let result = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let refused = runtime::free_memory();
    let panic = PANIC.lock().unwrap_or_else(PoisonError::into_inner).take();
    if refused > 0 {
        return Err(Finding { key: "memory beyond the bound".to_owned() });
    }
    match (result, panic) {
        (Ok(Ok(())), None) => Ok(()),
        (Ok(Err(key)), None) => Err(Finding { key }),
        (_, panic) => Err(Finding { key: panic.unwrap_or_else(|| "panic".to_owned()) }),
    }
}

/// Shortens an input that fails, while `fails` holds of it and at most `tries` times.
pub fn minimise(input: &Files, mut tries: usize, mut fails: impl FnMut(&Files) -> bool) -> Files {
    let mut best = input.clone();
    let mut attempt = |best: &mut Files, next: Files| {
        if tries == 0 || !fails(&next) {
            tries = tries.saturating_sub(1);
            return false;
        }
        tries -= 1;
        *best = next;
        true
    };
    for at in (0..best.files.len()).rev() {
        let mut next = best.clone();
        next.files.remove(at);
        attempt(&mut best, next);
    }
    for at in 0..best.files.len() {
        let mut piece = best.files[at].1.len().next_power_of_two() / 2;
        while piece > 0 {
            let mut start = 0;
            while start < best.files[at].1.len() {
                let mut next = best.clone();
                let end = (start + piece).min(next.files[at].1.len());
                next.files[at].1.drain(start..end);
                if !attempt(&mut best, next) {
                    start += piece;
                }
            }
            piece /= 2;
        }
    }
    best
}

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// After so many runs.
    pub runs: u64,
    /// After so much time.
    pub time: Duration,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Inputs that ran.
    pub runs: u64,
    /// Counters that were reached.
    pub edges: usize,
    /// Inputs that reached something new.
    pub corpus: usize,
}

/// Who hears of what happens.
pub trait Observer {
    /// Before an input runs.
    fn starts(&mut self, input: &Files);
    /// After it ran.
    fn ended(&mut self, progress: Progress);
    /// An input reached something new.
    fn keeps(&mut self, input: &Files);
    /// An input failed.
    fn fails(&mut self, finding: &Finding, input: &Files);
}

/// Fuzzes a target from `seeds` on, until the budget is spent.
pub fn fuzz(
    target: &Target,
    seeds: Vec<Files>,
    seed: u64,
    budget: Budget,
    observer: &mut dyn Observer,
) -> Progress {
    let mut random = Random::new(seed);
    let mut coverage = Coverage::new();
    let mut progress = Progress::default();
    let start = Instant::now();
    let mut corpus: Vec<Kept> = Vec::new();
    let mut waiting = seeds;
    waiting.reverse();
    if waiting.is_empty() {
        waiting.push(Files::decode(target.only, b""));
    }
    while progress.runs < budget.runs && start.elapsed() < budget.time {
        let seeded = waiting.pop();
        let is_seed = seeded.is_some();
        let input = if let Some(input) = seeded {
            input
        } else {
            let Some(parent) = choose(&mut random, &corpus) else { break };
            let other = random.pick(&corpus).unwrap_or(parent).input.clone();
            mutate(&mut random, &parent.input, &other, target.words)
        };
        observer.starts(&input);
        Coverage::reset();
        let before = Instant::now();
        let result = run(target, &input);
        let cost = Kept::cost(before.elapsed());
        let reached = coverage.add();
        if let Err(finding) = &result {
            observer.fails(finding, &input);
        } else if reached || is_seed {
            if !is_seed {
                observer.keeps(&input);
            }
            corpus.push(Kept { input, cost });
        }
        progress = Progress { runs: progress.runs + 1, edges: coverage.edges(), corpus: corpus.len() };
        observer.ended(progress);
    }
    progress
}

/// An input that reached something new.
#[derive(Debug)]
struct Kept {
    input: Files,
    /// Grows by one when the time quadruples.
    cost: u32,
}

impl Kept {
    /// Runs up to a millisecond cost nothing.
    fn cost(time: Duration) -> u32 {
        time.as_millis().checked_ilog(4).map_or(0, |quarters| quarters + 1)
    }
}

/// One of the corpus: a late one every other time, the shorter of two. One that takes four times as long is taken a
/// fourth as often: a changed loop of a second would take the place of a thousand other inputs.
fn choose<'a>(random: &mut Random, corpus: &'a [Kept]) -> Option<&'a Kept> {
    let from = if random.one_in(2) { corpus.len() - (corpus.len() / 8).min(corpus.len()) } else { 0 };
    let from = if from >= corpus.len() { 0 } else { from };
    let mut cheapest: Option<&Kept> = None;
    for _ in 0..TRIES {
        let (a, b) = (random.pick(&corpus[from..])?, random.pick(&corpus[from..])?);
        let shorter = if a.input.len() <= b.input.len() { a } else { b };
        if random.one_in(1 << (2 * shorter.cost)) {
            return Some(shorter);
        }
        cheapest = cheapest.filter(|known| known.cost <= shorter.cost).or(Some(shorter));
    }
    cheapest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planted(input: &Files) -> Result<(), String> {
        let bytes = input.file("f").unwrap_or_default();
        assert!(!bytes.contains(&7), "a seven");
        if bytes.contains(&8) {
            let _ = catch_unwind(|| panic!("caught"));
        }
        if bytes.contains(&9) {
            let mut grown: Vec<u8> = Vec::new();
            let _ = grown.try_reserve_exact(2 * MEMORY);
        }
        if bytes.contains(&10) { Err("said".into()) } else { Ok(()) }
    }

    const PLANTED: Target = Target { name: "planted", only: Some("f"), words: &[], run: planted };

    /// One test for all that share the allocator's limit: memory beyond it is refused, below it and after it is not.
    /// Panics, panics that somebody catches, memory and errors of the target are findings; shortening keeps them.
    #[test]
    fn planted_faults_are_found() {
        runtime::limit_memory(64 << 20);
        let mut grown: Vec<u8> = Vec::new();
        assert!(grown.try_reserve_exact(1 << 30).is_err());
        assert!(grown.try_reserve_exact(1 << 20).is_ok());
        assert_eq!(runtime::free_memory(), 1 << 30);
        assert!(grown.try_reserve_exact(128 << 20).is_ok());
        assert_eq!(runtime::free_memory(), 0);
        let input = |bytes: &[u8]| Files::decode(Some("f"), bytes);
        let key = |bytes: &[u8]| run(&PLANTED, &input(bytes)).map_err(|f| f.key);
        assert_eq!(key(b"abc"), Ok(()));
        assert!(key(&[7]).is_err_and(|k| k.starts_with("panic at") && k.ends_with("a seven")));
        assert!(key(&[8]).is_err_and(|k| k.ends_with("caught")));
        assert_eq!(key(&[9]), Err("memory beyond the bound".into()));
        assert_eq!(key(&[10]), Err("said".into()));
        let long = input(&[[1; 100].as_slice(), &[7], &[2; 77]].concat());
        assert_eq!(minimise(&long, 1000, |i| run(&PLANTED, i).is_err()), input(&[7]));
        assert_eq!(minimise(&long, 0, |_| true), long);
    }
}
