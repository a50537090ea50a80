//! Operators as Python computes them.

use std::cmp::Ordering;
use std::rc::Rc;

use super::ast::{Binary, Compare};
use super::limits::{Budget, Buffer, Res, fail, fault};
use super::printf;
use super::value::{Dict, Value, View};

/// `a op b`
pub(super) fn binary(budget: &Rc<Budget>, op: Binary, a: &Value, b: &Value) -> Res<Value> {
    for value in [a, b] {
        if let Value::Undefined(message) = value {
            // `'...' % undefined` formats it: it is a value like others there.
            if !(op == Binary::Mod && matches!(a, Value::Str(_))) {
                return fail(message.to_string());
            }
        }
    }
    match (op, a, b) {
        (Binary::Mod, Value::Str(format), _) => printf::format(budget, format, b),
        (Binary::Add, Value::Str(x), Value::Str(y)) => {
            let mut out = Buffer::new(budget)?;
            let safe = x.safe || y.safe;
            for text in [x, y] {
                if safe && !text.safe { escape_into(&text.text, &mut out)? } else { out.push(&text.text)? }
            }
            Ok(out.marked(safe))
        }
        (Binary::Add, Value::List(x), Value::List(y)) => {
            budget.copies(x.items.len() + y.items.len())?;
            Value::list(budget, [&x.items[..], &y.items].concat())
        }
        (Binary::Add, Value::Tuple(x), Value::Tuple(y)) => {
            budget.copies(x.items.len() + y.items.len())?;
            Value::tuple(budget, [&x.items[..], &y.items].concat())
        }
        (Binary::Mul, x, y) if x.as_float().is_none() => repeat(budget, x, y),
        (Binary::Mul, x, y) if y.as_float().is_none() => repeat(budget, y, x),
        _ => numbers(op, a, b),
    }
}

fn unsupported<T>(op: Binary, a: &Value, b: &Value) -> Res<T> {
    let symbol = match op {
        Binary::Add => "+",
        Binary::Sub => "-",
        Binary::Mul => "*",
        Binary::Div => "/",
        Binary::FloorDiv => "//",
        Binary::Mod => "%",
        Binary::Pow => "** or pow()",
    };
    fail(format!("unsupported operand type(s) for {symbol}: '{}' and '{}'", a.type_name(), b.type_name()))
}

fn repeat(budget: &Rc<Budget>, value: &Value, count: &Value) -> Res<Value> {
    let Some(n) = count.as_int() else { return unsupported(Binary::Mul, value, count) };
    let n = usize::try_from(n.max(0)).unwrap_or(usize::MAX);
    match value {
        Value::Str(text) => {
            let mut out = Buffer::new(budget)?;
            out.repeat(&text.text, n)?;
            Ok(out.marked(text.safe))
        }
        Value::List(seq) | Value::Tuple(seq) => {
            budget.copies(seq.items.len().saturating_mul(n))?;
            // Nothing, as often as wanted, is nothing.
            let items = seq.items.iter().cycle().take(seq.items.len().saturating_mul(n)).cloned().collect();
            if matches!(value, Value::List(_)) {
                Value::list(budget, items)
            } else {
                Value::tuple(budget, items)
            }
        }
        _ => unsupported(Binary::Mul, value, count),
    }
}

fn numbers(op: Binary, a: &Value, b: &Value) -> Res<Value> {
    if let (Some(x), Some(y)) = (a.as_int(), b.as_int()) {
        return integers(op, x, y);
    }
    let (Some(x), Some(y)) = (a.as_float(), b.as_float()) else { return unsupported(op, a, b) };
    if y == 0.0 && matches!(op, Binary::Div | Binary::FloorDiv | Binary::Mod) {
        return fail("float division by zero");
    }
    Ok(Value::Float(match op {
        Binary::Add => x + y,
        Binary::Sub => x - y,
        Binary::Mul => x * y,
        Binary::Div => x / y,
        Binary::FloorDiv => {
            let floor = ((x - float_mod(x, y)) / y).round();
            if floor == 0.0 { 0f64.copysign(x / y) } else { floor }
        }
        Binary::Mod => float_mod(x, y),
        Binary::Pow => power(x, y)?,
    }))
}

/// The remainder with the sign of the divisor.
fn float_mod(x: f64, y: f64) -> f64 {
    let rest = x % y;
    if rest == 0.0 {
        0f64.copysign(y)
    } else if (rest < 0.0) == (y < 0.0) {
        rest
    } else {
        rest + y
    }
}

fn power(x: f64, y: f64) -> Res<f64> {
    if x == 0.0 && y < 0.0 {
        return fail("0.0 cannot be raised to a negative power");
    }
    if x < 0.0 && y.fract() != 0.0 && x.is_finite() && y.is_finite() {
        return fail("complex numbers are not supported");
    }
    let got = x.powf(y);
    if got.is_infinite() && x.is_finite() && y.is_finite() {
        return fail("(34, 'Numerical result out of range')");
    }
    Ok(got)
}

