//! Attributes, items, slices, and the methods of everything but strings, under the rules of the sandbox.

use std::rc::Rc;

use super::limits::{Buffer, Res, fail, fault};
use super::operators;
use super::run::{Args, Interpreter, short};
use super::strings;
use super::value::{Dict, Function, Range, Seq, Value, View};

const DICT: [&str; 6] = ["copy", "fromkeys", "get", "items", "keys", "values"];
const LIST: [&str; 3] = ["copy", "count", "index"];
const NUMBER: [&str; 8] = [
    "as_integer_ratio",
    "bit_count",
    "bit_length",
    "conjugate",
    "from_bytes",
    "hex",
    "is_integer",
    "to_bytes",
];

impl Interpreter<'_> {
    /// `value.name`
    pub(super) fn attribute(&mut self, value: &Value, name: &str) -> Res<Value> {
        self.budget.work(1)?;
        self.budget.bytes(name.len())?;
        if let Some(found) = self.own_attribute(value, name)? {
            return Ok(found);
        }
        if let Value::Dict(dict) = value
            && let Some(found) = dict.get_str(name)
        {
            return Ok(found.clone());
        }
        Ok(undefined_attribute(value, name))
    }

    /// `value[key]`
    pub(super) fn item(&mut self, value: &Value, key: &Value) -> Res<Value> {
        self.budget.work(1)?;
        let at = |len: usize| {
            let i = key.as_int()?;
            usize::try_from(if i < 0 { i + len as i128 } else { i }).ok().filter(|&i| i < len)
        };
        let found = match value {
            Value::Undefined(message) => return fail(message.to_string()),
            Value::List(seq) | Value::Tuple(seq) => {
                at(seq.items.len()).and_then(|i| seq.items.get(i)).cloned()
            }
            Value::Dict(dict) => match key {
                Value::List(_) | Value::Dict(_) => None,
                key => dict.get(&self.budget, key).ok().flatten().cloned(),
            },
            Value::Range(range) => at(range.len).map(|i| Value::Int(range.at(i))),
            Value::Str(text) if key.as_int().is_some() => {
                let found = at(value.len(&self.budget)?).and_then(|i| text.text.chars().nth(i));
                match found {
                    Some(c) => Some(Value::text(&self.budget, c.encode_utf8(&mut [0; 4]), text.safe)?),
                    None => None,
                }
            }
            _ => None,
        };
        if let Some(found) = found {
            return Ok(found);
        }
        let Some(name) = key.as_str() else {
            return Ok(Value::undefined(format!("'{}' has no such element", value.type_name())));
        };
        let own = self.own_attribute(value, name)?;
        Ok(own.unwrap_or_else(|| undefined_attribute(value, name)))
    }

    /// What Python's `getattr` finds and the sandbox lets through.
    fn own_attribute(&mut self, value: &Value, name: &str) -> Res<Option<Value>> {
        let method = |names: &[&'static str]| {
            let name = names.iter().find(|n| **n == name)?;
            Some(Value::Method(Rc::new((value.clone(), name))))
        };
        Ok(match value {
            Value::Undefined(message) => return fail(message.to_string()),
            Value::Str(_) => method(&strings::METHODS),
            Value::Dict(_) => method(&DICT),
            Value::List(_) => method(&LIST),
            Value::Tuple(seq) => match name {
                "grouper" if seq.group => seq.items.first().cloned(),
                "list" if seq.group => seq.items.get(1).cloned(),
                _ => method(&LIST[1..]),
            },
            Value::Range(range) => match name {
                "start" => Some(Value::Int(range.start)),
                "step" => Some(Value::Int(range.step)),
                "stop" => Some(Value::Int(range.stop)),
                _ => method(&LIST[1..]),
            },
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                let is_float = matches!(value, Value::Float(_));
                match name {
                    "real" => Some(value.as_int().map_or_else(|| value.clone(), Value::Int)),
                    "imag" if is_float => Some(Value::Float(0.0)),
                    "imag" => Some(Value::Int(0)),
                    "numerator" if !is_float => value.as_int().map(Value::Int),
                    "denominator" if !is_float => Some(Value::Int(1)),
                    _ => method(&NUMBER),
                }
            }
            Value::Function(Function::Dict) if name == "fromkeys" => {
                Some(Value::Function(Function::FromKeys))
            }
            Value::Namespace(at) => self.namespaces.get(*at).and_then(|fields| fields.get_str(name)).cloned(),
            Value::Macro(at) => self.macro_attribute(*at, name)?,
            Value::Loop(at) => self.loop_attribute(**at, name, value)?,
            Value::Cycler(cycler) => match name {
                "current" => cycler.items.items.get(cycler.at.get()).cloned(),
                "pos" => Some(Value::Int(cycler.at.get() as i128)),
                "items" => Some(Value::Tuple(cycler.items.clone())),
                _ => method(&["next", "reset"]),
            },
            Value::Joiner(joiner) => match name {
                "sep" => Some(joiner.text.clone()),
                "used" => Some(Value::Bool(joiner.used.get())),
                _ => None,
            },
            _ => None,
        })
    }

    /// `value[start:stop:step]`
    pub(super) fn slice(&mut self, value: &Value, parts: &[Value; 3]) -> Res<Value> {
        let budget = &self.budget.clone();
        if let Value::Undefined(message) = value {
            return fail(message.to_string());
        }
        let mut numbers = [None; 3];
        for (number, part) in numbers.iter_mut().zip(parts) {
            *number = part.as_int();
            if number.is_none() && !matches!(part, Value::None) {
                return fail("slice indices must be integers or None");
            }
        }
        let len = match value {
            Value::Str(_) | Value::List(_) | Value::Tuple(_) | Value::Range(_) => value.len(budget)?,
            other => return fail(format!("'{}' has no slices", other.type_name())),
        };
        let [start, stop, step] = numbers;
        let step = step.unwrap_or(1).clamp(i128::from(i64::MIN), i128::from(i64::MAX));
        if step == 0 {
            return fail("slice step cannot be zero");
        }
        let n = len as i128;
        let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
        let place = |v: Option<i128>, default: i128| {
            v.map_or(default, |v| if v < 0 { v.saturating_add(n).max(low) } else { v.min(high) })
        };
        let (start, stop) =
            if step > 0 { (place(start, 0), place(stop, n)) } else { (place(start, n - 1), place(stop, -1)) };
        let count = if step > 0 { stop - start + step - 1 } else { start - stop - step - 1 } / step.abs();
        let count = usize::try_from(count.max(0)).unwrap_or(0).min(len);
        let at = |i: usize| (start + step * i as i128) as usize;
        budget.work(count as u64)?;
        match value {
            Value::List(seq) | Value::Tuple(seq) => {
                budget.copies(count)?;
                let items = (0..count).filter_map(|i| seq.items.get(at(i)).cloned()).collect();
                if matches!(value, Value::List(_)) {
                    Value::list(budget, items)
                } else {
                    Value::tuple(budget, items)
                }
            }
            Value::Range(range) => {
                let place = |i: i128| range.start + range.step * i;
                Ok(Value::Range(Range {
                    start: place(start),
                    stop: place(stop),
                    step: range.step * step,
                    len: count,
                }))
            }
            Value::Str(text) => {
                let mut out = Buffer::new(budget)?;
                if step == 1 {
                    let mut chars = text.text.char_indices().map(|(i, _)| i).chain([text.text.len()]);
                    let from = chars.nth(at(0)).unwrap_or(text.text.len());
                    let to = if count == 0 { from } else { chars.nth(count - 1).unwrap_or(text.text.len()) };
                    out.push(&text.text[from..to])?;
                } else {
                    drop(budget.charge(len * size_of::<char>())?);
                    let chars: Vec<char> = text.text.chars().collect();
                    for i in 0..count {
                        if let Some(c) = chars.get(at(i)) {
                            out.push_char(*c)?;
                        }
                    }
                }
                Ok(out.marked(text.safe))
            }
            other => fail(format!("'{}' has no slices", other.type_name())),
        }
    }

    /// Calls a method of a value.
    pub(super) fn method(&mut self, this: &Value, name: &'static str, args: Args) -> Res<Value> {
        let budget = &self.budget.clone();
        budget.work(1)?;
        match this {
            Value::Str(text) => self.string_method(text, name, args),
            Value::Dict(dict) => match name {
                "get" => {
                    let [key, default] = args.bind(name, ["", ""], 1)?;
                    let key = key.unwrap_or(Value::None);
                    Ok(dict.get(budget, &key)?.cloned().or(default).unwrap_or(Value::None))
                }
                "fromkeys" => self.keys_as_dict(args),
                _ => {
                    args.bind::<0>(name, [], 0)?;
                    Ok(match name {
                        "items" => Value::View(View::Items, dict.clone()),
                        "keys" => Value::View(View::Keys, dict.clone()),
                        "values" => Value::View(View::Values, dict.clone()),
                        _ => {
                            let mut copy = Dict::new(budget)?;
                            operators::entries(budget, this, &mut copy)?;
                            copy.value()
                        }
                    })
                }
            },
            Value::List(_) | Value::Tuple(_) | Value::Range(_) => {
                if name == "copy" {
                    args.bind::<0>(name, [], 0)?;
                    return Value::list(budget, this.items(budget)?);
                }
                let [item, start, stop] = args.bind(name, ["", "", ""], 1)?;
                let item = item.unwrap_or(Value::None);
                let items = this.items(budget)?;
                if name == "count" {
                    let mut count = 0;
                    for other in &items {
                        let same = operators::same(other, &item) || operators::equal(budget, other, &item)?;
                        count += i128::from(same);
                    }
                    return Ok(Value::Int(count));
                }
                let n = items.len() as i128;
                let place = |v: i128| if v < 0 { v.saturating_add(n).max(0) } else { v.min(n) };
                let from = place(strings::integer(start.as_ref(), 0)?);
                let to = place(strings::integer(stop.as_ref(), n)?);
                for (i, other) in items.iter().enumerate() {
                    let inside = (from..to).contains(&(i as i128));
                    if inside && (operators::same(other, &item) || operators::equal(budget, other, &item)?) {
                        return Ok(Value::Int(i as i128));
                    }
                }
                fail("the value is not in the list")
            }
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => number_method(this, name, args),
            Value::Cycler(cycler) => {
                args.bind::<0>(name, [], 0)?;
                if name == "reset" {
                    cycler.at.set(0);
                    return Ok(Value::None);
                }
                let at = cycler.at.get();
                cycler.at.set((at + 1) % cycler.items.items.len().max(1));
                cycler.items.items.get(at).cloned().ok_or_else(|| fault("no items for cycling given"))
            }
            Value::Loop(at) => self.loop_method(**at, name, args),
            other => fail(format!("'{}' has no method '{name}'", other.type_name())),
        }
    }

    /// `dict.fromkeys(keys, value)`
    pub(super) fn keys_as_dict(&mut self, args: Args) -> Res<Value> {
        let [keys, value] = args.bind("fromkeys", ["", ""], 1)?;
        let mut dict = Dict::new(&self.budget)?;
        for key in keys.unwrap_or(Value::None).items(&self.budget)? {
            dict.insert(&self.budget, key, value.clone().unwrap_or(Value::None))?;
        }
        Ok(dict.value())
    }

    /// A tuple whose items have names.
    pub(super) fn group(&self, key: Value, list: Value) -> Res<Value> {
        Ok(Value::Tuple(Rc::new(Seq::new(&self.budget, vec![key, list], true)?)))
    }
}

