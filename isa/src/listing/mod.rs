//! Listings of the compilers: instructions by class, the loops they form, and how many loads are under way at once.

mod amd;
mod intel;
mod ir3;
mod nak;

use std::collections::{BTreeMap, VecDeque};

use crate::devices::Driver;

/// What an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Multiply-add of floats.
    Fma,
    /// Two multiply-adds of f16.
    PackedFma,
    /// Four multiply-adds of bytes.
    Dot4,
    /// A product of matrices.
    Matrix,
    /// Multiplication of floats: often the first of a chain of multiply-adds.
    Mul,
    /// Addition of floats.
    Add,
    /// Other operations on floats.
    Float,
    /// Integers, bits.
    Int,
    /// Multiplication of integers.
    IntMul,
    /// Conversions.
    Convert,
    /// Choices by a condition.
    Select,
    /// Comparisons.
    Compare,
    /// Exponentials, reciprocals, roots.
    Transcendental,
    /// Moves.
    Move,
    /// Between lanes.
    Lane,
    /// On the scalar unit.
    Scalar,
    /// Loads of the scalar unit, of constants.
    ScalarLoad,
    /// Loads from buffers.
    Load,
    /// Stores to buffers.
    Store,
    /// Loads from workgroup memory.
    SharedLoad,
    /// Stores to workgroup memory.
    SharedStore,
    /// Spilled registers.
    Scratch,
    /// Jumps and what surrounds them.
    Branch,
    /// Barriers and fences.
    Barrier,
    /// Waiting only.
    Wait,
}

impl Class {
    /// Name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fma => "fma",
            Self::PackedFma => "fma16x2",
            Self::Dot4 => "dot4",
            Self::Matrix => "matrix",
            Self::Mul => "mul",
            Self::Add => "add",
            Self::Float => "float",
            Self::Int => "int",
            Self::IntMul => "imul",
            Self::Convert => "convert",
            Self::Select => "select",
            Self::Compare => "compare",
            Self::Transcendental => "trans",
            Self::Move => "move",
            Self::Lane => "lane",
            Self::Scalar => "scalar",
            Self::ScalarLoad => "scalar_load",
            Self::Load => "load",
            Self::Store => "store",
            Self::SharedLoad => "shared_load",
            Self::SharedStore => "shared_store",
            Self::Scratch => "scratch",
            Self::Branch => "branch",
            Self::Barrier => "barrier",
            Self::Wait => "wait",
        }
    }

    /// Whether the width of what it moves is counted.
    fn has_width(self) -> bool {
        matches!(self, Self::Load | Self::Store | Self::SharedLoad | Self::SharedStore)
    }
}

/// Which loads an instruction waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// For none.
    #[default]
    Nothing,
    /// Until so many, the youngest, are under way.
    AllBut(u32),
    /// For those whose token is in the mask.
    Tokens(u32),
}

/// An instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What it does.
    pub class: Class,
    /// How often, one after the other.
    pub repeat: u32,
    /// Bytes of a lane that it moves.
    pub bytes: u32,
    /// Lanes, where the instruction says so; else those of a subgroup.
    pub lanes: Option<u32>,
    /// Multiply-adds of all lanes, of a product of matrices.
    pub matrix: u32,
    /// Issued together with the instruction before.
    pub paired: bool,
    /// What it waits for before it starts.
    pub wait: Wait,
    /// Under which token others wait for it.
    pub token: u32,
    /// Label that it may jump to.
    pub target: Option<String>,
}

impl Instruction {
    fn new(class: Class) -> Self {
        Self {
            class,
            repeat: 1,
            bytes: 0,
            lanes: None,
            matrix: 0,
            paired: false,
            wait: Wait::Nothing,
            token: 0,
            target: None,
        }
    }
}

/// A line that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    Label(String),
    Instruction(Instruction),
}

/// A loop.
#[derive(Clone, Debug)]
pub struct Loop {
    /// Its instructions, without those of loops inside.
    pub own: Vec<Instruction>,
    /// Most bytes of a lane that are being loaded at once, loops inside included.
    pub bytes_in_flight: u32,
}

/// The loops of a listing in its order; `None` where the driver gives no listing that can be read.
pub fn loops(driver: Driver, text: &str) -> Option<Vec<Loop>> {
    let lines = match driver {
        Driver::Amd => amd::lines(text),
        Driver::Nvidia => nak::lines(text),
        Driver::Adreno => ir3::lines(text),
        Driver::Intel => intel::lines(text),
        Driver::Apple => return None,
    };
    let spans = spans(&lines);
    let is_within = |inner: (usize, usize), outer: (usize, usize)| {
        inner != outer && inner.0 >= outer.0 && inner.1 <= outer.1
    };
    let found = spans.iter().map(|&span| {
        let inside: Vec<_> = spans.iter().copied().filter(|&other| is_within(other, span)).collect();
        let is_own = |at: usize| !inside.iter().any(|&(first, last)| first <= at && at <= last);
        let all = instructions(&lines[span.0..=span.1]);
        Loop {
            own: (span.0..=span.1)
                .filter(|&at| is_own(at))
                .flat_map(|at| instructions(&lines[at..=at]).cloned().collect::<Vec<_>>())
                .collect(),
            bytes_in_flight: bytes_in_flight(&all.cloned().collect::<Vec<_>>()),
        }
    });
    Some(found.collect())
}

