//! Python's values, as far as templates see them. Containers never change once they are made (the sandbox of
//! transformers refuses `append` and the like), so no value can contain itself.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

use serde_json::Value as Json;

use super::characters::decimal;
use super::lexer::is_space;
use super::limits::{Budget, Buffer, Charge, Res, VALUE_DEPTH, fail, over};

#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "what a string consists of")]
pub(super) struct Text {
    pub text: String,
    /// Python's `Markup`: text that is HTML already.
    pub safe: bool,
    #[allow(dead_code)] // Held for its drop.
    pub charge: Charge,
}

/// The items of a list or a tuple.
#[derive(Debug)]
pub(super) struct Seq {
    pub items: Vec<Value>,
    pub depth: u64,
    /// An item of `groupby`: its two items have names.
    pub group: bool,
    #[allow(dead_code)] // Held for its drop.
    charge: Charge,
}

#[derive(Debug)]
pub(super) struct Dict {
    pub entries: Vec<(Value, Value)>,
    index: HashMap<Key, usize>,
    depth: u64,
    charge: Charge,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    pub start: i128,
    /// Where it ends, as it was asked for.
    pub stop: i128,
    pub step: i128,
    pub len: usize,
}

impl Range {
    pub(super) fn at(&self, i: usize) -> i128 {
        self.start + self.step * i as i128
    }
}

/// What Python iterates once: a generator, a reversed list.
#[derive(Debug)]
pub(super) struct Iter {
    pub items: Rc<Seq>,
    pub at: Cell<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Keys,
    Values,
    Items,
}

/// Functions that templates may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Range,
    Dict,
    FromKeys,
    Namespace,
    Cycler,
    Joiner,
    Lipsum,
    RaiseException,
    StrftimeNow,
}

#[derive(Debug)]
pub(super) struct Cycler {
    pub items: Rc<Seq>,
    pub at: Cell<usize>,
}

#[derive(Debug)]
pub(super) struct Joiner {
    pub text: Value,
    pub used: Cell<bool>,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    /// With what is said when it is used.
    Undefined(Rc<str>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Rc<Text>),
    List(Rc<Seq>),
    Tuple(Rc<Seq>),
    Dict(Rc<Dict>),
    Range(Range),
    Iter(Rc<Iter>),
    View(View, Rc<Dict>),
    Function(Function),
    Method(Rc<(Value, &'static str)>),
    /// Places in the tables of the interpreter, which own what may refer to itself.
    Namespace(usize),
    Macro(usize),
    Loop(Rc<usize>),
    Cycler(Rc<Cycler>),
    Joiner(Rc<Joiner>),
}

/// What a value is as a key of a dictionary: equal values have equal keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    None,
    Int(i128),
    Float(u64),
    Str(Box<str>),
    Tuple(Vec<Key>),
    Undefined,
    Other(&'static str, usize),
}

impl Value {
    /// Python's name of the type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::Range(_) => "range",
            Self::Iter(_) => "generator",
            Self::View(View::Keys, _) => "dict_keys",
            Self::View(View::Values, _) => "dict_values",
            Self::View(View::Items, _) => "dict_items",
            Self::Function(_) => "function",
            Self::Method(_) => "method",
            Self::Namespace(_) => "Namespace",
            Self::Macro(_) => "Macro",
            Self::Loop(_) => "LoopContext",
            Self::Cycler(_) => "Cycler",
            Self::Joiner(_) => "Joiner",
        }
    }

    pub(super) fn str(budget: &Rc<Budget>, text: &str) -> Res<Self> {
        Self::text(budget, text, false)
    }

    pub(super) fn text(budget: &Rc<Budget>, text: &str, safe: bool) -> Res<Self> {
        let mut buffer = Buffer::new(budget)?;
        buffer.push(text)?;
        Ok(buffer.marked(safe))
    }

    pub(super) fn list(budget: &Rc<Budget>, items: Vec<Self>) -> Res<Self> {
        Ok(Self::List(Rc::new(Seq::new(budget, items, false)?)))
    }

    pub(super) fn tuple(budget: &Rc<Budget>, items: Vec<Self>) -> Res<Self> {
        Ok(Self::Tuple(Rc::new(Seq::new(budget, items, false)?)))
    }