fn undefined_attribute(value: &Value, name: &str) -> Value {
    Value::undefined(format!("'{} object' has no attribute '{}'", value.type_name(), short(name)))
}

fn number_method(this: &Value, name: &'static str, args: Args) -> Res<Value> {
    let unsupported = || fail(format!("{}.{name} is not supported", this.type_name()));
    match (name, this) {
        ("is_integer", Value::Float(v)) => {
            args.bind::<0>(name, [], 0)?;
            Ok(Value::Bool(v.is_finite() && v.fract() == 0.0))
        }
        ("is_integer", _) => args.bind::<0>(name, [], 0).map(|_| Value::Bool(true)),
        ("conjugate", _) => {
            args.bind::<0>(name, [], 0)?;
            Ok(this.as_int().map_or_else(|| this.clone(), Value::Int))
        }
        ("bit_length" | "bit_count", _) => {
            args.bind::<0>(name, [], 0)?;
            let Some(v) = this.as_int() else { return unsupported() };
            let v = v.unsigned_abs();
            Ok(Value::Int(i128::from(if name == "bit_count" {
                v.count_ones()
            } else {
                128 - v.leading_zeros()
            })))
        }
        ("hex", Value::Float(_)) | ("as_integer_ratio" | "from_bytes" | "to_bytes", _) => unsupported(),
        _ => fail(format!("'{}' object has no attribute '{name}'", this.type_name())),
    }
}
