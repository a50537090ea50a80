//! What a template may use: its source, memory, output, work and nesting are counted, and each has a limit.

use std::cell::Cell;
use std::rc::Rc;

use super::value::{Text, Value};

/// Bytes of a template's source. Published ones have up to some tens of thousands.
pub(super) const SOURCE: u64 = 512 << 10;
/// Blocks and brackets inside each other in a template's source. The parser recurses once for each.
pub(super) const NESTING: u64 = 80;
/// Statements, expressions and calls inside each other while a template runs. The interpreter recurses for each, with
/// up to 2 KB of stack: this keeps it within half of the megabyte that WASM has.
pub(super) const DEPTH: u64 = 240;
/// Containers inside each other: printing, comparing and freeing them recurses.
pub(super) const VALUE_DEPTH: u64 = 150;
/// Bytes that all values of a running template take: with what is not counted (the parsed template, variables of blocks) 256 MB.
pub(super) const MEMORY: u64 = 192 << 20;
/// Bytes of the text that a template writes.
pub(super) const OUTPUT: u64 = 64 << 20;
/// Steps: one for an expression, a statement, an item that is looked at, or some bytes that are copied.
pub(super) const WORK: u64 = 10_000_000;
/// Bytes that are copied or compared in one step.
const BYTES_PER_STEP: u64 = 64;
/// Bytes that a piece of text costs besides its own: a text that grows by characters takes time for each.
const PIECE: u64 = 16;
/// Bytes of a name that are hashed in one step.
const HASHED_PER_STEP: u64 = 64;
/// Digits that a number may be padded to.
pub(super) const PRECISION: u64 = 1000;

/// Why a template ends.
#[derive(Debug)]
pub(super) enum Fault {
    /// It asks for more than it may use.
    Limit { what: &'static str, got: u64, limit: u64 },
    /// It called `raise_exception`.
    Raised(String),
    /// It does what Jinja2 refuses, or what is not supported here.
    Failed { message: String, line: Option<u32> },
}

pub(super) type Res<T> = Result<T, Box<Fault>>;

#[expect(clippy::unnecessary_box_returns, reason = "the error of `Res`, which is small that way")]
pub(super) fn fault(message: impl Into<String>) -> Box<Fault> {
    Box::new(Fault::Failed { message: message.into(), line: None })
}

pub(super) fn fail<T>(message: impl Into<String>) -> Res<T> {
    Err(fault(message))
}

pub(super) fn over<T>(what: &'static str, got: u64, limit: u64) -> Res<T> {
    Err(Box::new(Fault::Limit { what, got, limit }))
}

/// What one run of a template has used.
#[derive(Debug, Default)]
pub(super) struct Budget {
    memory: Cell<u64>,
    work: Cell<u64>,
}

impl Budget {
    pub(super) fn work(&self, steps: u64) -> Res<()> {
        let got = self.work.get().saturating_add(steps);
        self.work.set(got);
        if got > WORK { over("steps", got, WORK) } else { Ok(()) }
    }

    /// The steps of touching bytes.
    pub(super) fn bytes(&self, bytes: usize) -> Res<()> {
        self.work(bytes as u64 / BYTES_PER_STEP)
    }

    /// The steps of looking a name up in the variables of some blocks, one inside the other.
    pub(super) fn names(&self, blocks: u64, name: &str) -> Res<()> {
        self.work((blocks - 1) + blocks.saturating_mul(name.len() as u64 / HASHED_PER_STEP))
    }

    pub(super) fn charge(self: &Rc<Self>, bytes: usize) -> Res<Charge> {
        let mut charge = Charge { bytes: 0, budget: self.clone() };
        charge.grow(bytes)?;
        Ok(charge)
    }
}

/// Memory that a value holds, given back with the value.
#[derive(Debug)]
pub(super) struct Charge {
    bytes: u64,
    budget: Rc<Budget>,
}

impl Charge {
    /// Asks for more that is going to be filled, before it is allocated.
    pub(super) fn grow(&mut self, bytes: usize) -> Res<()> {
        self.hold(bytes)?;
        self.budget.bytes(bytes)
    }

    /// Asks for more, before it is allocated.
    fn hold(&mut self, bytes: usize) -> Res<()> {
        let memory = &self.budget.memory;
        let got = memory.get().saturating_add(bytes as u64);
        if got > MEMORY {
            return over("bytes of memory", got, MEMORY);
        }
        memory.set(got);
        self.bytes += bytes as u64;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let memory = &self.budget.memory;
        memory.set(memory.get().saturating_sub(self.bytes));
    }
}

/// A string that grows within the budget.
#[derive(Debug)]
pub(super) struct Buffer {
    text: String,
    charge: Charge,
    limit: u64,
    /// Bytes that were copied and are no whole step yet.
    copied: u64,
}

impl Buffer {
    pub(super) fn new(budget: &Rc<Budget>) -> Res<Self> {
        const COUNTS: usize = 2 * size_of::<usize>(); // of `Rc`
        let charge = budget.charge(size_of::<Text>() + COUNTS)?;
        Ok(Self { text: String::new(), charge, limit: u64::MAX, copied: 0 })
    }

    /// The text that leaves the template.
    pub(super) fn output(budget: &Rc<Budget>) -> Res<Self> {
        Ok(Self { limit: OUTPUT, ..Self::new(budget)? })
    }

    pub(super) fn push(&mut self, text: &str) -> Res<()> {
        let got = self.text.len() as u64 + text.len() as u64;
        if got > self.limit {
            return over("bytes of output", got, self.limit);
        }
        self.reserve(text.len())?;
        self.copied += text.len() as u64 + PIECE;
        self.charge.budget.work(self.copied / BYTES_PER_STEP)?;
        self.copied %= BYTES_PER_STEP;
        self.text.push_str(text);
        Ok(())
    }

    /// Makes room for more. What is allocated is charged, not what is written: a text that grows by pieces has up to twice
    /// the room that it needs.
    fn reserve(&mut self, bytes: usize) -> Res<()> {
        let (room, want) = (self.text.capacity(), self.text.len().saturating_add(bytes));
        if want > room {
            let want = want.max(room.saturating_mul(2)).max(16);
            self.charge.hold(want - room)?;
            self.text.reserve_exact(want - self.text.len());
        }
        Ok(())
    }

    pub(super) fn push_char(&mut self, c: char) -> Res<()> {
        self.push(c.encode_utf8(&mut [0; 4]))
    }

    /// A text many times.
    pub(super) fn repeat(&mut self, text: &str, count: usize) -> Res<()> {
        let bytes = text.len().saturating_mul(count);
        if bytes == 0 {
            return Ok(()); // nothing, as often as wanted, is nothing
        }
        self.reserve(bytes)?;
        self.charge.budget.bytes(bytes)?;
        for _ in 0..count {
            self.text.push_str(text);
        }
        Ok(())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn into_string(self) -> String {
        self.text
    }

    pub(super) fn value(self) -> Value {
        self.marked(false)
    }

    /// A string that is safe in HTML or not.
    pub(super) fn marked(self, safe: bool) -> Value {
        Value::Str(Rc::new(Text { text: self.text, safe, charge: self.charge }))
    }
}