    pub(super) fn iter(budget: &Rc<Budget>, items: Vec<Self>) -> Res<Self> {
        let items = Rc::new(Seq::new(budget, items, false)?);
        Ok(Self::Iter(Rc::new(Iter { items, at: Cell::new(0) })))
    }

    pub(super) fn undefined(message: impl AsRef<str>) -> Self {
        Self::Undefined(message.as_ref().into())
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(&text.text),
            _ => None,
        }
    }

    pub(super) fn is_undefined(&self) -> bool {
        matches!(self, Self::Undefined(_))
    }

    /// Booleans are integers.
    pub(super) fn as_int(&self) -> Option<i128> {
        match *self {
            Self::Int(v) => Some(v),
            Self::Bool(v) => Some(i128::from(v)),
            _ => None,
        }
    }

    pub(super) fn as_float(&self) -> Option<f64> {
        match *self {
            Self::Float(v) => Some(v),
            _ => self.as_int().map(|v| v as f64),
        }
    }

    pub(super) fn truth(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(v) => *v,
            Self::Int(v) => *v != 0,
            Self::Float(v) => *v != 0.0,
            Self::Str(text) => !text.text.is_empty(),
            Self::List(seq) | Self::Tuple(seq) => !seq.items.is_empty(),
            Self::Dict(dict) | Self::View(_, dict) => !dict.entries.is_empty(),
            Self::Range(range) => range.len > 0,
            _ => true,
        }
    }

    /// `len(value)`
    pub(super) fn len(&self, budget: &Budget) -> Res<usize> {
        Ok(match self {
            Self::Undefined(_) => 0,
            Self::Str(text) => {
                budget.bytes(text.text.len())?;
                text.text.chars().count()
            }
            Self::List(seq) | Self::Tuple(seq) => seq.items.len(),
            Self::Dict(dict) | Self::View(_, dict) => dict.entries.len(),
            Self::Range(range) => range.len,
            other => return fail(format!("object of type '{}' has no len()", other.type_name())),
        })
    }

    /// The items of `for x in value`. Charged to the budget until they are dropped.
    pub(super) fn items(&self, budget: &Rc<Budget>) -> Res<Vec<Self>> {
        match self {
            Self::Undefined(_) => Ok(Vec::new()),
            Self::Str(text) => {
                let count = self.len(budget)?;
                let _items = budget.charge(count.saturating_mul(size_of::<Self>()))?;
                budget.work(count as u64)?;
                let mut items = Vec::with_capacity(count);
                for c in text.text.chars() {
                    items.push(Self::str(budget, c.encode_utf8(&mut [0; 4]))?); // a string of its own
                }
                Ok(items)
            }
            Self::List(seq) | Self::Tuple(seq) => {
                budget.copies(seq.items.len())?;
                Ok(seq.items.clone())
            }
            Self::Dict(dict) | Self::View(View::Keys, dict) => {
                budget.copies(dict.entries.len())?;
                Ok(dict.entries.iter().map(|(k, _)| k.clone()).collect())
            }
            Self::View(View::Values, dict) => {
                budget.copies(dict.entries.len())?;
                Ok(dict.entries.iter().map(|(_, v)| v.clone()).collect())
            }
            Self::View(View::Items, dict) => {
                budget.copies(dict.entries.len())?;
                dict.entries.iter().map(|(k, v)| Self::tuple(budget, vec![k.clone(), v.clone()])).collect()
            }
            Self::Range(range) => {
                budget.copies(range.len)?;
                Ok((0..range.len).map(|i| Self::Int(range.at(i))).collect())
            }
            Self::Iter(iter) => {
                let from = iter.at.replace(iter.items.items.len());
                let rest = iter.items.items.get(from..).unwrap_or_default();
                budget.copies(rest.len())?;
                Ok(rest.to_vec())
            }
            other => fail(format!("'{}' object is not iterable", other.type_name())),
        }
    }

    /// How many containers are inside each other here.
    fn depth(&self) -> u64 {
        match self {
            Self::List(seq) | Self::Tuple(seq) => seq.depth,
            Self::Dict(dict) | Self::View(_, dict) => dict.depth,
            Self::Iter(iter) => iter.items.depth,
            Self::Cycler(cycler) => cycler.items.depth + 1,
            Self::Joiner(joiner) => joiner.text.depth() + 1,
            Self::Method(method) => method.0.depth() + 1,
            _ => 0,
        }
    }

    /// # Errors
    /// A value that cannot be a key.
    pub(super) fn key(&self, budget: &Budget) -> Res<Key> {
        budget.work(1)?;
        Ok(match self {
            Self::None => Key::None,
            Self::Bool(v) => Key::Int(i128::from(*v)),
            Self::Int(v) => Key::Int(*v),
            Self::Float(v) if v.fract() == 0.0 && v.abs() < 1e30 => Key::Int(*v as i128),
            Self::Float(v) => Key::Float(v.to_bits()),
            Self::Str(text) => {
                budget.bytes(text.text.len())?;
                Key::Str(text.text.as_str().into())
            }
            Self::Tuple(seq) => {
                // Keys of tuples are copies that nothing charges: they cost the more work.
                budget.work(16 * seq.items.len() as u64)?;
                for item in &seq.items {
                    budget.bytes(32 * item.as_str().map_or(0, str::len))?;
                }
                Key::Tuple(seq.items.iter().map(|v| v.key(budget)).collect::<Res<_>>()?)
            }
            Self::Undefined(_) => Key::Undefined,
            Self::List(_) | Self::Dict(_) | Self::View(..) => {
                return fail(format!("unhashable type: '{}'", self.type_name()));
            }
            Self::Range(range) => {
                Key::Tuple(vec![Key::Int(range.start), Key::Int(range.step), Key::Int(range.len as i128)])
            }
            Self::Iter(iter) => Key::Other("generator", Rc::as_ptr(iter) as usize),
            Self::Function(function) => Key::Other("function", *function as usize),
            Self::Method(method) => Key::Other("method", Rc::as_ptr(method) as usize),
            Self::Namespace(i) => Key::Other("namespace", *i),
            Self::Macro(i) => Key::Other("macro", *i),
            Self::Loop(i) => Key::Other("loop", **i),
            Self::Cycler(cycler) => Key::Other("cycler", Rc::as_ptr(cycler) as usize),
            Self::Joiner(joiner) => Key::Other("joiner", Rc::as_ptr(joiner) as usize),
        })
    }

    /// A value of JSON.
    pub(super) fn from_json(budget: &Rc<Budget>, json: &Json) -> Res<Self> {
        budget.work(1)?;
        Ok(match json {
            Json::Null => Self::None,
            Json::Bool(v) => Self::Bool(*v),
            Json::Number(v) => {
                let int = v.as_i64().map(i128::from).or(v.as_u64().map(i128::from));
                int.map_or_else(|| Self::Float(v.as_f64().unwrap_or(f64::NAN)), Self::Int)
            }
            Json::String(text) => Self::str(budget, text)?,
            Json::Array(list) => {
                let items = list.iter().map(|v| Self::from_json(budget, v)).collect::<Res<_>>()?;
                Self::list(budget, items)?
            }
            Json::Object(map) => {
                let mut dict = Dict::new(budget)?;
                for (name, value) in map {
                    dict.insert(budget, Self::str(budget, name)?, Self::from_json(budget, value)?)?;
                }
                dict.value()
            }
        })
    }
}

