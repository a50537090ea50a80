//! Filters of Jinja2: those of sequences and numbers here, those of text in `text_filters`, what looks into each item in
//! `item_filters`.

use super::json;
use super::limits::{Res, fail, fault};
use super::numbers::{round, to_int};
use super::operators;
use super::print;
use super::run::{Args, Interpreter, short};
use super::strings::{integer, string};
use super::value::{Value, View, parse_float};

const NAMES: [&str; 54] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "items",
    "map",
    "min",
    "max",
    "pprint",
    "random",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "urlize",
    "wordcount",
    "wordwrap",
    "xmlattr",
    "tojson",
];

/// Levels of the interpreter that one filter stands for: `map` calls filters from inside of a filter.
const FILTER_DEPTH: u64 = 8;

/// Whether Jinja2 has a filter.
pub(super) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

impl Interpreter<'_> {
    /// `value|name(args)`
    pub(super) fn filter(&mut self, name: &str, value: &Value, args: Args) -> Res<Value> {
        self.budget.work(1)?;
        self.deeper_by(FILTER_DEPTH, |this| this.filtered(name, value, args))
    }

    fn filtered(&mut self, name: &str, value: &Value, args: Args) -> Res<Value> {
        let budget = &self.budget.clone();
        match name {
            "abs" => {
                args.bind::<0>(name, [], 0)?;
                match (value, value.as_int()) {
                    (Value::Float(v), _) => Ok(Value::Float(v.abs())),
                    (_, Some(v)) if v < 0 => operators::sign(true, value),
                    (_, Some(v)) => Ok(Value::Int(v)),
                    _ => fail(format!("bad operand type for abs(): '{}'", value.type_name())),
                }
            }
            "attr" => {
                let [key] = args.bind(name, ["name"], 1)?;
                let key = string(key.as_ref(), name)?;
                // Attributes only, no items: what only a dictionary has is undefined.
                match value {
                    Value::Dict(_)
                        if !["copy", "fromkeys", "get", "items", "keys", "values"].contains(&key) =>
                    {
                        Ok(Value::undefined(format!("'dict object' has no attribute '{}'", short(key))))
                    }
                    Value::Undefined(message) => fail(message.to_string()),
                    _ => self.attribute(value, key),
                }
            }
            "batch" => {
                let [count, fill] = args.bind(name, ["linecount", "fill_with"], 1)?;
                let count = integer(count.as_ref(), 0)?;
                let items = value.items(budget)?;
                // A count that no length reaches makes one batch of all.
                let size = usize::try_from(count).ok().filter(|&n| n > 0).unwrap_or(usize::MAX);
                let size =
                    if count == 0 && !items.is_empty() { return self.zero_batches(items) } else { size };
                let mut batches = Vec::new();
                for chunk in items.chunks(size.min(items.len().max(1))) {
                    let mut chunk = chunk.to_vec();
                    if let Some(fill) = fill.as_ref().filter(|v| !matches!(v, Value::None))
                        && count > 0
                    {
                        let missing = size.saturating_sub(chunk.len());
                        budget.copies(missing)?;
                        chunk.resize(chunk.len() + missing, fill.clone());
                    }
                    batches.push(Value::list(budget, chunk)?);
                }
                Value::iter(budget, batches)
            }
            "slice" => {
                let [slices, fill] = args.bind(name, ["slices", "fill_with"], 1)?;
                let items = value.items(budget)?;
                let slices = integer(slices.as_ref(), 0)?;
                if slices == 0 {
                    return fail("integer division or modulo by zero");
                }
                let slices = usize::try_from(slices).unwrap_or(0);
                budget.copies(slices)?;
                let (each, more) = (
                    items.len().checked_div(slices).unwrap_or(0),
                    items.len().checked_rem(slices).unwrap_or(0),
                );
                let (mut lists, mut at) = (Vec::new(), 0);
                for i in 0..slices {
                    let end = at + each + usize::from(i < more);
                    let mut part = items.get(at..end).unwrap_or_default().to_vec();
                    at = end;
                    if let Some(fill) = fill.as_ref().filter(|v| !matches!(v, Value::None) && i >= more) {
                        part.push(fill.clone());
                    }
                    lists.push(Value::list(budget, part)?);
                }
                Value::iter(budget, lists)
            }
            "count" | "length" => {
                args.bind::<0>(name, [], 0)?;
                if let Value::Loop(at) = value {
                    let length = self.loop_attribute(**at, "length", value)?;
                    return length.ok_or_else(|| fault("no length"));
                }
                value.len(budget).map(|n| Value::Int(n as i128))
            }
            "d" | "default" => {
                let [default, boolean] = args.bind(name, ["default_value", "boolean"], 0)?;
                let truth = boolean.is_some_and(|b| b.truth());
                if value.is_undefined() || (truth && !value.truth()) {
                    return default.map_or_else(|| Value::str(budget, ""), Ok);
                }
                Ok(value.clone())
            }
            "dictsort" => {
                let [sensitive, by, reverse] = args.bind(name, ["case_sensitive", "by", "reverse"], 0)?;
                let place = match by.as_ref().map(|v| v.as_str()) {
                    None | Some(Some("key")) => 0,
                    Some(Some("value")) => 1,
                    _ => return fail("You can only sort by either \"key\" or \"value\""),
                };
                let Value::Dict(dict) = value else {
                    return fail(format!("'{}' has no items to sort", value.type_name()));
                };
                let mut keyed = Vec::new();
                for (k, v) in &dict.entries {
                    let key = if place == 0 { k } else { v };
                    let key = self.folded(key.clone(), sensitive.as_ref())?;
                    keyed.push((key, Value::tuple(budget, vec![k.clone(), v.clone()])?));
                }
                operators::sort(budget, &mut keyed, reverse.is_some_and(|v| v.truth()))?;
                Value::list(budget, keyed.into_iter().map(|(_, v)| v).collect())
            }
            "sort" => {
                let [reverse, sensitive, attribute] =
                    args.bind(name, ["reverse", "case_sensitive", "attribute"], 0)?;
                let paths = match attribute.as_ref().and_then(Value::as_str) {
                    Some(text) => text
                        .split(',')
                        .map(|part| self.path(Some(&Value::str(budget, part)?)))
                        .collect::<Res<Vec<_>>>()?,
                    None => vec![self.path(attribute.as_ref())?],
                };
                let mut keyed = Vec::new();
                for item in value.items(budget)? {
                    let mut keys = Vec::new();
                    for path in &paths {
                        let key = self.follow(&item, path, None)?;
                        keys.push(self.folded(key, sensitive.as_ref())?);
                    }
                    keyed.push((Value::list(budget, keys)?, item));
                }
                operators::sort(budget, &mut keyed, reverse.is_some_and(|v| v.truth()))?;
                Value::list(budget, keyed.into_iter().map(|(_, v)| v).collect())
            }
            "unique" => {
                let [sensitive, attribute] = args.bind(name, ["case_sensitive", "attribute"], 0)?;
                let path = self.path(attribute.as_ref())?;
                let (mut seen, mut found) = (std::collections::HashSet::new(), Vec::new());
                for item in value.items(budget)? {
                    let key = self.follow(&item, &path, None)?;
                    let key = self.folded(key, sensitive.as_ref())?.key(budget)?;
                    if seen.insert(key) {
                        found.push(item);
                    }
                }
                Value::iter(budget, found)
            }
            "min" | "max" => {
                let [sensitive, attribute] = args.bind(name, ["case_sensitive", "attribute"], 0)?;
                let path = self.path(attribute.as_ref())?;
                let want = if name == "min" { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater };
                let mut best: Option<(Value, Value)> = None;
                for item in value.items(budget)? {
                    let key = self.follow(&item, &path, None)?;
                    let key = self.folded(key, sensitive.as_ref())?;
                    let better = match &best {
                        None => true,
                        Some((old, _)) => operators::order(budget, &key, old)? == Some(want),
                    };
                    if better {
                        best = Some((key, item));
                    }
                }
                Ok(best
                    .map_or_else(|| Value::undefined("No aggregated item, sequence was empty."), |(_, v)| v))
            }
            "sum" => {
                let [attribute, start] = args.bind(name, ["attribute", "start"], 0)?;
                let path = self.path(attribute.as_ref())?;
                let mut total = start.unwrap_or(Value::Int(0));
                if total.as_str().is_some() {
                    return fail("sum() can't sum strings [use ''.join(seq) instead]");
                }
                for item in value.items(budget)? {
                    let item = self.follow(&item, &path, None)?;
                    total = operators::binary(budget, super::ast::Binary::Add, &total, &item)?;
                }
                Ok(total)
            }
            "groupby" => {
                let [attribute, default, sensitive] =
                    args.bind(name, ["attribute", "default", "case_sensitive"], 1)?;
                let path = self.path(attribute.as_ref())?;
                let default = default.filter(|v| !matches!(v, Value::None));
                let mut keyed = Vec::new();
                for item in value.items(budget)? {
                    let key = self.follow(&item, &path, default.as_ref())?;
                    keyed.push((self.folded(key, sensitive.as_ref())?, item));
                }
                operators::sort(budget, &mut keyed, false)?;
                let (mut groups, mut at) = (Vec::new(), 0);
                while let Some((key, first)) = keyed.get(at) {
                    let mut list = vec![first.clone()];
                    at += 1;
                    while let Some((other, item)) = keyed.get(at) {
                        if !operators::equal(budget, key, other)? {
                            break;
                        }
                        list.push(item.clone());
                        at += 1;
                    }
                    let real = if sensitive.as_ref().is_some_and(Value::truth) {
                        key.clone()
                    } else {
                        self.follow(first, &path, default.as_ref())?
                    };
                    groups.push(self.group(real, Value::list(budget, list)?)?);
                }
                Value::list(budget, groups)
            }
            "first" => {
                args.bind::<0>(name, [], 0)?;
                let first = match value {
                    Value::Iter(iter) => {
                        let at = iter.at.get();
                        iter.at.set(at + 1);
                        iter.items.items.get(at).cloned()
                    }
                    Value::List(seq) | Value::Tuple(seq) => seq.items.first().cloned(),
                    Value::Str(_) => Some(self.item(value, &Value::Int(0))?).filter(|v| !v.is_undefined()),
                    other => other.items(budget)?.into_iter().next(),
                };
                Ok(first.unwrap_or_else(|| Value::undefined("No first item, sequence was empty.")))
            }
            "last" => {
                args.bind::<0>(name, [], 0)?;
                let last = match value {
                    Value::Iter(_) | Value::Loop(_) => {
                        return fail(format!("'{}' object is not reversible", value.type_name()));
                    }
                    Value::List(seq) | Value::Tuple(seq) => seq.items.last().cloned(),
                    Value::Str(_) => Some(self.item(value, &Value::Int(-1))?).filter(|v| !v.is_undefined()),
                    other => other.items(budget)?.pop(),
                };
                Ok(last.unwrap_or_else(|| Value::undefined("No last item, sequence was empty.")))
            }
            "list" => {
                args.bind::<0>(name, [], 0)?;
                Value::list(budget, value.items(budget)?)
            }
            "items" => {
                args.bind::<0>(name, [], 0)?;
                match value {
                    Value::Undefined(_) => Value::iter(budget, Vec::new()),
                    Value::Dict(dict) => {
                        Value::iter(budget, Value::View(View::Items, dict.clone()).items(budget)?)
                    }
                    _ => fail("Can only get item pairs from a mapping."),
                }
            }
            "reverse" => {
                args.bind::<0>(name, [], 0)?;
                if let Value::Str(_) = value {
                    return self.slice(value, &[Value::None, Value::None, Value::Int(-1)]);
                }
                let mut items = value.items(budget)?;
                items.reverse();
                if matches!(value, Value::Iter(_)) {
                    Value::list(budget, items)
                } else {
                    Value::iter(budget, items)
                }
            }
            "map" => self.map(value, args),
            "select" | "reject" | "selectattr" | "rejectattr" => self.select(name, value, args),
            "float" => {
                let [default] = args.bind(name, ["default"], 0)?;
                if let Value::Undefined(message) = value {
                    return fail(message.to_string());
                }
                let found = value.as_str().map_or_else(|| value.as_float(), parse_float);
                Ok(found.map_or_else(|| default.unwrap_or(Value::Float(0.0)), Value::Float))
            }
            "int" => to_int(value, args),
            "round" => round(value, args),
            "tojson" => self.tojson(value, args),
            "random" => fail("the filter 'random' is not supported: prompts would differ from run to run"),
            _ if is_known(name) => self.text_filter(name, value, args),
            _ => fail(format!("no filter named '{}'", name.chars().take(100).collect::<String>())),
        }
    }

    /// `batch(0)`: Python's loop gives an empty batch before the first item, and then every item grows the next.
    fn zero_batches(&mut self, items: Vec<Value>) -> Res<Value> {
        let budget = &self.budget.clone();
        let batches = vec![Value::list(budget, Vec::new())?, Value::list(budget, items)?];
        Value::iter(budget, batches)
    }

    fn tojson(&mut self, value: &Value, args: Args) -> Res<Value> {
        let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
        let [ascii, indent, separators, sort] = args.bind("tojson", names, 0)?;
        let given = |v: Option<Value>| v.filter(|v| !matches!(v, Value::None));
        let indent = match given(indent) {
            None => None,
            Some(Value::Str(text)) => Some(text.text.clone()),
            Some(value) => {
                let count = usize::try_from(integer(Some(&value), 0)?.max(0)).unwrap_or(usize::MAX);
                drop(self.budget.charge(count)?);
                Some(" ".repeat(count))
            }
        };
        let (item, key) = match given(separators) {
            None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
            Some(pair) => match &pair.items(&self.budget)?[..] {
                [item, key] => (
                    string(Some(item), "separators")?.to_owned(),
                    string(Some(key), "separators")?.to_owned(),
                ),
                other => return fail(format!("separators: {} given, must be 2", other.len())),
            },
        };
        let options = json::Options {
            ascii: ascii.is_some_and(|v| v.truth()),
            indent,
            item,
            key,
            sort: sort.is_some_and(|v| v.truth()),
        };
        json::write(&self.budget, value, &options)
    }
}

/// `str(value)` as the text filters take it.
pub(super) fn soft(this: &Interpreter<'_>, value: &Value) -> Res<Value> {
    print::str_of(&this.budget, value)
}