fn integers(op: Binary, x: i128, y: i128) -> Res<Value> {
    if y == 0 && matches!(op, Binary::Div | Binary::FloorDiv | Binary::Mod) {
        return fail("division by zero");
    }
    let exact = match op {
        Binary::Add => x.checked_add(y),
        Binary::Sub => x.checked_sub(y),
        Binary::Mul => x.checked_mul(y),
        Binary::Div => return Ok(Value::Float(x as f64 / y as f64)),
        Binary::FloorDiv => {
            x.checked_div(y).map(|q| if x % y != 0 && (x < 0) != (y < 0) { q - 1 } else { q })
        }
        Binary::Mod => x.checked_rem(y).map(|r| if r != 0 && (r < 0) != (y < 0) { r + y } else { r }),
        Binary::Pow if y < 0 => return power(x as f64, y as f64).map(Value::Float),
        Binary::Pow => match x {
            0 | 1 => Some(if y == 0 { 1 } else { x }),
            -1 => Some(if y % 2 == 0 { 1 } else { -1 }),
            _ => u32::try_from(y).ok().and_then(|y| x.checked_pow(y)),
        },
    };
    exact.map(Value::Int).ok_or_else(|| fault("integers beyond 127 bits are not supported"))
}

/// `-a`, `+a`
pub(super) fn sign(minus: bool, a: &Value) -> Res<Value> {
    match a {
        Value::Undefined(message) => fail(message.to_string()),
        Value::Float(v) => Ok(Value::Float(if minus { -v } else { *v })),
        _ => match a.as_int() {
            Some(v) if minus => integers(Binary::Sub, 0, v),
            Some(v) => Ok(Value::Int(v)),
            None => fail(format!("bad operand type for unary sign: '{}'", a.type_name())),
        },
    }
}

/// `a op b`
pub(super) fn compare(budget: &Rc<Budget>, op: Compare, a: &Value, b: &Value) -> Res<bool> {
    Ok(match op {
        Compare::Eq => equal(budget, a, b)?,
        Compare::Ne => !equal(budget, a, b)?,
        Compare::Lt => order(budget, a, b)? == Some(Ordering::Less),
        Compare::Gt => order(budget, a, b)? == Some(Ordering::Greater),
        Compare::Le => matches!(order(budget, a, b)?, Some(Ordering::Less | Ordering::Equal)),
        Compare::Ge => matches!(order(budget, a, b)?, Some(Ordering::Greater | Ordering::Equal)),
        Compare::In => contains(budget, b, a)?,
        Compare::NotIn => !contains(budget, b, a)?,
    })
}