impl Budget {
    /// Looks at values one after the other, and asks whether copies of them would fit.
    pub(super) fn copies(self: &Rc<Self>, count: usize) -> Res<()> {
        drop(self.charge(count.saturating_mul(size_of::<Value>()))?);
        self.work(count as u64)
    }
}

fn deeper(depth: u64) -> Res<u64> {
    if depth >= VALUE_DEPTH {
        return over("lists and dictionaries inside each other", depth + 1, VALUE_DEPTH);
    }
    Ok(depth + 1)
}

impl Seq {
    pub(super) fn new(budget: &Rc<Budget>, items: Vec<Value>, group: bool) -> Res<Self> {
        // What is said of an undefined value is a text of its own.
        let undefined = items.iter().filter(|v| v.is_undefined()).count();
        let bytes = (items.len() + 2).saturating_mul(size_of::<Value>()) + 160 * undefined;
        let depth = deeper(items.iter().map(Value::depth).max().unwrap_or(0))?;
        Ok(Self { charge: budget.charge(bytes)?, items, depth, group })
    }
}

impl Dict {
    pub(super) fn new(budget: &Rc<Budget>) -> Res<Self> {
        let charge = budget.charge(size_of::<Self>())?;
        Ok(Self { entries: Vec::new(), index: HashMap::new(), depth: 1, charge })
    }