fn instructions(lines: &[Line]) -> impl Iterator<Item = &Instruction> {
    lines.iter().filter_map(|line| match line {
        Line::Instruction(instruction) => Some(instruction),
        Line::Label(_) => None,
    })
}

/// First and last line of every loop: from a label to the last jump back to it.
fn spans(lines: &[Line]) -> Vec<(usize, usize)> {
    let mut labels = BTreeMap::new();
    for (at, line) in lines.iter().enumerate() {
        if let Line::Label(name) = line {
            labels.insert(name.as_str(), at);
        }
    }
    let mut ends: BTreeMap<usize, usize> = BTreeMap::new();
    for (at, line) in lines.iter().enumerate() {
        if let Line::Instruction(Instruction { target: Some(target), .. }) = line
            && let Some(&start) = labels.get(target.as_str())
            && start <= at
        {
            ends.insert(start, at);
        }
    }
    ends.into_iter().collect()
}

/// Goes through a loop twice and follows its loads, oldest first. Once, where nothing says what waits: hardware that finds
/// out by itself.
fn bytes_in_flight(body: &[Instruction]) -> u32 {
    let (mut loads, mut most): (VecDeque<(u32, u32)>, u32) = (VecDeque::new(), 0);
    let passes = if body.iter().any(|i| i.wait != Wait::Nothing) { 2 } else { 1 };
    for instruction in (0..passes).flat_map(|_| body) {
        match instruction.wait {
            Wait::Nothing => {}
            Wait::AllBut(count) => {
                let done = loads.len().saturating_sub(count as usize);
                loads.drain(..done);
            }
            Wait::Tokens(mask) => loads.retain(|&(token, _)| mask >> token & 1 == 0),
        }
        if instruction.class == Class::Load {
            loads.push_back((instruction.token, instruction.bytes));
            most = most.max(loads.iter().map(|&(_, bytes)| bytes).sum());
        }
    }
    most
}

impl Loop {
    /// Instructions, without those that only wait.
    pub fn total(&self) -> u32 {
        self.own.iter().filter(|i| i.class != Class::Wait).map(|i| i.repeat).sum()
    }

    /// Instructions of each class, and of each width.
    pub fn counts(&self) -> BTreeMap<String, u32> {
        let mut counts = BTreeMap::new();
        for i in self.own.iter().filter(|i| i.class != Class::Wait) {
            let width = if i.class.has_width() { i.bytes.to_string() } else { String::new() };
            *counts.entry(format!("{}{width}", i.class.name())).or_default() += i.repeat;
        }
        counts
    }

    /// Bytes of a lane that the loop itself loads.
    pub fn loaded_bytes(&self) -> u32 {
        self.own.iter().filter(|i| i.class == Class::Load).map(|i| i.repeat * i.bytes).sum()
    }
}

/// An instruction of a class, of one lane's worth, that waits for nothing.
#[cfg(test)]
pub fn instruction(class: Class) -> Instruction {
    Instruction::new(class)
}

/// The class of the first entry that begins `text`.
fn class_of(text: &str, table: &[(&str, Class)]) -> Option<Class> {
    table.iter().find(|(start, _)| text.starts_with(start)).map(|&(_, class)| class)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(token: u32, bytes: u32) -> Instruction {
        Instruction { bytes, token, ..Instruction::new(Class::Load) }
    }

    fn wait(wait: Wait) -> Instruction {
        Instruction { wait, ..Instruction::new(Class::Wait) }
    }

    #[test]
    fn loads_are_under_way_until_something_waits_for_them() {
        let in_series = vec![load(0, 16), wait(Wait::AllBut(0)), load(0, 4), wait(Wait::AllBut(0))];
        assert_eq!(bytes_in_flight(&in_series), 16);
        // The second time the load before the wait joins the one that was left.
        assert_eq!(bytes_in_flight(&[load(0, 16), wait(Wait::AllBut(1)), load(0, 4)]), 36);
        assert_eq!(bytes_in_flight(&[load(0, 16), load(0, 4)]), 20);
        let tokens = [load(0, 16), load(1, 8), wait(Wait::Tokens(0b01)), load(2, 4), wait(Wait::Tokens(7))];
        assert_eq!(bytes_in_flight(&tokens), 24);
    }

    #[test]
    fn what_lies_in_loops_inside_counts_there() {
        let jump = |to: &str| {
            Line::Instruction(Instruction { target: Some(to.into()), ..Instruction::new(Class::Branch) })
        };
        let lines = vec![
            Line::Label("a".into()),
            Line::Instruction(Instruction::new(Class::Int)),
            Line::Label("b".into()),
            Line::Instruction(Instruction::new(Class::Fma)),
            jump("b"),
            jump("c"),
            jump("a"),
            Line::Label("c".into()),
        ];
        assert_eq!(spans(&lines), [(0, 6), (2, 4)]);
    }
}