pub(super) fn equal(budget: &Rc<Budget>, a: &Value, b: &Value) -> Res<bool> {
    budget.work(1)?;
    let all = |x: &[Value], y: &[Value]| -> Res<bool> {
        if x.len() != y.len() {
            return Ok(false);
        }
        for (x, y) in x.iter().zip(y) {
            if !same(x, y) && !equal(budget, x, y)? {
                return Ok(false);
            }
        }
        Ok(true)
    };
    Ok(match (a, b) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::Str(x), Value::Str(y)) => {
            budget.bytes(x.text.len().min(y.text.len()))?;
            x.text == y.text
        }
        (Value::List(x), Value::List(y)) | (Value::Tuple(x), Value::Tuple(y)) => all(&x.items, &y.items)?,
        (Value::Dict(x), Value::Dict(y)) => {
            if x.entries.len() != y.entries.len() {
                return Ok(false);
            }
            for (key, value) in &x.entries {
                match y.get(budget, key)? {
                    Some(other) if same(value, other) || equal(budget, value, other)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        (Value::Range(x), Value::Range(y)) => {
            x.len == y.len && (x.len == 0 || x.start == y.start) && (x.len <= 1 || x.step == y.step)
        }
        (Value::View(v, x), Value::View(w, y)) if v == w && *v != View::Values => {
            if x.entries.len() != y.entries.len() {
                return Ok(false);
            }
            for (key, value) in &x.entries {
                match y.get(budget, key)? {
                    Some(other) if *v == View::Keys || equal(budget, value, other)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        _ => match (a.as_int(), b.as_int()) {
            (Some(x), Some(y)) => x == y,
            _ => match (a.as_float(), b.as_float()) {
                (Some(x), Some(y)) => x == y,
                _ => same(a, b),
            },
        },
    })
}

/// `a is b`
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::None, Value::None) => true,
        (Value::Bool(x), Value::Bool(y)) => x == y,
        (Value::Int(x), Value::Int(y)) => x == y,
        (Value::Str(x), Value::Str(y)) => Rc::ptr_eq(x, y),
        (Value::List(x), Value::List(y)) | (Value::Tuple(x), Value::Tuple(y)) => Rc::ptr_eq(x, y),
        (Value::Dict(x), Value::Dict(y)) => Rc::ptr_eq(x, y),
        (Value::Iter(x), Value::Iter(y)) => Rc::ptr_eq(x, y),
        (Value::Namespace(x), Value::Namespace(y)) | (Value::Macro(x), Value::Macro(y)) => x == y,
        (Value::Loop(x), Value::Loop(y)) => Rc::ptr_eq(x, y),
        (Value::Cycler(x), Value::Cycler(y)) => Rc::ptr_eq(x, y),
        (Value::Joiner(x), Value::Joiner(y)) => Rc::ptr_eq(x, y),
        (Value::Function(x), Value::Function(y)) => x == y,
        (Value::Method(x), Value::Method(y)) => x.1 == y.1 && same(&x.0, &y.0),
        _ => false,
    }
}

/// `None` where a number is no number.
pub(super) fn order(budget: &Rc<Budget>, a: &Value, b: &Value) -> Res<Option<Ordering>> {
    budget.work(1)?;
    match (a, b) {
        (Value::Undefined(message), _) | (_, Value::Undefined(message)) => return fail(message.to_string()),
        (Value::Str(x), Value::Str(y)) => {
            budget.bytes(x.text.len().min(y.text.len()))?;
            return Ok(Some(x.text.cmp(&y.text)));
        }
        (Value::List(x), Value::List(y)) | (Value::Tuple(x), Value::Tuple(y)) => {
            for (x, y) in x.items.iter().zip(&y.items) {
                if !same(x, y) && !equal(budget, x, y)? {
                    return order(budget, x, y);
                }
            }
            return Ok(Some(x.items.len().cmp(&y.items.len())));
        }
        _ => {}
    }
    if let (Some(x), Some(y)) = (a.as_int(), b.as_int()) {
        return Ok(Some(x.cmp(&y)));
    }
    match (a.as_float(), b.as_float()) {
        (Some(x), Some(y)) => Ok(x.partial_cmp(&y)),
        _ => fail(format!("'{}' and '{}' cannot be compared", a.type_name(), b.type_name())),
    }
}

/// `item in container`
pub(super) fn contains(budget: &Rc<Budget>, container: &Value, item: &Value) -> Res<bool> {
    match container {
        Value::Str(text) => {
            let Some(part) = item.as_str() else {
                return fail(format!(
                    "'in <string>' requires string as left operand, not {}",
                    item.type_name()
                ));
            };
            budget.bytes(text.text.len())?;
            Ok(text.text.contains(part))
        }
        Value::Dict(dict) | Value::View(View::Keys, dict) => Ok(dict.get(budget, item)?.is_some()),
        Value::Range(range) => match item.as_int() {
            Some(v) => Ok(v.checked_sub(range.start).is_some_and(|distance| {
                let i = distance / range.step;
                distance % range.step == 0 && i >= 0 && i < range.len as i128
            })),
            None => any(budget, &container.items(budget)?, item),
        },
        Value::List(seq) | Value::Tuple(seq) => any(budget, &seq.items, item),
        other => any(budget, &other.items(budget)?, item),
    }
}

fn any(budget: &Rc<Budget>, items: &[Value], item: &Value) -> Res<bool> {
    for other in items {
        if same(other, item) || equal(budget, other, item)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Sorts values by the keys before them as `sorted` does: equal ones keep their order, what cannot be compared is an
/// error. The sorts of the standard library may panic where an order is none, as that of `nan`; a merge cannot.
pub(super) fn sort(budget: &Rc<Budget>, keyed: &mut Vec<(Value, Value)>, reverse: bool) -> Res<()> {
    let mut width = 1;
    while width < keyed.len() {
        budget.copies(2 * keyed.len())?;
        let mut merged = Vec::with_capacity(keyed.len());
        for pair in keyed.chunks(2 * width) {
            let (mut left, mut right) = pair.split_at(width.min(pair.len()));
            while let ([a, ..], [b, ..]) = (left, right) {
                let found = if reverse { order(budget, &a.0, &b.0)? } else { order(budget, &b.0, &a.0)? };
                let from = if found == Some(Ordering::Less) { &mut right } else { &mut left };
                if let [first, rest @ ..] = *from {
                    merged.push(first.clone());
                    *from = rest;
                }
            }
            merged.extend_from_slice(left);
            merged.extend_from_slice(right);
        }
        *keyed = merged;
        width *= 2;
    }
    Ok(())
}

/// `markupsafe.escape`
pub(super) fn escape_into(text: &str, out: &mut Buffer) -> Res<()> {
    let mut plain = 0;
    for (i, c) in text.bytes().enumerate() {
        let escape = match c {
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'"' => "&#34;",
            b'\'' => "&#39;",
            _ => continue,
        };
        out.push(&text[plain..i])?;
        out.push(escape)?;
        plain = i + 1;
    }
    out.push(&text[plain..])
}

/// Entries of a mapping, from a mapping or a list of pairs.
pub(super) fn entries(budget: &Rc<Budget>, value: &Value, out: &mut Dict) -> Res<()> {
    if let Value::Dict(dict) = value {
        for (k, v) in &dict.entries {
            out.insert(budget, k.clone(), v.clone())?;
        }
        return Ok(());
    }
    for pair in value.items(budget)? {
        match &pair.items(budget)?[..] {
            [k, v] => out.insert(budget, k.clone(), v.clone())?,
            other => return fail(format!("an entry of a dictionary has {} parts, must have 2", other.len())),
        }
    }
    Ok(())
}