    /// A value under a key; the key that is there already stays.
    pub(super) fn insert(&mut self, budget: &Budget, key: Value, value: Value) -> Res<()> {
        let index = key.key(budget)?;
        self.depth = self.depth.max(deeper(value.depth().max(key.depth()))?);
        if let Some(&at) = self.index.get(&index) {
            if let Some(entry) = self.entries.get_mut(at) {
                entry.1 = value;
            }
            return Ok(());
        }
        let text = key.as_str().map_or(0, str::len);
        self.charge.grow(text + 3 * size_of::<Value>() + 2 * size_of::<Key>())?;
        self.index.insert(index, self.entries.len());
        self.entries.push((key, value));
        Ok(())
    }

    pub(super) fn get(&self, budget: &Budget, key: &Value) -> Res<Option<&Value>> {
        let found = self.index.get(&key.key(budget)?);
        Ok(found.and_then(|&at| self.entries.get(at)).map(|(_, v)| v))
    }

    pub(super) fn get_str(&self, key: &str) -> Option<&Value> {
        let found = self.index.get(&Key::Str(key.into()))?;
        self.entries.get(*found).map(|(_, v)| v)
    }

    pub(super) fn value(self) -> Value {
        Value::Dict(Rc::new(self))
    }
}

/// A number's text without white space around, digits of other scripts as those of ASCII.
fn ascii_digits(text: &str) -> String {
    text.trim_matches(is_space).chars().map(|c| decimal(c).unwrap_or(c)).collect()
}

/// `int(text, base)`: white space around, a sign, single underscores between digits.
pub(super) fn parse_int(text: &str, base: u32) -> Option<i128> {
    let text = &ascii_digits(text);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.get(..2).map(str::to_ascii_lowercase);
    let (base, digits, prefixed) = match (base, lower.as_deref()) {
        (0 | 16, Some("0x")) => (16, &digits[2..], true),
        (0 | 8, Some("0o")) => (8, &digits[2..], true),
        (0 | 2, Some("0b")) => (2, &digits[2..], true),
        (0, _) if digits.starts_with('0') && digits.contains(|c| !matches!(c, '0' | '_')) => return None,
        (0, _) => (10, digits, false),
        _ => (base, digits, false),
    };
    let digits = if prefixed { digits.strip_prefix('_').unwrap_or(digits) } else { digits };
    let digits = without_underscores(digits, base)?;
    let value = i128::from_str_radix(&digits, base).ok()?;
    Some(if negative { -value } else { value })
}

/// Digits without the single underscores between them.
fn without_underscores(digits: &str, base: u32) -> Option<String> {
    if digits.is_empty() || digits.starts_with('_') || digits.ends_with('_') || digits.contains("__") {
        return None;
    }
    let digits = digits.replace('_', "");
    digits.chars().all(|c| c.is_digit(base)).then_some(digits)
}

/// `float(text)`
pub(super) fn parse_float(text: &str) -> Option<f64> {
    let text = &*ascii_digits(text);
    let bare = text.strip_prefix(['-', '+']).unwrap_or(text);
    let named = matches!(bare.to_ascii_lowercase().as_str(), "inf" | "infinity" | "nan");
    if !named && !bare.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let between = |i: usize| {
        let digit = |b: Option<&u8>| b.is_some_and(u8::is_ascii_digit);
        digit(i.checked_sub(1).and_then(|i| text.as_bytes().get(i))) && digit(text.as_bytes().get(i + 1))
    };
    if !text.match_indices('_').all(|(i, _)| between(i)) {
        return None;
    }
    text.replace('_', "").parse().ok()
}
